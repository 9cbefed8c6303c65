#!/usr/bin/env bash
# Tests and benchmarks on a machine with an NVIDIA GPU, which needs no network: in pieces of less
# than nine minutes, each of stages with a time limit and a log of its own. benchmarks/README.md
# says how to use it.
#
#   gpu.sh needs                              say what this machine lacks, and how to fetch it
#   gpu.sh needs WHEELS [more for pip]        fetch it to a folder, where there is a network
#   gpu.sh check OUT [STAGE...]               machine install smoke compile tests sanitizer
#   gpu.sh speed OUT [--quick] [STAGE...]     roofs methods formats rows launches host ncu
#   gpu.sh tune OUT                           tune
#   gpu.sh suites OUT [--quick] STAGE...      dense many exact overhead others: one at a time
#   gpu.sh report OUT                         say what was measured, and what follows
#
# A piece without stages runs those that have not succeeded in OUT; a stage that is named runs
# again. What a stage has measured already it leaves out. Set in the environment:
#   WHEELS   folder that "needs" has filled (default: wheels, beside benchmarks/)
#   PYTHON   the interpreter that has CuPy and Numba (default: python3)
#   WORK     folder for what is installed, copied and cached (default: in the temporary directory)
#   LIMIT    the most seconds for any one stage
#   MINUTES  for the tuner (default: 5)
#   DRY=1    try the script without a GPU: stages run on the CPU, or compile, say so and fail
set -uo pipefail

CHECK="machine install smoke compile tests sanitizer"
SPEED="roofs methods formats rows launches host ncu"
SUITES="dense many exact overhead others"
# Tests that run on the GPU: by parameter, or by a loop over backends.
ON_GPU="gpu or every_backend or every_kind or backends_agree or stats_are_of_rows"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHON=${PYTHON:-python3} WHEELS=${WHEELS:-$root/wheels} DRY=${DRY:-}
export WORK=${WORK:-${TMPDIR:-/tmp}/gpuadapt-gpu-$(id -u)}

limit_of() { # seconds that a stage may take; those of a piece are less than nine minutes together
    local own=530
    case $1 in
        roofs) own=30 ;;
        machine | smoke | host | launches) own=45 ;;
        ncu) own=50 ;;
        compile | install) own=60 ;;
        sanitizer) own=90 ;;
        rows) own=100 ;;
        methods | formats) own=120 ;;
        tests) own=210 ;;
        tune) own=500 ;;
        many | overhead) own=300 ;;
    esac
    echo $((own < ${LIMIT:-540} ? own : ${LIMIT:-540}))
}

commit() { # what the wheel and the checkout are of
    cat "$WHEELS/commit" 2>/dev/null || git -C "$root" describe --always --dirty 2>/dev/null ||
        echo unknown
}

