"""A pool too small for its load with tiers below it: no wrong token, no lost page, and prefixes found after kill -9."""
import concurrent.futures
import json
import time

CLIENTS, FAMILIES = 16, 4
POOL = ("--kv-pages", "96", "--max-context", "1024", "--threads", "2")


def prompt(i):
    """Token ids: 480 of its family's, 64 of its own; all together more than twice the pool."""
    family = [300 + (i % FAMILIES * 997 + t * 31) % 7000 for t in range(480)]
    return family + [300 + (i * 577 + t * 17) % 7000 for t in range(64)]


def ask(server, i):
    reply = server.client().completions.create(
        model="tiny-16m-32k", prompt=prompt(i), max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
    return reply.choices[0].text


def ask_all(server):
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(lambda i: ask(server, i), range(CLIENTS)))


def tier(metrics, name, tier):
    return metrics[f'tinyserve:{name}{{model_name="tiny-16m-32k",tier="{tier}"}}']


def check_nothing_lost(server):
    server.quiet()
    kv = json.loads(server.get("/debug/kv"))
    assert kv["used"] == 0 and kv["cached"] + kv["empty"] == kv["num_pages"]
    assert sum(span[0] for span in kv["pages"]) == kv["num_pages"]
    assert kv["tiers"]["loading"] == 0
    return kv["tiers"]


def test_small_pool_with_tiers_and_kill_9(start_server, tmp_path):
    reference = start_server("--kv-pages", "2048", "--prefix-cache", "off", "--max-running", "1")
    expected = [ask(reference, i) for i in range(CLIENTS)]
    reference.stop()

    flags = (*POOL, "--host-cache", "4MiB", "--disk-cache", str(tmp_path / "pages"), "--disk-cache-size", "256MiB")
    server = start_server(*flags)
    for _ in range(2):
        assert ask_all(server) == expected
    tiers = check_nothing_lost(server)
    assert tiers["host_down"]["pages"] > 0 and tiers["hit_pages"]["device"] > 0
    end = time.time() + 20
    while (kv := json.loads(server.get("/debug/kv"))["tiers"]["disk"])["pages"] < 100 or kv["queued_bytes"] > 0:
        assert time.time() < end, kv
        time.sleep(0.05)
    server.process.kill()
    server.process.wait()

    server = start_server(*flags)
    assert tier(server.metrics(), "kv_tier_pages", "disk") >= 100, server.stderr()
    assert ask_all(server) == expected
    tiers = check_nothing_lost(server)
    assert tiers["hit_pages"]["disk"] > 0 and tiers["disk"]["corrupt"] == 0, tiers
    assert tier(server.metrics(), "kv_tier_hit_pages_total", "disk") == tiers["hit_pages"]["disk"]
    server.process.kill()
    server.process.wait()

    # Another precision's file: one line, an empty tier, the right answers.
    server = start_server("--weights", "int8", *flags)
    assert "belongs to another model" in server.stderr()
    assert json.loads(server.get("/debug/kv"))["tiers"]["disk"]["pages"] == 0


def test_tiers_need_the_prefix_cache(tmp_path):
    import subprocess
    from conftest import MODEL, PROGRAM
    run = subprocess.run([PROGRAM, "generate", "--model", MODEL, "--host-cache", "1GiB", "--prefix-cache", "off", "Hello"],
                         capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "--prefix-cache" in run.stderr
