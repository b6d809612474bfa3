#!/usr/bin/env bash
# Installs, by package name, what is missing for the given purposes, and says so. Debian 12.
# Usage: scripts/deps.sh build|test|study|mlperf ...   (build: compile gloss; test: everything `make test`
# needs; study: gnuplot, for the figures of gloss bench study and gloss report;
# mlperf: MLCommons LoadGen's sources into build/loadgen, which make then compiles)
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages="gcc make python3 libc6-dev libjansson-dev libmicrohttpd-dev libsqlite3-dev libgnutls28-dev libcurl4-gnutls-dev libpcre2-dev libyaml-dev libzstd-dev"
test_packages="libcmocka-dev clang-format-14 python3-venv gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static nginx-light"

mlperf_packages="g++ python3-venv"
study_packages="gnuplot-nox"

need=()
want() {
    for p in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || need+=("$p")
    done
}

venv=0
loadgen=0
for purpose in "${@:-build}"; do
    case $purpose in
    build) want $build_packages ;;
    test)
        want $test_packages $mlperf_packages $study_packages
        command -v npm >/dev/null || want nodejs npm
        venv=1
        loadgen=1
        ;;
    study) want $study_packages ;;
    mlperf)
        want $mlperf_packages
        loadgen=1
        ;;
    *) echo "deps.sh: unknown purpose '$purpose' (build, test, study, mlperf)" >&2; exit 2 ;;
    esac
done

if [ ${#need[@]} -gt 0 ]; then
    echo "deps.sh: installing ${need[*]}"
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # no service is started
    { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${need[@]}"; } >/dev/null || {
        echo "deps.sh: could not install; run: apt-get install ${need[*]}" >&2
        exit 1
    }
fi

# The benchmark's load generator. pip also prepares its metadata; nothing of that is kept.
if [ $loadgen -eq 1 ] && ! cmp -s scripts/loadgen.txt build/loadgen/gloss-pin.txt; then
    echo "deps.sh: getting the sources of scripts/loadgen.txt into build/loadgen"
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    python3 -m venv "$tmp/venv"
    "$tmp/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: \
        --require-hashes -r scripts/loadgen.txt -d "$tmp"
    rm -rf build/loadgen
    mkdir -p build/loadgen
    tar xzf "$tmp"/mlcommons_loadgen-*.tar.gz -C build/loadgen --strip-components=1 --no-same-owner
    cp scripts/loadgen.txt build/loadgen/gloss-pin.txt
fi

# The clients the server is tested with, in environments of their own.
if [ $venv -eq 1 ] && ! cmp -s tests/serve/requirements.txt build/venv-serve/requirements.txt; then
    echo "deps.sh: installing the Python packages of tests/serve/requirements.txt into build/venv-serve"
    python3 -m venv build/venv-serve
    build/venv-serve/bin/pip install -q --disable-pip-version-check -r tests/serve/requirements.txt
    cp tests/serve/requirements.txt build/venv-serve/requirements.txt
fi
if [ $venv -eq 1 ] && ! cmp -s tests/serve/requirements-lmeval.txt build/venv-lmeval/requirements.txt; then
    echo "deps.sh: installing the Python packages of tests/serve/requirements-lmeval.txt into build/venv-lmeval"
    python3 -m venv build/venv-lmeval
    build/venv-lmeval/bin/pip install -q --disable-pip-version-check -r tests/serve/requirements-lmeval.txt
    cp tests/serve/requirements-lmeval.txt build/venv-lmeval/requirements.txt
fi
if [ $venv -eq 1 ] && ! cmp -s tests/serve/package-lock.json build/node/package-lock.json; then
    echo "deps.sh: installing the packages of tests/serve/package.json into build/node"
    mkdir -p build/node
    cp tests/serve/package.json tests/serve/package-lock.json build/node/
    npm ci --silent --no-audit --no-fund --prefix build/node || rm build/node/package-lock.json
fi

# The reference implementations the tests compare with, in an environment of their own.
if [ $venv -eq 1 ] && ! cmp -s tests/oracle/requirements.txt build/venv/requirements.txt; then
    echo "deps.sh: installing the Python packages of tests/oracle/requirements.txt into build/venv"
    python3 -m venv build/venv
    build/venv/bin/pip install -q --disable-pip-version-check -r tests/oracle/requirements.txt
    cp tests/oracle/requirements.txt build/venv/requirements.txt
fi
