#!/usr/bin/env python3
"""Runs all tests, stage by stage, and ends with one line: 'tests: N passed, N failed'.

Stages:
  includes  folders include one way only
  release   optimised build, unit tests
  asan      AddressSanitizer + UndefinedBehaviorSanitizer, all unit tests
  tsan      ThreadSanitizer, the threaded parts
  cuda      the CUDA backend compiles (where there is nvcc; tools/gpu.sh runs it on a GPU)
  fuzz      every fuzzer for --fuzz-seconds, starting from its corpus
  e2e       the program driven by real clients (pytest)
  published the published models (fetched on first use): goldens, chat, tasks, long prompts (32k with TINYSERVE_LONG=1), the
            hostile client; only when asked for
Exit status 1 when anything failed, also a build."""
import argparse, os, pathlib, shutil, subprocess, sys, time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGES = ["includes", "release", "e2e", "asan", "tsan", "cuda", "fuzz"]
EXTRA = ["published"]
TSAN_TARGETS = ["base_test", "kv_test", "kv_tiers_test", "engine_test", "server_test"]

def run(command, **kw):
    print("+ " + " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), cwd=ROOT, **kw).returncode

def junit_counts(path):
    """(passed, failed, skipped, names of failures) of a JUnit file; a missing file counts as one failure."""
    if not path.exists():
        return 0, 1, 0, [f"{path.name} was not written"]
    passed = failed = skipped = 0
    names = []
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            failed += 1; names.append(case.get("name"))
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped, names

def build(preset, jobs, targets=()):
    if run(["cmake", "--preset", preset, "-B", f"build/{preset}"], stdout=subprocess.DEVNULL):
        return False
    command = ["cmake", "--build", f"build/{preset}", "-j", jobs]
    if targets:
        command += ["--target", *targets]
    return run(command) == 0

def ctest(preset, jobs, labels=None):
    report = ROOT / "build" / preset / "junit.xml"
    report.unlink(missing_ok=True)
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1", UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS="halt_on_error=1")
    command = ["ctest", "--test-dir", f"build/{preset}", "-j", jobs, "--output-on-failure", "--output-junit", report]
    if labels:
        command += ["-L", labels]
    run(command, env=env)
    return junit_counts(report)

def stage_includes(a):
    return (1, 0, 0, []) if run([sys.executable, "tools/check_includes.py"]) == 0 else (0, 1, 0, ["includes"])

def stage_release(a):
    return ctest("release", a.jobs) if build("release", a.jobs) else (0, 1, 0, ["build of release"])

def stage_asan(a):
    return ctest("asan", a.jobs) if build("asan", a.jobs) else (0, 1, 0, ["build of asan"])

def stage_tsan(a):
    labels = "^(" + "|".join(t.removesuffix("_test") for t in TSAN_TARGETS) + ")$"
    return ctest("tsan", a.jobs, labels) if build("tsan", a.jobs, TSAN_TARGETS) else (0, 1, 0, ["build of tsan"])

def stage_cuda(a):
    if not shutil.which("nvcc"):
        print("no nvcc here: not compiled")
        return 0, 0, 1, []
    return (1, 0, 0, []) if build("cuda", a.jobs, ["tinyserve_ops_cuda"]) else (0, 1, 0, ["build of cuda"])

def stage_fuzz(a):
    names = sorted(p.stem for p in (ROOT / "tests/fuzz").glob("fuzz_*.cc"))
    if not names or not build("fuzz", a.jobs, names):
        return 0, 1, 0, ["build of fuzz"]
    passed, failed, bad = 0, 0, []
    waiting, running = list(names), []
    while waiting or running:
        while waiting and len(running) < a.jobs:
            name = waiting.pop(0)
            work = ROOT / "build/fuzz/corpus" / name
            work.mkdir(parents=True, exist_ok=True)
            seeds = ROOT / "tests/fuzz/corpus" / name.removeprefix("fuzz_")
            log = ROOT / "build/fuzz" / f"{name}.log"
            command = [ROOT / "build/fuzz/tests/fuzz" / name, f"-max_total_time={a.fuzz_seconds}", "-timeout=20",
                       "-rss_limit_mb=3000", f"-artifact_prefix={ROOT}/build/fuzz/{name}-", work, *([seeds] if seeds.is_dir() else [])]
            print(f"+ {name} for {a.fuzz_seconds} s, log in {log.relative_to(ROOT)}", flush=True)
            running.append((name, log, subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=open(log, "w"), stderr=subprocess.STDOUT)))
        time.sleep(0.5)
        for entry in list(running):
            name, log, process = entry
            if process.poll() is None:
                continue
            running.remove(entry)
            lines = log.read_text(errors="replace").splitlines()
            done = [l for l in lines if l.startswith("Done ")]
            if process.returncode == 0 and done:
                passed += 1; print(f"  {name}: {done[-1]}", flush=True)
            else:
                failed += 1; bad.append(name); print("\n".join(lines[-40:]), flush=True)
    return passed, failed, 0, bad

