"""A fact in a long prompt, found again: 8,000 tokens always, 32,000 with TINYSERVE_LONG=1 (minutes on two cores)."""
import json
import os
import tarfile
import urllib.request

import pytest

from conftest import ROOT

QWEN, GEMMA = "qwen2.5-coder-0.5b", "gemma-3-270m"
LENGTHS = [8_000, 32_000] if os.environ.get("TINYSERVE_LONG") else [8_000]
FACT = "The number of the blue house is 73915."


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=1200) as reply:
        return json.load(reply)


def haystack(server, tokens):
    """`tokens` tokens of a novel with the fact in the middle of them, as text."""
    with tarfile.open(ROOT / "tests/data/text-valid.tar.xz") as archive:
        name = next(m.name for m in archive.getmembers() if "winesburg" in m.name)
        text = archive.extractfile(name).read().decode()[5_000:200_000]
    ids = post(server, "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    part = lambda begin, end: post(server, "/detokenize", {"tokens": ids[begin:end]})["prompt"]
    return part(0, tokens // 2) + f"\n\n{FACT}\n\n" + part(tokens // 2, tokens)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_fact_in_a_chat(qwen, tokens):
    text = haystack(qwen, tokens - 100)
    client = qwen.client(timeout=1200)
    ask = lambda question: client.chat.completions.create(
        model=QWEN, messages=[{"role": "user", "content": f"{text}\n\n{question}"}], temperature=0, max_tokens=40)
    answer = ask("What is the number of the blue house?")
    assert tokens - 200 < answer.usage.prompt_tokens < tokens + 200
    assert "73915" in answer.choices[0].message.content
    # The next question finds the text in the cache.
    before = qwen.metrics()["tinyserve:prefix_cache_hits_total"]
    again = ask("A letter has to go to the blue house. Which number do I write on it?")
    assert "73915" in again.choices[0].message.content
    assert qwen.metrics()["tinyserve:prefix_cache_hits_total"] - before > tokens - 300


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_fact_completed(gemma, tokens):
    text = haystack(gemma, tokens - 100)
    answer = gemma.client(timeout=1200).completions.create(model=GEMMA, prompt=f"{text}\n\nThe number of the blue house is", temperature=0, max_tokens=8)
    assert tokens - 200 < answer.usage.prompt_tokens < tokens + 200
    assert "73915" in answer.choices[0].text
