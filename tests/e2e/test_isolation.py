"""Tenants of one server cannot find out each other's prompts by how fast their own are answered (CVE-2025-46570)."""
import time

import pytest


def prompt(seed):
    return [300 + (seed * 7919 + i * 31) % 7000 for i in range(3000)]


def ask(server, key, tokens, **extra):
    """Tokens found in the cache, tokens the model was given, and seconds to the first token."""
    before = settled(server)
    start = time.time()
    reply = server.client(api_key=key).completions.create(model=server.name, prompt=tokens, max_tokens=1, temperature=0, extra_body=extra)
    seconds = time.time() - start
    return reply.usage.prompt_tokens_details.cached_tokens, settled(server) - before, seconds


def settled(server):
    """The counter once nothing is added to it any more: an answer may be sent a moment before its last step is counted."""
    before = metrics(server)
    while True:
        time.sleep(0.1)
        now = metrics(server)
        if now == before:
            return now
        before = now


def metrics(server):
    import urllib.request
    request = urllib.request.Request(server.url + "/metrics", headers={"Authorization": "Bearer alice"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        text = reply.read().decode()
    return next(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith("tinyserve:prompt_tokens_total{"))


@pytest.fixture
def tenants(start_server):
    return start_server("--api-key", "alice", "--api-key", "bob", "--kv-pages", "2048")


def test_cve_2025_46570_a_key_cannot_time_anothers_prompts(tenants):
    ask(tenants, "alice", prompt(0))  # the first request of a server is slower than the rest
    cold = ask(tenants, "alice", prompt(1))
    warm = ask(tenants, "alice", prompt(1))
    assert cold[:2] == (0, 3000) and warm[0] > 2900 and warm[1] < 100
    probe = ask(tenants, "bob", prompt(1))
    assert probe[:2] == cold[:2]
    fastest = min(ask(tenants, "alice", prompt(1))[2] for _ in range(5))
    assert probe[2] > 3 * fastest, "as slow as a prompt that nobody has sent"


def test_cve_2025_46570_a_salt_keeps_to_itself(tenants):
    secret = prompt(2)
    assert ask(tenants, "alice", secret, cache_salt="one")[0] == 0
    for key, salt in (("alice", {"cache_salt": "two"}), ("alice", {}), ("bob", {"cache_salt": "one"})):
        assert ask(tenants, key, secret, **salt)[:2] == (0, 3000)
    assert ask(tenants, "alice", secret, cache_salt="one")[0] > 2900
