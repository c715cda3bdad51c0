#!/usr/bin/env python3
"""Includes point one way: a folder of src/ uses itself and the folders before it in this list, no other."""
import pathlib, re, sys

ORDER = ["base", "tensor", "ops", "kv", "select", "model", "text", "engine", "replay", "eval", "server", "cli"]
src = pathlib.Path(__file__).resolve().parent.parent / "src"
bad = 0
for path in sorted(src.rglob("*")):
    if path.suffix not in (".h", ".cc", ".cu", ".cuh"):
        continue
    folder = path.relative_to(src).parts[0]
    if folder not in ORDER:
        print(f"{path}: folder {folder} is not in the order {ORDER}"); bad += 1; continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"/]+)/', line)
        if m and m.group(1) in ORDER and ORDER.index(m.group(1)) > ORDER.index(folder):
            print(f"{path}:{number}: {folder} may not include {m.group(1)}"); bad += 1
        elif re.match(r'\s*#\s*include\s+"', line) and not m:
            print(f'{path}:{number}: write includes of ours as "folder/file.h"'); bad += 1
print(f"includes: {bad} wrong")
sys.exit(bad > 0)
