#!/usr/bin/env python3
"""Perplexity of tinyserve and of llama.cpp with the same GGUF file, on the same text and the same windows of it.

    bash bench/peers/get_llama_cpp.sh && python3 bench/perplexity.py

Each text is cut into windows of --context tokens; the second half of each is scored (docs/evaluation.md). --count windows
of each text are taken, from its start. What both print goes to stdout as one table; --flags go to tinyserve alone."""
import argparse, json, pathlib, re, subprocess, sys, tarfile, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def texts(folder):
    """The files of tests/data/text-valid.tar.xz, by their names."""
    with tarfile.open(ROOT / "tests/data/text-valid.tar.xz") as archive:
        archive.extractall(folder)
    return sorted(pathlib.Path(folder).rglob("*.txt"))


def run(command):
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace")
    if p.returncode:
        sys.exit(f"perplexity: {' '.join(map(str, command))}: exit code {p.returncode}: {p.stderr.strip()[-600:]}")
    return p.stdout + p.stderr


def ours(a, model, text):
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        run([a.program, "eval", "--task", "ppl", "--model", model, "--text", text, "--context", a.context, "--count", a.count,
             "--threads", a.threads, "--json", f.name, *a.flags.split()])
        return json.load(open(f.name))["results"][0]


def theirs(a, model, text):
    out = run([a.peers / "llama.cpp/bin/llama-perplexity", "-m", model, "-f", text, "-c", a.context, "--chunks", a.count, "-t", a.threads, "-fa", "on"])
    found = re.search(r"Final estimate: PPL = ([0-9.]+) \+/- ([0-9.]+)", out)
    if not found:
        sys.exit(f"perplexity: no figure in what llama-perplexity printed: {out[-600:]}")
    return float(found.group(1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--models", default="qwen2.5-coder-0.5b,gemma-3-270m", help="names in models/published.json, or GGUF files [default: both]")
    ap.add_argument("--texts", default="winesburg,swift", help="beginnings of names of files in text-valid, or all [default: %(default)s]")
    ap.add_argument("--context", type=int, default=1024, help="tokens of a window [default: 1024]")
    ap.add_argument("--count", type=int, default=16, help="windows of each text [default: 16]")
    ap.add_argument("--threads", type=int, default=2, help="of both [default: 2]")
    ap.add_argument("--flags", default="", help="more flags for tinyserve, as one argument")
    ap.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/tinyserve", help="[default: build/release/tinyserve]")
    ap.add_argument("--peers", type=pathlib.Path, default=ROOT / ".peers", help="folder of llama.cpp [default: .peers]")
    a = ap.parse_args()
    print(f"windows of {a.context} tokens\n\n| model | text | windows | tokens scored | ours | llama.cpp | ours against it |\n|---|---|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [t for t in texts(folder) if a.texts == "all" or t.name.startswith(tuple(a.texts.split(",")))]
        for model in a.models.split(","):
            path = model if "/" in model else run([sys.executable, ROOT / "tools/fetch_model.py", model]).splitlines()[0]
            for text in chosen:
                mine, peer = ours(a, path, text), theirs(a, path, text)
                print(f"| {pathlib.Path(path).stem} | {text.stem} | {mine['chunks']} | {mine['tokens']} | {mine['ppl']:.4f} | {peer:.4f} | {100 * (mine['ppl'] / peer - 1):+.2f}% |",
                      flush=True)


if __name__ == "__main__":
    main()
