#!/usr/bin/env bash
# Tests and benchmarks on a machine with an NVIDIA GPU, which needs no network: in stages, each
# with a time limit and a log of its own. benchmarks/README.md says how to use it.
#
#   gpu.sh prepare WHEELS [more for pip download]   where there is a network: fetch what to install
#   gpu.sh OUT [--quick] [STAGE...]                 on the machine: run stages (default: all)
#
# Stages: machine install smoke tests dense many formats rows exact overhead others; "bench" is
# the six suites of benchmarks, "all" everything. Set in the environment:
#   WHEELS  folder that "prepare" has filled (default: wheels, beside benchmarks/)
#   PYTHON  the interpreter that has CuPy and Numba (default: python3)
#   WORK    folder for what is installed, copied and cached (default: in the temporary directory)
#   LIMIT   the most seconds for any one stage (default: 540, for a machine that gives a command ten
#           minutes)
#   DRY=1   try the script without a GPU: stages run on the CPU, say so and fail
set -uo pipefail

SUITES="dense many formats rows exact overhead"
ALL="machine install smoke tests $SUITES others"
# Tests that run on the GPU: by parameter, or by a loop over backends.
ON_GPU="gpu or every_backend or every_kind or backends_agree or stats_are_of_rows"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHON=${PYTHON:-python3} WHEELS=${WHEELS:-$root/wheels} DRY=${DRY:-}
export WORK=${WORK:-${TMPDIR:-/tmp}/gpuadapt-gpu-$(id -u)}

limit_of() { # seconds that a stage may take
    local own=540
    case $1 in machine | smoke) own=120 ;; install) own=180 ;; many | overhead) own=300 ;; esac
    echo $((own < ${LIMIT:-540} ? own : ${LIMIT:-540}))
}

prepare() { # fill a folder with wheels: gpuadapt's, and what the other machine may lack
    local wheels=$1 sources
    shift
    mkdir -p "$wheels" && rm -f "$wheels"/gpuadapt-*.whl && sources=$(mktemp -d) || return
    # From a copy: in the checkout, what an earlier build has left would be packed as well.
    (cd "$root" && cp -r gpuadapt kernels pyproject.toml README.md LICENSE "$sources") &&
        "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$sources"
    local code=$?
    rm -rf "$sources"
    [ $code = 0 ] || return $code
    git -C "$root" describe --always --dirty >"$wheels/commit" 2>/dev/null || rm -f "$wheels/commit"
    # --no-deps: NumPy, Numba and CuPy are the machine's own, unless they are named.
    "$PYTHON" -m pip download --quiet --no-deps --only-binary :all: --dest "$wheels" \
        platformdirs tbb hypothesis sortedcontainers pytest pluggy iniconfig packaging \
        pygments pytest-xdist execnet ml_dtypes "$@" || return
    ls "$wheels"
}

gpu() { # whether CuPy has a GPU; says why not
    "$PYTHON" - <<'PY'
import sys

try:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
except Exception as error:
    sys.exit(f"NO GPU: {type(error).__name__}: {error}")
sys.exit(None if count else "NO GPU: CuPy finds no device")
PY
}

installed() { # packages beside the machine's own, and a copy that does not hide them
    # In the checkout, ./gpuadapt would be imported, which has no kernels: run where it is not.
    export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
    export GPUADAPT_CACHE_DIR=${GPUADAPT_CACHE_DIR:-$WORK/cache}
    [ -e "$WORK/installed" ] || install || return
    cd "$WORK/copy" || return
    if [ -e "$WHEELS/commit" ]; then export BENCHMARKS_COMMIT=$(cat "$WHEELS/commit"); fi
}

install() {
    rm -rf "$WORK/site" "$WORK/copy" "$WORK/installed"
    mkdir -p "$WORK/site" "$WORK/copy" || return
    local missing
    missing=$("$PYTHON" "$root/benchmarks/wheels.py" "$WHEELS") || return
    echo "installing: $missing"
    # TBB's wheel holds a library beside the packages, which pip leaves out with --target.
    local library
    for library in $(grep /tbb- <<<"$missing"); do
        "$PYTHON" -m zipfile -e "$library" "$WORK/site" || return
    done
    grep -v /tbb- <<<"$missing" | xargs -d '\n' "$PYTHON" -m pip install --quiet --no-index \
        --no-deps --no-compile --disable-pip-version-check --target "$WORK/site" || return
    (cd "$root" && cp -r tests benchmarks docs README.md pyproject.toml "$WORK/copy") || return
    touch "$WORK/installed"
}

