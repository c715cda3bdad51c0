#!/usr/bin/env python3
"""Writes corpus/jinja/: the templates of the golden tests, expressions in bundles so that the corpus stays small."""
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent.parent / "golden" / "chat_templates"
out = HERE / "jinja"
out.mkdir(exist_ok=True)
for old in out.iterdir():
    old.unlink()
for path in sorted((GOLDEN / "families").glob("*.jinja")):
    (out / path.stem).write_text(path.read_text())
for name in ("expressions", "statements"):
    cases = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    good = [c["template"] for c in cases if "output" in c]
    for i in range(0, len(good), 12):
        (out / f"{name}_{i // 12:03}").write_text("\n".join(good[i:i + 12]), newline="")
