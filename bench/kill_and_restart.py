#!/usr/bin/env python3
"""Serves the bundled model with far too few K/V pages to 64 concurrent clients with long prompts that share beginnings, kills the
server with SIGKILL in the middle of their answers, starts it again, and says what became of everything:

  - every token of every answer, whole or cut off by the kill, is the one that the request gets alone on a server without prefix
    cache, compaction and tiers; with compaction and tiers on and off;
  - no page is lost: afterwards every page of the pool is cached or empty, and the map of pages adds up;
  - the restarted server finds prefixes in its file, and uses them.

    bench/kill_and_restart.py                      the full size, some minutes on two cores
    bench/kill_and_restart.py --clients 12 --prefix 400 --own 60 --answer 16 --pages 80    a small one

Exit code 0 only when all of it holds. --json FILE writes the figures.
"""
import argparse
import concurrent.futures
import http.client
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ROOT / "tests/e2e/data/winesburg-ohio-opening.txt"


class Server:
    def __init__(self, a, name, *flags):
        self.name, self.log = name, tempfile.TemporaryFile(mode="w+")
        command = [a.program, "serve", "--model", a.model, "--port", "0", "--max-context", str(a.prefix + a.own + a.answer + 16), *flags]
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)/v1", line)
        if not found:
            sys.exit(f"{' '.join(map(str, command))} did not start:\n{self.said()}")
        self.port = int(found.group(1))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def kv(self):
        return json.loads(self.get("/debug/kv"))

    def metric(self, name):
        return sum(float(l.rsplit(" ", 1)[1]) for l in self.get("/metrics").splitlines() if l.startswith(f"tinyserve:{name}{{"))

    def tokens(self, text):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/tokenize", json.dumps({"prompt": text, "add_special_tokens": False}))
        return json.loads(connection.getresponse().read())["tokens"]

    def stop(self, hard=False):
        self.process.kill() if hard else self.process.terminate()
        self.process.wait(60)


def ask(server, prompt, answer, on_token=None):
    """Token ids of a greedy answer, and whether it is whole: False when the server went away."""
    body = {"prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
            "return_tokens_as_token_ids": True}
    tokens = []
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body))
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"{server.name}: {reply.status} {reply.read().decode()}")
        for line in reply:
            if not line.startswith(b"data: ") or not line.endswith(b"\n"):
                continue
            if line == b"data: [DONE]\n":
                return tokens, len(tokens) == answer
            for token in json.loads(line[6:])["choices"][0]["logprobs"]["tokens"]:
                tokens.append(int(token.removeprefix("token_id:")))
            if on_token:
                on_token()
    except (OSError, http.client.HTTPException):
        pass  # killed
    return tokens, False


def ask_all(server, prompts, answer, on_token=None):
    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda p: ask(server, p, answer, on_token), prompts))
    return answers, time.time() - start


def make_prompts(a, text, seed):
    """A family's beginning and an own end for every client, pieces of a text; clients of a family do not come in a row."""
    def piece(random, length):
        start = random.randrange(len(text))
        return [text[(start + i) % len(text)] for i in range(length)]
    return [piece(random.Random(i % a.families), a.prefix) + piece(random.Random((i + 1) * 1000 + seed), a.own) for i in range(a.clients)]