def stage_e2e(a):
    if a.python_setup.wait() != 0:
        print((ROOT / "build/python-setup.log").read_text())
        return 0, 1, 0, ["tools/setup.sh python"]
    if not (ROOT / "build/release/tinyserve").exists() and not build("release", a.jobs, ["tinyserve"]):
        return 0, 1, 0, ["build of tinyserve"]
    report = ROOT / "build/e2e-junit.xml"
    report.unlink(missing_ok=True)
    run([".venv/bin/python", "-m", "pytest", "-q", "--junitxml", report, "tests", "--ignore=tests/published"])
    return junit_counts(report)

def stage_published(a):
    if a.python_setup.wait() != 0:
        print((ROOT / "build/python-setup.log").read_text())
        return 0, 1, 0, ["tools/setup.sh python"]
    if not build("release", a.jobs, ["tinyserve"]):
        return 0, 1, 0, ["build of tinyserve"]
    models = {}
    for name in ("qwen2.5-coder-0.5b", "gemma-3-270m"):
        fetched = subprocess.run([sys.executable, "tools/fetch_model.py", name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if fetched.returncode:
            print(f"the published models are needed and {name} could not be fetched (above is why)")
            return 0, 1, 0, [f"fetching {name}"]
        models[name] = fetched.stdout.strip()
    # Gemma's is a base model: a template lets the attacks on chats go through it, too.
    template = "--chat-template tests/golden/chat_templates/families/gemma.jinja"
    runs = [("published", "tests/published", {})]
    runs += [(f"hostile-{name}", "tests/e2e/test_hostile.py", {"TINYSERVE_MODEL": path, "TINYSERVE_FLAGS": template if "gemma" in name else ""})
             for name, path in models.items()]
    totals, bad = [0, 0, 0], []
    for name, what, env in runs:
        report = ROOT / f"build/{name}-junit.xml"
        report.unlink(missing_ok=True)
        run([".venv/bin/python", "-m", "pytest", "-q", "--durations=3", "--junitxml", report, what], env=dict(os.environ, **env))
        counts = junit_counts(report)
        totals = [t + c for t, c in zip(totals, counts)]
        bad += counts[3]
    return *totals, bad

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--stages", default=",".join(STAGES), help="comma separated (default: all but published)")
    ap.add_argument("--jobs", type=int, default=os.cpu_count(), help="parallel compilations and tests (default: cores)")
    ap.add_argument("--fuzz-seconds", type=int, default=60, help="seconds for each fuzzer (default: 60)")
    a = ap.parse_args()
    unknown = [s for s in a.stages.split(",") if s not in STAGES + EXTRA]
    if unknown:
        ap.error(f"unknown stage {unknown[0]}; there are {', '.join(STAGES + EXTRA)}")
    if {"e2e", "published"} & set(a.stages.split(",")):  # downloads while the compiler works
        (ROOT / "build").mkdir(exist_ok=True)
        a.python_setup = subprocess.Popen(["tools/setup.sh", "python"], cwd=ROOT, stderr=subprocess.STDOUT,
                                          stdout=open(ROOT / "build/python-setup.log", "w"))
    rows, total = [], [0, 0, 0]
    for stage in a.stages.split(","):
        print(f"\n=== {stage}", flush=True)
        start = time.time()
        passed, failed, skipped, bad = globals()["stage_" + stage](a)
        rows.append((stage, passed, failed, skipped, time.time() - start, bad))
        total = [total[0] + passed, total[1] + failed, total[2] + skipped]
    print("\nstage       passed  failed  skipped  seconds")
    for stage, passed, failed, skipped, seconds, bad in rows:
        print(f"{stage:10} {passed:7} {failed:7} {skipped:8} {seconds:8.0f}" + (f"   {', '.join(bad[:8])}" if bad else ""))
    print(f"tests: {total[0]} passed, {total[1]} failed" + (f", {total[2]} skipped" if total[2] else ""))
    sys.exit(1 if total[1] or not total[0] else 0)

main()
