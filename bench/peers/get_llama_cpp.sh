#!/bin/bash
# Builds llama.cpp for the CPU from the copy inside the llama-cpp-python source package on PyPI, so that nothing but
# PyPI has to be reachable. Does nothing when it is already there.
# usage: get_llama_cpp.sh [FOLDER]      default .peers in the repository; about 20 minutes of two cores, 1 GB
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
peers=${1:-$repo/.peers}
version=${LLAMA_CPP_PYTHON:-0.3.36}  # vendors ggml-org/llama.cpp@0c1e57098
jobs=${JOBS:-$(nproc)}
mkdir -p "$peers"
peers=$(cd "$peers" && pwd)
cd "$peers"
source=$peers/llama_cpp_python-$version/vendor/llama.cpp
build=$peers/llama.cpp
tools=(llama-bench llama-batched-bench llama-server llama-quantize)

missing=0
for t in "${tools[@]}"; do [ -x "$build/bin/$t" ] || missing=1; done
if [ ! -d "$source" ]; then
  [ -x venv/bin/python ] || python3 -m venv venv
  venv/bin/python -m pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version" -d dl
  tar xzf "dl/llama_cpp_python-$version.tar.gz"
fi
if [ $missing = 1 ]; then
  # OpenMP, because it won or tied with ggml's own threads wherever both were measured.
  cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON \
    -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_COMMIT=0c1e57098 -DLLAMA_BUILD_NUMBER=0
  cmake --build "$build" -j "$jobs" --target "${tools[@]}"
fi
if [ ! -x deep_decode ] || [ "$repo/bench/peers/deep_decode.cc" -nt deep_decode ]; then
  g++ -std=c++17 -O2 -o deep_decode "$repo/bench/peers/deep_decode.cc" -I"$source/include" -I"$source/ggml/include" \
    -L"$build/bin" -lllama -lggml -lggml-base -Wl,-rpath,"$(readlink -f "$build/bin")"
fi
echo "llama.cpp is in $build/bin"