class Findings:
    def __init__(self):
        self.failures, self.figures = [], {}

    def check(self, what, good, detail=""):
        print(f"  {'ok  ' if good else 'FAIL'} {what}{': ' + detail if detail else ''}", flush=True)
        if not good:
            self.failures.append(what)

    def check_tokens(self, answers, expected, whole=True):
        wrong = sum(t != e[:len(t)] for (t, _), e in zip(answers, expected))
        count = sum(len(t) for t, _ in answers)
        unfinished = sum(not done for _, done in answers)
        self.check(f"{count} tokens of {len(answers)} answers are those of the unloaded run", wrong == 0, f"{wrong} answers differ" if wrong else "")
        if whole:
            self.check("every answer is whole", unfinished == 0, f"{unfinished} are not" if unfinished else "")
        return unfinished

    def check_pages(self, server):
        end = time.time() + 60
        while server.metric("num_requests_running") + server.metric("num_requests_waiting") + server.metric("kv_cache_pages_used") > 0:
            if time.time() > end:
                break
            time.sleep(0.05)
        kv = server.kv()
        spans = {s: sum(p[0] for p in kv["pages"] if p[1] == s) for s in "uce"}
        self.check("no page is lost", kv["used"] == 0 and spans == {"u": 0, "c": kv["cached"], "e": kv["empty"]} and
                   kv["cached"] + kv["empty"] == kv["num_pages"], f"{kv['num_pages']} pages: {kv['cached']} cached, {kv['empty']} empty, 0 used")
        return kv

    def tell(self, name, server, kv, seconds, tokens):
        queries, hits = server.metric("prefix_cache_queries_total"), server.metric("prefix_cache_hits_total")
        t, c = kv["tiers"], kv["compaction"]
        got = t["hit_pages"]
        figures = {"seconds": seconds, "tokens_per_s": tokens / seconds, "prompt_tokens_found": hits / queries if queries else 0, "preemptions": server.metric("num_preemptions_total"),
                   "hit_pages": got, "pages_moved": c["pages_moved"], "pages_won": c["pages_won"], "compaction_seconds": c["seconds"],
                   "transfers": {k: t[k] for k in ("host_down", "host_up", "disk_written", "disk_read", "disk_up")}, "disk": t["disk"],
                   "descriptors_per_sequence": kv["fragmentation"]["descriptors_per_sequence"]}
        self.figures[name] = figures
        print(f"       {seconds:.1f} s, {figures['tokens_per_s']:.0f} tokens/s of prompts and answers, {figures['preemptions']:.0f} preemptions, "
              f"{100 * figures['prompt_tokens_found']:.1f}% of prompt tokens found")
        if sum(got.values()) - got["recompute"] > 0 and t["host"]["max_pages"]:
            print("       pages of admitted requests came from: " + ", ".join(f"{k} {v}" for k, v in got.items()))
        for k, s in figures["transfers"].items():
            if s["transfers"]:
                print(f"       {k.replace('_', ' '):13} {s['pages']:7} pages, {s['bytes'] / 1e6:8.1f} MB in {s['transfers']:7} transfers of "
                      f"{s['bytes_per_transfer'] / 1e3:8.1f} kB, {s['gb_per_s']:.2f} GB/s")
        if c["pages_moved"]:
            print(f"       compaction moved {c['pages_moved']} pages in {c['seconds'] * 1e3:.1f} ms ({100 * c['seconds'] / seconds:.2f}% of the time) "
                  f"and won {c['pages_won']:.0f} pages of run length")
        return figures


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--program", default=ROOT / "build/release/tinyserve")
    ap.add_argument("--model", default=ROOT / "models/tiny-16m-32k")
    ap.add_argument("--clients", type=int, default=64)
    ap.add_argument("--families", type=int, default=8, help="beginnings that clients share")
    ap.add_argument("--prefix", type=int, default=1536, help="tokens of such a beginning")
    ap.add_argument("--own", type=int, default=256, help="tokens of a prompt that are its own")
    ap.add_argument("--answer", type=int, default=128, help="tokens of an answer")
    ap.add_argument("--pages", type=int, default=512, help="K/V pages of the loaded servers")
    ap.add_argument("--host-cache", default="8MiB")
    ap.add_argument("--threads", default="2")
    ap.add_argument("--json")
    a = ap.parse_args()
    per_round = a.clients * (a.prefix + a.own + a.answer)
    need = a.clients * -(-(a.prefix + a.own + a.answer) // 16)
    print(f"{a.clients} clients at once, {a.families} beginnings of {a.prefix} tokens, {a.own} tokens of their own, answers of {a.answer}: "
          f"{need} pages if nothing were shared; the pool has {a.pages}")
    f = Findings()
    common = ("--threads", a.threads)

    print("alone: one request after another, no prefix cache, no compaction, no tiers", flush=True)
    server = Server(a, "alone", *common, "--max-running", "1", "--prefix-cache", "off", "--compaction-budget", "0")
    text = [t for line in TEXT.read_text().splitlines() if line for t in server.tokens(line + "\n")]
    first, second = make_prompts(a, text, 1), make_prompts(a, text, 2)  # two requests a client, with the same beginning
    start = time.time()
    expected = [[ask(server, p, a.answer)[0] for p in prompts] for prompts in (first, second)]
    different = len({tuple(tokens) for answers in expected for tokens in answers})
    print(f"       {time.time() - start:.1f} s, {different} different answers of {2 * a.clients}")
    server.stop()

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "pages"
        tiers = ("--host-cache", a.host_cache, "--disk-cache", str(file), "--disk-cache-size", "1GiB")
        for name, flags in (("compaction off, tiers off", ("--compaction-budget", "0")), ("compaction on, tiers off", ()),
                            ("compaction off, tiers on", ("--compaction-budget", "0", *tiers))):
            print(f"{name}", flush=True)
            server = Server(a, name, *common, "--kv-pages", str(a.pages), *flags)
            answers, seconds = ask_all(server, first, a.answer)
            f.check_tokens(answers, expected[0])
            f.tell(name, server, f.check_pages(server), seconds, per_round)
            server.stop(hard=True)
            file.unlink(missing_ok=True)

        name = "compaction on, tiers on"
        flags = (*common, "--kv-pages", str(a.pages), *tiers)
        print(name, flush=True)
        server = Server(a, name, *flags)
        answers, seconds = ask_all(server, first, a.answer)
        f.check_tokens(answers, expected[0])
        f.tell(name, server, f.check_pages(server), seconds, per_round)

        print("kill -9 while the clients are being answered", flush=True)
        seen, enough, lock = 0, a.clients * a.answer // 2, threading.Lock()

        def count():
            nonlocal seen
            with lock:
                seen += 1
                if seen == enough:
                    server.process.kill()
        answers, _ = ask_all(server, second, a.answer, count)
        server.process.wait(60)
        cut = f.check_tokens(answers, expected[1], whole=False)
        f.check("the kill came in the middle", 0 < cut, f"{cut} of {a.clients} answers were cut off")
        f.check("the file is there", file.exists(), f"{file.stat().st_size / 1e6:.1f} MB" if file.exists() else "")

        print("started again, everybody asks again", flush=True)
        server = Server(a, "restarted", *flags)
        found = server.metric("kv_disk_pages_found")
        f.check("pages are found in the file", found > 0, f"{found:.0f}")
        for line in server.said().splitlines():
            if "pages" in line and str(file) in line:
                print("       the server says: " + line.replace(str(file), "FILE"))
        answers, seconds = ask_all(server, second, a.answer)
        f.check_tokens(answers, expected[1])
        kv = f.check_pages(server)
        figures = f.tell("restarted", server, kv, seconds, per_round)
        f.check("prefixes came from the file", figures["hit_pages"]["disk"] > 0, f"{figures['hit_pages']['disk']} pages")
        f.check("no page of the file was wrong", kv["tiers"]["disk"]["corrupt"] == 0)
        server.stop(hard=True)
    print("all of it holds" if not f.failures else "FAILED: " + "; ".join(f.failures))
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"failures": f.failures, "runs": f.figures}, indent=1) + "\n")
    return 1 if f.failures else 0


if __name__ == "__main__":
    sys.exit(main())