machine() { # what there is; fails where something that is needed cannot be imported
    date && uname -a && nproc
    local failed=0 name
    nvidia-smi || failed=1
    "$PYTHON" --version
    for name in numpy numba cupy torch pytest setuptools; do
        "$PYTHON" -W ignore -c "import $name; print('$name', $name.__version__)" 2>&1 | tail -n 1
        # Without torch it is left out of the comparison; setuptools is not needed.
        [ "${PIPESTATUS[0]}" = 0 ] || [[ $name =~ torch|pytest|setuptools ]] || failed=1
    done
    git -C "$root" describe --always --dirty 2>/dev/null || cat "$WHEELS/commit" 2>/dev/null
    df -h "$WORK" "$OUT"
    gpu || failed=1
    return $failed
}

run_tests() { # those that a -k expression selects
    local processes=() left_out=(--ignore tests/test_structure.py) # of the sources, which are not here
    if "$PYTHON" -c "import xdist" 2>/dev/null; then
        processes=(-n "$(($(nproc) < 8 ? $(nproc) : 8))" --dist worksteal)
    fi
    if ! "$PYTHON" -c "import matplotlib, rich, sklearn" 2>/dev/null; then
        echo "tests of gpuadapt compare are left out: matplotlib, rich or scikit-learn is missing"
        left_out+=(--ignore tests/test_cli.py --ignore tests/test_compare_formats.py)
        left_out+=(--ignore tests/test_grid.py --ignore tests/test_words.py)
    fi
    # The addopts of pyproject.toml need pytest-xdist; other versions of NumPy warn of other things.
    "$PYTHON" -m pytest tests "${processes[@]}" "${left_out[@]}" -k "$1" -v --tb=short \
        --durations=15 --continue-on-collection-errors -o addopts="--import-mode=importlib --strict-markers" \
        -o filterwarnings=default -o faulthandler_timeout=120 -p no:cacheprovider
}

stage() { # one stage, in a process of its own
    case $1 in
        machine | install) "$1"; return ;;
    esac
    installed || return
    local backend=cuda
    if [ "$1" != others ] && ! gpu; then
        [ -n "$DRY" ] || return 3
        echo "on the CPU, to try the script: this is no result"
        backend=cpu
    fi
    case $1 in
        smoke) "$PYTHON" -m benchmarks.smoke ;;
        tests) run_tests "$ON_GPU" ;;
        others) run_tests "not ($ON_GPU)" ;;
        *) "$PYTHON" -m benchmarks "$1" ${QUICK:-} --backend $backend --add --json "$OUT/$backend.json" ;;
    esac || return
    [ $backend = cuda ] || return 3
}

report() { # stage, status, seconds, limit: one line, on the screen and in the summary
    local meaning=ok
    case $2 in
        0) ;;
        3) meaning="NO GPU" ;;
        124 | 137) meaning="STOPPED after its $4 s" ;;
        *) meaning=FAILED ;;
    esac
    printf '%-9s exit %3d %5d s  %-24s %s\n' "$1" "$2" "$3" "$meaning" "$1.txt" | tee -a "$OUT/summary.txt"
}

main() {
    if [ $# = 0 ]; then
        sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        return 2
    fi
    if [ "$1" = prepare ]; then
        [ $# -ge 2 ] || { echo "prepare: name the folder for the wheels" >&2; return 2; }
        shift
        prepare "$@"
        return
    fi
    mkdir -p "$1" "$WORK" || return 2
    OUT=$(cd "$1" && pwd) && WORK=$(cd "$WORK" && pwd)
    export OUT WORK
    shift
    local stages="" name failed=0
    for name in "$@"; do
        case $name in
            --quick) export QUICK=--quick ;;
            all) stages+=" $ALL" ;;
            bench) stages+=" $SUITES" ;;
            *)
                [[ " $ALL " == *" $name "* ]] || { echo "no stage is called $name: $ALL" >&2; return 2; }
                stages+=" $name"
                ;;
        esac
    done
    echo "$(date '+%F %T')${stages:- all}" >>"$OUT/summary.txt"
    for name in ${stages:-$ALL}; do
        local code=0 began=$SECONDS limit
        limit=$(limit_of "$name")
        timeout --kill-after=10 "$limit" bash "${BASH_SOURCE[0]}" --stage "$name" \
            >"$OUT/$name.txt" 2>&1 || code=$?
        report "$name" $code $((SECONDS - began)) "$limit"
        [ $code = 0 ] || { failed=1; tail -n 12 "$OUT/$name.txt" | awk '{ print "    | " $0 }'; }
    done
    return $failed
}

if [ "${1:-}" = --stage ]; then stage "$2"; else main "$@"; fi
