#!/usr/bin/env bash
# The CUDA backend on a machine that has an NVIDIA GPU but neither a compiler nor a network:
#   gpu.sh bundle    here: build the cuda preset, put programs and libraries into build/gpu-bundle.tar.xz
#   gpu.sh run       there, in a copy of the repository with that file: tests (once under compute-sanitizer when it is
#                    there), a generation on both backends, one table at the end
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=build/gpu-bundle

case ${1:-} in
bundle)
  command -v nvcc >/dev/null || { echo "gpu.sh: nvcc is needed to build (CUDA 12.4 or newer)" >&2; exit 1; }
  cmake --preset cuda >/dev/null
  cmake --build --preset cuda -j "${JOBS:-$(nproc)}" --target tinyserve ops_test model_test
  rm -rf $bundle; mkdir -p $bundle/lib
  cp build/cuda/tinyserve build/cuda/src/ops/ops_test build/cuda/src/model/model_test $bundle/
  strip $bundle/tinyserve $bundle/ops_test $bundle/model_test
  pwd >$bundle/source_root  # where the tests look for their files
  # Everything but the C library, which must be the other machine's own, and CUDA's, which are large and there already.
  for program in $bundle/tinyserve $bundle/ops_test $bundle/model_test; do
    ldd $program | awk '/=> \//{print $3}' |
      grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^/]*|libcublas(Lt)?|libcuda|libcudart)\.so' |
      xargs -r cp -Lu -t $bundle/lib
  done
  tar -C build -c gpu-bundle | xz -T0 -3 >$bundle.tar.xz
  du -h $bundle.tar.xz
  ;;
run)
  [ -d $bundle ] || tar -C build -xJf $bundle.tar.xz
  # CUDA's own libraries: from a toolkit, a Python package, wherever they lie.
  cuda_libs=$(ldconfig -p | awk '/libcublas.so/{exit 1}' && find / -xdev \( -name 'libcublas.so.*' -o -name 'libcudart.so.*' \) -printf '%h\n' 2>/dev/null || true)
  export LD_LIBRARY_PATH=$PWD/$bundle/lib:/usr/local/cuda/lib64:$(echo "$cuda_libs" | sort -u | paste -sd:):${LD_LIBRARY_PATH:-}
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  root=$(cat $bundle/source_root)
  [ -e "$root" ] || { mkdir -p "$(dirname "$root")"; ln -s "$PWD" "$root"; }
  rows=(); bad=0
  row() { # NAME COMMAND...: runs it, remembers how it went
    local name=$1 start=$SECONDS; shift
    if "$@" >/tmp/gpu-row.log 2>&1; then rows+=("$name|ok|$((SECONDS - start)) s|$(tail -n 1 /tmp/gpu-row.log)")
    else bad=1; rows+=("$name|FAILED|$((SECONDS - start)) s|"); tail -n 40 /tmp/gpu-row.log; fi
  }
  row "operations against ref" $bundle/ops_test --gtest_filter='*cuda*' --gtest_brief=1
  command -v compute-sanitizer >/dev/null &&
    row "the same, compute-sanitizer" compute-sanitizer --error-exitcode 9 $bundle/ops_test --gtest_filter='*cuda*' --gtest_brief=1
  row "logits of every family" $bundle/model_test --gtest_filter='*cuda*' --gtest_brief=1
  for backend in cpu cuda; do
    row "generate --backend $backend" bash -c "$bundle/tinyserve generate --model models/tiny-16m-32k --backend $backend \
      --raw --temperature 0 --max-tokens 48 --ignore-eos 'The captain of the ship said' >/tmp/gpu-$backend.txt && md5sum </tmp/gpu-$backend.txt"
  done
  row "bench latency, cuda" $bundle/tinyserve bench latency --model models/tiny-16m-32k --backend cuda
  printf '%s\n' "${rows[@]}" | if command -v column >/dev/null; then column -t -s '|'; else cat; fi
  exit $bad
  ;;
*) sed -n 2,5p "$0"; exit 2 ;;
esac
