"""Token ids and log probabilities of the published models against transformers' on the same files (make_goldens.py)."""
import json
import math
import pathlib
import urllib.request

import pytest

QWEN, GEMMA = "qwen2.5-coder-0.5b", "gemma-3-270m"
GOLDENS = json.loads((pathlib.Path(__file__).with_name("goldens.json")).read_text())


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def ids_of(names):
    """token ids of logprobs' "token_id:N" names"""
    return [int(name.removeprefix("token_id:")) for name in names]


def score(server, name, ids):
    """(log probability of each token but the first, {id: log probability} of the 20 likeliest after the last)"""
    body = {"model": name, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 20, "echo": True, "return_tokens_as_token_ids": True}
    found = post(server, "/v1/completions", body)["choices"][0]["logprobs"]
    assert ids_of(found["tokens"][: len(ids)]) == ids
    last = found["top_logprobs"][len(ids)]
    return found["token_logprobs"][1 : len(ids)], dict(zip(ids_of(last), last.values()))


@pytest.mark.parametrize("name", [QWEN, GEMMA])
def test_token_ids(servers, name):
    server = servers(name)
    for golden in GOLDENS[name]["strings"]:
        assert post(server, "/tokenize", {"prompt": golden["text"]})["tokens"] == golden["ids"], golden["text"]
        begin = 1 if name == GEMMA else 0  # the BOS
        assert post(server, "/detokenize", {"tokens": golden["ids"][begin:]})["prompt"] == golden["text"]


# (the server's flags, rms and largest difference from transformers, in nats)
PRECISE = (("--dtype", "f32", "--weights", "native"), 2e-4, 2e-3)
DEFAULT = ((), 0.1, 1.0)


@pytest.mark.parametrize("name", [QWEN, GEMMA])
@pytest.mark.parametrize("flags, rms, largest", [PRECISE, DEFAULT], ids=["f32", "default"])
def test_log_probabilities(servers, start, name, flags, rms, largest):
    server = start(name, *flags) if flags else servers(name)
    off = []
    for golden in GOLDENS[name]["prompts"]:
        logprobs, top = score(server, name, golden["ids"])
        for mine, theirs in zip(logprobs, golden["logprobs"], strict=True):
            off.append(abs(mine - theirs))
        for id, theirs in zip(golden["top"], golden["top_logprobs"]):
            if theirs > golden["top_logprobs"][0] - 4:  # rarer ones may be beyond our twenty
                off.append(abs(top[id] - theirs))
        # The likeliest is the likeliest, where it is by more than both may be off.
        if golden["top_logprobs"][0] - golden["top_logprobs"][1] > 4 * rms:
            assert max(top, key=top.get) == golden["top"][0]
    found = math.sqrt(sum(x * x for x in off) / len(off))
    print(f"{name} {' '.join(flags)}: rms {found:.5f}, largest {max(off):.5f} of {len(off)}")
    assert found < rms and max(off) < largest
