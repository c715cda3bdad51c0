"""Ten small Python tasks: the functions that the model writes are run, as many are right as llama.cpp's."""
import tasks

QWEN = "qwen2.5-coder-0.5b"


def test_python_tasks(qwen):
    rows = tasks.run(qwen.url + "/v1", QWEN)
    right = [name for name, _, wrong in rows if not wrong]
    for name, answer, wrong in rows:
        print(f"{name}: {wrong or 'right'}\n{answer if wrong else ''}")
    assert abs(len(right) - len(tasks.LLAMA_CPP_RIGHT)) <= 1, f"right are {', '.join(right)}; llama.cpp's are {', '.join(tasks.LLAMA_CPP_RIGHT)}"


def test_functions_that_misbehave_are_wrong():
    flatten = next(t for t in tasks.TASKS if t[0] == "flatten")
    good = "def flatten(items):\n    out = []\n    for x in items:\n        out += flatten(x) if isinstance(x, list) else [x]\n    return out\n"
    assert tasks.passes(flatten, f"Here it is:\n```python\n{good}```\nIt works.") == ""
    for bad in ("x = 'a' * (1 << 30)\n", "import os\nos.system('true')\n", "import subprocess\nsubprocess.run(['true'])\n", "import os\nos.fork()\n",
                "open('x', 'w').write('x' * 100000)\n", "import socket\nsocket.socket()\n", "raise SystemExit\n",
                "def deep(n): return deep(n + 1)\ndeep(0)\n"):
        assert tasks.passes(flatten, bad + good) != "", bad
