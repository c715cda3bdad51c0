#!/usr/bin/env python3
"""How often the audit's 95% intervals hold the truth: answers of the real server, each recomputed densely (--audit-dense 1).

Every answer has a prompt of its own, cut from a text, so each is a new problem; the truth is its own dense recomputation. Prints, for what
was estimated and for what was read in codes: the share of answers whose interval holds the truth, the mean of (audited - true) in
standard errors, and how wide intervals are.
"""
import argparse
import concurrent.futures
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default=str(ROOT / "build/release/tinyserve"))
    p.add_argument("--model", default=str(ROOT / "models/tiny-16m-32k"))
    p.add_argument("--text", default=str(ROOT / "src/cli/calibration_text.txt"))
    p.add_argument("--answers", type=int, default=320)
    p.add_argument("--context", type=int, default=2048)
    p.add_argument("--tokens", type=int, default=24, help="of each answer")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--json", help="file for the figures")
    p.add_argument("flags", nargs="*", default=[], help="after --: further flags of the server (budgets)")
    a = p.parse_args()

    command = [a.program, "serve", "--model", a.model, "--port", "0", "--policy", "tinyserve", "--select-from", "256",
               "--audit-dense", "1", "--max-running", "2", *a.flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = next(m.group(0) for m in (re.search(r"http://[^ /]+:\d+", line) for line in server.stdout) if m)
        tokens = post(url, "/tokenize", {"prompt": pathlib.Path(a.text).read_text()})["tokens"]
        rng = random.Random(a.seed)
        starts = [rng.randrange(len(tokens) - a.context) for _ in range(a.answers)]

        def ask(i):
            answer = post(url, "/v1/completions", {"prompt": tokens[starts[i]:starts[i] + a.context], "max_tokens": a.tokens,
                                                   "temperature": 1, "seed": i, "ignore_eos": True})
            return answer["usage"]["tinyserve"]["audit"]

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            audits = list(pool.map(ask, range(a.answers)))
    finally:
        server.terminate()
        server.wait(30)

    figures = {"answers": a.answers, "context": a.context, "tokens": a.tokens, "flags": a.flags}
    for what in ("estimated", "coded"):
        held, widths, shares = 0, [], []
        for audit in audits:
            low, high = audit[what + "_interval"]
            truth = audit["dense"][what + "_share"]
            held += low <= truth <= high
            half = (high - low) / 2
            widths.append(half)
            shares.append(truth)
        gaps = [x[what + "_share"] - x["dense"][what + "_share"] for x in audits]
        bias = sum(gaps) / len(gaps)
        scatter = math.sqrt(sum((g - bias) ** 2 for g in gaps) / max(1, len(gaps) - 1) / len(gaps))
        figures[what] = {"held": held / a.answers, "true_share": sum(shares) / a.answers, "half_width": sum(widths) / a.answers,
                         "bias": bias, "bias_standard_error": scatter}
        print(f"{what}: {held} of {a.answers} intervals hold the truth ({100 * held / a.answers:.1f}%); true share "
              f"{100 * figures[what]['true_share']:.2f}%, half an interval {100 * figures[what]['half_width']:.2f}%, "
              f"audited - true {100 * bias:+.3f}% +- {100 * scatter:.3f}% on average")
    print(f"output off by {100 * sum(x['dense']['output_error'] for x in audits) / a.answers:.1f}%")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
