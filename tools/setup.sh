#!/usr/bin/env bash
# Installs what is missing on Debian 12 (or a relative of it). Quick when nothing is.
#   setup.sh build     compiler and libraries for `make serve`
#   setup.sh fetch     that, and pip for `make serve MODEL=name`
#   setup.sh test      the first, and clang for the fuzzers
#   setup.sh python    the Python environment of the end-to-end tests, in .venv
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

build_packages=(g++ cmake ninja-build pkg-config ccache python3 ca-certificates
  libboost1.81-dev libcli11-dev libdnnl-dev libedit-dev libfmt-dev libhwy-dev libpcre2-dev libsentencepiece-dev libutf8proc-dev
  libxxhash-dev nlohmann-json3-dev prometheus-cpp-dev zlib1g-dev)
test_packages=(libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev clang-14 libclang-rt-14-dev python3-venv curl xz-utils procps)

packages=("${build_packages[@]}")
case $what in
  build) ;;
  fetch) python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip) ;;
  *) packages+=("${test_packages[@]}") ;;
esac

missing=()
if command -v dpkg-query >/dev/null; then
  for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
else
  echo "setup: this is not a Debian system; install by hand what these packages hold: ${packages[*]}" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run as root, or install by hand: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=sudo
  fi
  echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get -qq update
  $sudo apt-get -qq install -y --no-install-recommends "${missing[@]}" >/tmp/tinyserve-apt.log 2>&1 ||
    { tail -20 /tmp/tinyserve-apt.log >&2; echo "setup: apt-get failed; the whole log is /tmp/tinyserve-apt.log" >&2; exit 1; }
fi

if [ "$what" = python ]; then
  stamp=.venv/.requirements
  if ! cmp -s tests/e2e/requirements.txt "$stamp"; then
    echo "setup: Python packages of tests/e2e/requirements.txt into .venv"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --use-pep517 -r tests/e2e/requirements.txt
    cp tests/e2e/requirements.txt "$stamp"
  fi
fi
