#!/bin/bash
# Makes the model files that the comparison needs: GGUF twins (BF16 and Q8_0) of the bundled model and of a model of
# TinyLlama-1.1B's geometry with random weights. Does nothing for files that are already there.
# usage: get_models.sh [FOLDER] [small]     default .peers in the repository; 6 GB, or 60 MB with "small" (no 1.1B)
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
peers=${1:-$repo/.peers}
which=${2:-all}
mkdir -p "$peers/gguf" "$peers/models"
peers=$(cd "$peers" && pwd)
python=$peers/venv/bin/python
if [ ! -x "$python" ] || ! "$python" -c 'import gguf, numpy' 2>/dev/null; then
  python3 -m venv "$peers/venv"
  "$python" -m pip install -q numpy gguf
fi

twins() {  # name folder
  local base=$peers/gguf/$1
  [ -f "$base-bf16.gguf" ] || "$python" "$repo/bench/peers/convert_gguf.py" "$2" "$base-bf16.gguf"
  [ -f "$base-q8_0.gguf" ] || {
    "$peers/llama.cpp/bin/llama-quantize" "$base-bf16.gguf" "$base-q8_0.part" Q8_0 >"$peers/quantize.log" 2>&1
    mv "$base-q8_0.part" "$base-q8_0.gguf"
  }
}

twins tiny-16m-32k "$repo/models/tiny-16m-32k"
if [ "$which" != small ]; then
  big=$peers/models/tinyllama-1.1b
  if [ ! -f "$big/done" ]; then
    "$python" "$repo/tools/make_model.py" tinyllama-1.1b "$big" --max-positions 40960
    touch "$big/done"
  fi
  twins tinyllama-1.1b "$big"
fi
ls -l "$peers/gguf"
