#!/usr/bin/env python3
"""The figures of KV memory on every trace and fill, beside their targets: runs `tinyserve replay` and says what is reached.

    bench/kv_figures.py                              all traces, fills 0.70, 0.90, 0.97
    bench/kv_figures.py --traces mooncake --fills 0.9
    bench/kv_figures.py --json figures.json          everything the replays said
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# name: file, and the pace at which one simulated GPU is busy but keeps up (docs/replay.md)
TRACES = {
    "mooncake": ("mooncake-conversation.jsonl.gz", 1),
    "azure-conv": ("azure-2023-conv.csv.gz", 5),
    "azure-code": ("azure-2023-code.csv.gz", 8),
}
BASELINE = "free_queue"


def replay(program, trace, speed, fill, policies, extra=()):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [program, "replay", "--trace", ROOT / "bench/data" / trace, "--speed", speed, "--fill", fill,
                   "--compare", ",".join(policies), "--json", out.name, *extra]
        p = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if p.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{p.stderr}")
        return {m["policy"]: m for m in json.load(open(out.name))["policies"]}


def rows(m, base, lru):
    """(what, figure, reached or None when there is no target, target) of a policy beside the baseline."""
    def lower(key):
        return 1 - m[key] / base[key] if base[key] else 0.0
    r = m["descriptors_mean"] / base["descriptors_mean"] if base["descriptors_mean"] else 1
    yield "descriptors per sequence, against free_queue", f"{m['descriptors_mean']:.2f} / {base['descriptors_mean']:.2f} = {r:.3f}", r <= 0.25, "<= 0.25"
    yield "descriptors per sequence, mean", f"{m['descriptors_mean']:.2f}", m["descriptors_mean"] <= 1.5, "<= 1.5"
    yield "descriptors per sequence, p99", f"{m['descriptors_p99']:.0f}", None, ""
    for key, name in (("f_total", "F_total"), ("external_fragmentation", "external fragmentation")):
        yield f"{name}, below free_queue's", f"{m[key]:.3f} / {base[key]:.3f}: {100 * lower(key):.0f}% lower", lower(key) >= 0.6, ">= 60%"
    for key in ("f_spatial", "f_temporal", "f_access"):
        yield key.replace("f_", "F_"), f"{m[key]:.4f} / {base[key]:.4f}", None, ""
    yield "prefix hit rate, against LRU", f"{100 * m['hit_rate']:.2f}% / {100 * lru['hit_rate']:.2f}%", m["hit_rate"] >= lru["hit_rate"], ">= +0"
    missing = base["completed"] - m["completed"] + m["refused"]
    yield "requests refused that free_queue takes", f"{max(0, missing)}", missing <= 0, "0"
    yield "slot utilisation of used pages", f"{100 * m['slot_utilisation']:.2f}%", m["slot_utilisation"] >= 0.96, ">= 96%"
    yield "pool usable before the first preemption", f"{100 * m['usable_share']:.1f}%" + ("" if m["preemptions"] else " (none)"), m["usable_share"] >= 0.99, ">= 99%"
    yield "growth kept contiguous", f"{100 * m['growth_contiguous']:.1f}%", None, ""
    won = m["compaction_won_bytes"]
    yield "compaction: bytes moved per byte of run won", f"{m['compaction_bytes'] / won:.2f}" if won else "nothing moved", None, "stated"
    yield "compaction: share of the time", f"{100 * m['compaction_share']:.2f}%", m["compaction_share"] <= 0.01, "<= 1%"
    yield "faster than real time (CPU time)", f"{m['speed']:.0f}x", m["speed"] >= 2000, ">= 2000x"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--program", default=ROOT / "build/release/tinyserve")
    ap.add_argument("--traces", default=",".join(TRACES))
    ap.add_argument("--fills", default="0.70,0.90,0.97")
    ap.add_argument("--policy", default="best_fit")
    ap.add_argument("--json", help="write what every replay said there")
    a = ap.parse_args()
    said, missed = [], []
    for name in a.traces.split(","):
        trace, speed = TRACES[name]
        for fill in a.fills.split(","):
            found = replay(a.program, trace, speed, fill, [BASELINE, a.policy])
            base, m = found[BASELINE], found[a.policy]
            lru = replay(a.program, trace, speed, fill, [a.policy], ["--prefix-cache", "lru"])[a.policy]
            print(f"\n### {name} at {speed}x, pool of {m['pages']} pages ({100 * float(fill):.0f}% full)\n\n| measure | figure | target | |\n|---|---|---|---|")
            for what, figure, reached, target in rows(m, base, lru):
                print(f"| {what} | {figure} | {target} | {'' if reached is None else 'reached' if reached else 'MISSED'} |")
                if reached is False:
                    missed.append(f"{name} {fill}: {what}: {figure}, wanted {target}")
            sys.stdout.flush()
            said.append({"trace": name, "fill": float(fill), "speed": speed, "baseline": base, "policy": m, "lru": lru})
    print(f"\n{len(missed)} missed" + "".join(f"\n- {line}" for line in missed))
    if a.json:
        for s in said:
            for who in ("baseline", "policy", "lru"):
                s[who] = {k: v for k, v in s[who].items() if k != "samples"}
        pathlib.Path(a.json).write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
