"""serve --record-trace, then replay: what the server did is in the trace, none of its text is, and the replay finds the same hits."""
import json
import re
import subprocess

from conftest import NAME, PROGRAM, Server

TEXT = "The harbour master counted seventeen vermilion lanterns before the ferry came. " * 12


def complete(client, prompt, max_tokens, **more):
    return client.completions.create(model=NAME, prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body={"ignore_eos": True}, **more)


def test_recorded_then_replayed(tmp_path):
    trace = tmp_path / "requests.trace"
    server = Server("--record-trace", str(trace))
    try:
        client = server.client()
        first = complete(client, TEXT, 24)
        second = complete(client, TEXT + first.choices[0].text, 8)  # goes on where the first ended: all of it is in the cache
        third = complete(client, "Nothing alike.", 5)
        stream = complete(client, TEXT, 4000, stream=True)
        for _ in range(3):
            next(iter(stream))
        stream.close()  # a client that leaves
    finally:
        server.stop()
    text = trace.read_text()
    for word in ("harbour", "vermilion", "lanterns", "Nothing"):
        assert word not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0] == {"format": "tinyserve-trace", "version": 1, "page_size": 16}
    begins, ends = [l for l in lines[1:] if "prompt" in l], [l for l in lines[1:] if "answer" in l]
    assert [b["prompt"] for b in begins[:3]] == [a.usage.prompt_tokens for a in (first, second, third)]
    assert [b["max_tokens"] for b in begins] == [24, 8, 5, 4000]
    assert [e["answer"] for e in ends[:3]] == [24, 8, 5] and ends[3]["cancel"] is True and 0 < ends[3]["answer"] < 4000
    # The second prompt's names are the first's, answer included, as far as both go.
    one = begins[0]["pages"] + ends[0].get("pages", [])
    two = begins[1]["pages"]
    shared = sum(a == b for a, b in zip(one, two))
    assert shared >= first.usage.prompt_tokens // 16
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in one + two)

    # Slowly, so that each request has ended before the next one comes, as it was; and no page is given up while others are empty.
    p = subprocess.run([PROGRAM, "replay", "--trace", str(trace), "--pages", "1000", "--policy", "free_queue", "--speed", "0.1", "--clock", "cpu", "--json", "-"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    report = json.loads(p.stdout[p.stdout.index("{\n"):])
    assert report["trace"]["requests"] == 4 and report["policies"][0]["completed"] == 4
    served = sum(a.usage.prompt_tokens_details.cached_tokens for a in (first, second, third)) if first.usage.prompt_tokens_details else None
    hits = report["policies"][0]["hit_tokens"]
    # The cancelled one found the first's prompt as well: all full pages but the last token's; of the page behind them that part, too, if it
    # got far enough before it was cancelled for the trace to have that page's name.
    limit = first.usage.prompt_tokens - 1
    expected = limit if ends[3].get("pages") else 16 * (limit // 16)
    assert served is None or hits == served + expected


def test_a_file_that_is_there_stays(tmp_path):
    trace = tmp_path / "old"
    trace.write_text("old")
    p = subprocess.run([PROGRAM, "serve", "--model", "models/tiny-16m-32k", "--port", "0", "--record-trace", str(trace)],
                       capture_output=True, text=True, timeout=60)
    assert p.returncode == 1 and str(trace) in p.stderr.splitlines()[-1] and trace.read_text() == "old"
