#!/usr/bin/env python3
"""Ten small Python tasks for a chat model: asks for a function at temperature 0, runs what comes back against asserts.

    python3 tests/published/tasks.py --url http://127.0.0.1:8080/v1 [--model NAME]

works with any server that speaks OpenAI's chat completions, and prints each task and how many functions were right.
A function runs in a process of its own: Python without site-packages, an empty folder, 10 s of CPU, 512 MB, no files
written, no child processes."""
import argparse, json, pathlib, re, resource, secrets, subprocess, sys, tempfile, urllib.request

MAX_TOKENS = 512
# (the function's name, what it has to do, asserts)
TASKS = [
    ("is_palindrome", "is_palindrome(text) that returns True if text reads the same backwards, ignoring case and everything that is not a letter or a digit",
     "assert is_palindrome('A man, a plan, a canal: Panama')\nassert not is_palindrome('hello')\nassert is_palindrome('')"),
    ("fibonacci", "fibonacci(n) that returns the n-th Fibonacci number, with fibonacci(0) == 0 and fibonacci(1) == 1, fast enough for n = 200",
     "assert [fibonacci(i) for i in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]\nassert fibonacci(200) == 280571172992510140037611932413038677189525"),
    ("word_counts", "word_counts(text) that returns a dictionary from each word of text, in lower case and split at white space, to how often it occurs",
     "assert word_counts('the cat The dog') == {'the': 2, 'cat': 1, 'dog': 1}\nassert word_counts('') == {}"),
    ("primes_below", "primes_below(n) that returns the list of all prime numbers smaller than n, in order",
     "assert primes_below(20) == [2, 3, 5, 7, 11, 13, 17, 19]\nassert primes_below(2) == []\nassert primes_below(3) == [2]\nassert len(primes_below(10000)) == 1229"),
    ("flatten", "flatten(items) that returns a flat list of everything in items, a list that may hold lists nested to any depth, in order",
     "assert flatten([1, [2, [3, [4]], 5]]) == [1, 2, 3, 4, 5]\nassert flatten([]) == []\nassert flatten([[], [[]]]) == []"),
    ("roman_to_int", "roman_to_int(s) that returns the value of the Roman numeral s",
     "assert roman_to_int('III') == 3\nassert roman_to_int('IX') == 9\nassert roman_to_int('MCMXCIV') == 1994\nassert roman_to_int('LVIII') == 58"),
    ("run_length", "run_length(text) that returns the run-length encoding of text as a list of (character, count) tuples",
     "assert run_length('aaabcc') == [('a', 3), ('b', 1), ('c', 2)]\nassert run_length('') == []\nassert run_length('aba') == [('a', 1), ('b', 1), ('a', 1)]"),
    ("balanced", "balanced(text) that returns True if the brackets (), [] and {} in text are balanced and properly nested, ignoring all other characters",
     "assert balanced('a(b[c]{d})')\nassert not balanced('(]')\nassert not balanced('((')\nassert not balanced('())')\nassert balanced('')"),
    ("merge_intervals", "merge_intervals(intervals) that takes a list of [start, end] lists in any order, merges those that overlap or touch, and returns them as a sorted list of [start, end] lists",
     "assert [list(i) for i in merge_intervals([[8, 10], [1, 3], [2, 6], [15, 18]])] == [[1, 6], [8, 10], [15, 18]]\nassert merge_intervals([]) == []\n"
     "assert [list(i) for i in merge_intervals([[1, 4], [4, 5]])] == [[1, 5]]\nassert [list(i) for i in merge_intervals([[1, 10], [2, 3]])] == [[1, 10]]"),
    ("spiral", "spiral(matrix) that returns the elements of matrix, a list of equally long rows, in clockwise spiral order beginning at the top left",
     "assert spiral([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == [1, 2, 3, 6, 9, 8, 7, 4, 5]\nassert spiral([[1, 2, 3, 4]]) == [1, 2, 3, 4]\n"
     "assert spiral([[1], [2], [3]]) == [1, 2, 3]\nassert spiral([[1, 2], [3, 4], [5, 6]]) == [1, 2, 4, 6, 5, 3]"),
]

# Those that llama.cpp (llama-cpp-python 0.3.36's copy, 0c1e57098) has right with the same file and chat template, measured by
#   llama-server -m models/published/qwen2.5-coder-0.5b.gguf -t 2 -c 4096 -np 1 --jinja
#   python3 tests/published/tasks.py
# on 2 cores of an AMD EPYC (Zen 4), 2026-11-28.
LLAMA_CPP_RIGHT = ["is_palindrome", "fibonacci", "primes_below", "flatten", "spiral"]


def prompt(task):
    return f"Write a Python function {task[1]}. Answer with the code only."


def code_of(answer):
    """The first fenced block of an answer, or all of it where there is none."""
    block = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", answer, re.S)
    return block.group(1) if block else answer


def limit():
    for what, value in ((resource.RLIMIT_CPU, 10), (resource.RLIMIT_AS, 512 << 20), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (value, value))


# Runs before the model's code: no process may be started from here on (the limit on processes does not bind root).
GUARD = """import sys
def refuse(event, args):
    if event.split(".")[0] in ("subprocess", "socket") or event in ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.kill"):
        raise PermissionError(event)
sys.addaudithook(refuse)
"""


def passes(task, answer):
    """"" if the function in `answer` does what the task asks; else what went wrong."""
    end = secrets.token_hex(16)  # nothing but the end of the program prints it
    program = f"{GUARD}{code_of(answer)}\n{task[2]}\nprint({end!r})\n"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, errors="replace", timeout=30, preexec_fn=limit, env={"PATH": "/usr/bin:/bin"})
        except subprocess.TimeoutExpired:
            return "ran for more than 30 s"
    if done.returncode == 0 and done.stdout.endswith(end + "\n"):
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]


def ask(url, model, text):
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": MAX_TOKENS}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def run(url, model):
    """[(name, answer, what went wrong)] of all tasks."""
    out = []
    for task in TASKS:
        answer = ask(url, model, prompt(task))
        out.append((task[0], answer, passes(task, answer)))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--url", default="http://127.0.0.1:8080/v1", help="default: %(default)s")
    ap.add_argument("--model", default="qwen2.5-coder-0.5b", help="default: %(default)s")
    ap.add_argument("--save", type=pathlib.Path, help="write the answers to this JSON file")
    a = ap.parse_args()
    rows = run(a.url, a.model)
    for name, _, wrong in rows:
        print(f"{name:16} {wrong or 'right'}")
    print(f"{sum(not wrong for _, _, wrong in rows)} of {len(rows)} right")
    if a.save:
        a.save.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