needs() { # say what is missing here; or fill a folder with wheels
    if [ $# = 0 ]; then
        "$PYTHON" "$root/benchmarks/wheels.py"
        return
    fi
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
    [ "$(cat "$WORK/installed" 2>/dev/null)" = "$(commit)" ] || install || return
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
    commit >"$WORK/installed"
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
    echo "commit $(commit)"
    echo "compute-sanitizer: $(tool compute-sanitizer || echo not installed)"
    echo "ncu: $(tool ncu || echo not installed)"
    df -h "$WORK" "$OUT"
    gpu || failed=1
    return $failed
}

tool() { # the path of a program of the CUDA toolkit
    command -v "$1" && return
    local found
    for found in /usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-compute/*/"$1"; do
        [ -x "$found" ] && echo "$found" && return
    done
    return 1
}

run_tests() { # those that a -k expression selects, without those that have passed before
    local processes=() left_out=(--ignore tests/test_structure.py) # of the sources, which are not here
    if "$PYTHON" -c "import xdist" 2>/dev/null; then
        processes=(-n "$(($(nproc) < 8 ? $(nproc) : 8))" --dist worksteal)
    fi
    if ! "$PYTHON" -c "import matplotlib, rich, sklearn" 2>/dev/null; then
        echo "tests of gpuadapt compare are left out: matplotlib, rich or scikit-learn is missing"
        left_out+=(--ignore tests/test_cli.py --ignore tests/test_compare_formats.py)
        left_out+=(--ignore tests/test_grid.py --ignore tests/test_words.py)
    fi
    export GPUADAPT_PASSED=$OUT/passed/$(commit)
    mkdir -p "$GPUADAPT_PASSED" && touch "$GPUADAPT_PASSED/passed.txt" &&
        cp "$GPUADAPT_PASSED/passed.txt" "$GPUADAPT_PASSED/before.txt" || return
    echo "$(wc -l <"$GPUADAPT_PASSED/before.txt") tests have passed before, and are left out"
    # The addopts of pyproject.toml need pytest-xdist; other versions of NumPy warn of other things.
    "$PYTHON" -m pytest tests "${processes[@]}" "${left_out[@]}" -k "$1" -v --tb=short \
        -p benchmarks.passed_tests --durations=15 --continue-on-collection-errors \
        -o addopts="--import-mode=importlib --strict-markers" \
        -o filterwarnings=default -o faulthandler_timeout=120 -p no:cacheprovider
    local code=$?
    # 5: there was none, for all of them have passed before.
    [ $code = 5 ] && [ -s "$GPUADAPT_PASSED/before.txt" ] && return 0
    return $code
}

sanitizer() { # memory errors, races, wrong barriers
    local program kind code=0
    program=$(tool compute-sanitizer) || return 4
    for kind in memcheck racecheck synccheck; do
        echo "$kind"
        timeout --kill-after=5 $(($(limit_of sanitizer) / 3)) "$program" --tool "$kind" \
            --error-exitcode 9 "$PYTHON" -m benchmarks.every_kernel || code=$?
    done
    return $code
}

profiled() { # shares of the peaks of memory and of instructions, and what warps wait for
    local program
    program=$(tool ncu) || return 4
    "$program" --clock-control none --kernel-name regex:gpuadapt_adam --csv \
        --section SpeedOfLight --section WarpStateStats --section MemoryWorkloadAnalysis_Tables \
        "$PYTHON" -m benchmarks.every_kernel --elements $((2 ** 26))
}

stage() { # one stage, in a process of its own
    case $1 in
        machine | install) "$1"; return ;;
    esac
    installed || return
    local backend=cuda dry=()
    if [ "$1" != others ] && ! gpu; then
        [ -n "$DRY" ] || return 3
        echo "without a GPU, to try the script: this is no result"
        backend=cpu dry=(--dry)
    fi
    case $1 in
        smoke) "$PYTHON" -m benchmarks.smoke ;;
        compile) "$PYTHON" -m benchmarks.compiled "${dry[@]}" "$OUT/compiled.json" ;;
        tests) run_tests "$ON_GPU" ;;
        others) run_tests "not ($ON_GPU)" ;;
        sanitizer) sanitizer ;;
        ncu) profiled ;;
        tune)
            "$PYTHON" -m benchmarks.tune "${dry[@]}" --minutes "${MINUTES:-5}" --out "$OUT/tuning.json"
            ;;
        *)
            "$PYTHON" -m benchmarks "$1" ${QUICK:-} --backend $backend --missing \
                --json "$OUT/$backend.json"
            ;;
    esac || return
    [ $backend = cuda ] || return 3
}

line() { # stage, status, seconds, limit: one line, on the screen and in the summary
    local meaning=ok
    case $2 in
        0) ;;
        3) meaning="NO GPU" ;;
        4) meaning="not installed" ;;
        124 | 137) meaning="STOPPED after its $4 s" ;;
        *) meaning=FAILED ;;
    esac
    printf '%-9s exit %3d %5d s  %-24s %s\n' "$1" "$2" "$3" "$meaning" "$1.txt" | tee -a "$OUT/summary.txt"
}

run() { # stages, one after the other; what has become of one does not matter to the next
    local name failed=0
    for name in "$@"; do
        local code=0 began=$SECONDS limit
        limit=$(limit_of "$name")
        rm -f "$OUT/done/$name"
        timeout --kill-after=10 "$limit" bash "${BASH_SOURCE[0]}" --stage "$name" \
            >"$OUT/$name.txt" 2>&1 || code=$?
        line "$name" $code $((SECONDS - began)) "$limit"
        case $code in
            0) commit >"$OUT/done/$name" ;;
            4) ;;
            *)
                failed=1
                tail -n 12 "$OUT/$name.txt" | awk '{ print "    | " $0 }'
                ;;
        esac
    done
    return $failed
}

main() {
    local piece=${1:-} stages="" chosen="" name
    case $piece in
        needs) shift; needs "$@"; return ;;
        check) stages=$CHECK ;;
        speed) stages=$SPEED ;;
        tune) stages=tune ;;
        suites) stages=$SUITES ;;
        report) ;;
        *)
            sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            return 2
            ;;
    esac
    [ $# -ge 2 ] || { echo "$piece: name the folder for the results" >&2; return 2; }
    mkdir -p "$2/done" "$WORK" || return 2
    OUT=$(cd "$2" && pwd) && WORK=$(cd "$WORK" && pwd)
    export OUT WORK
    shift 2
    for name in "$@"; do
        if [ "$name" = --quick ]; then
            export QUICK=--quick
        elif [[ " $stages " == *" $name "* ]]; then
            chosen+=" $name"
        else
            echo "$piece has no stage that is called $name: $stages" >&2
            return 2
        fi
    done
    if [ $piece = report ]; then
        installed && "$PYTHON" -m benchmarks.decisions "$OUT"
        return
    fi
    if [ $piece = suites ] && [ -z "$chosen" ]; then
        echo "suites: name one of them, each takes up to nine minutes: $stages" >&2
        return 2
    fi
    if [ -z "$chosen" ]; then
        for name in $stages; do
            if [ "$(cat "$OUT/done/$name" 2>/dev/null)" = "$(commit)" ]; then
                echo "$name has succeeded before"
            else
                chosen+=" $name"
            fi
        done
    fi
    echo "$(date '+%F %T') $piece:$chosen" >>"$OUT/summary.txt"
    # shellcheck disable=SC2086 # a list of words
    run $chosen
}

if [ "${1:-}" = --stage ]; then stage "$2"; else main "$@"; fi
