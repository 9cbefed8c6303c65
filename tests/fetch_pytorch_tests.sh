#!/usr/bin/env bash
# Fetch PyTorch's own tests of optimizers into a folder, and print what GPUADAPT_PYTORCH_TESTS is to
# be (see tests/pytorch_suite.py):
#
#     export GPUADAPT_PYTORCH_TESTS=$(bash tests/fetch_pytorch_tests.sh .pytorch-tests)
#
# They are in Debian's source package of PyTorch, about 30 MB, which comes from the mirror that this
# machine takes its packages from. apt gets folders of its own, so nothing of the system changes.
set -euo pipefail

release=trixie  # the first with tests that torch 2.7 and later still run
wanted=(test/test_optim.py 'test/optim/*' test/distributed/optim/test_zero_redundancy_optimizer.py)

mkdir -p "$1"
folder=$(cd "$1" && pwd)
if [ ! -f "$folder/test/test_optim.py" ]; then
    apt=$(mktemp -d)
    trap 'rm -rf "$apt"' EXIT
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE 'https?://[^ ]*/debian/?( |$)' | head -1 | tr -d " " || true)
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "${mirror:-http://deb.debian.org/debian} $release main" >"$apt/sources"
    settings=(
        -o "Dir::Etc::SourceList=$apt/sources" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=20
    )
    apt-get "${settings[@]}" -qq update >&2
    (cd "$apt" && apt-get "${settings[@]}" -qq source --download-only pytorch >&2)
    tar -xf "$apt"/pytorch_*.orig.tar.* -C "$folder" --strip-components=1 --wildcards \
        "${wanted[@]/#/*/}"
fi
echo "$folder/test"
