"""The table of predictions: is every kernel in it still as good, and exact?"""

import collections
import json
import re

import cuda_source
import pytest

from benchmarks import predict, sass
from benchmarks.families import Family, families
from gpuadapt.kernels.cuda import disassembly, nvrtc
from gpuadapt.kernels.cuda.compile import OPTIONS

ARCHITECTURE = 90
WORSE = 1.03
"""No count may be more than this multiple of the table's, no share less than its reciprocal."""

FAMILIES = families() if ARCHITECTURE in nvrtc.architectures() else []
TABLE = json.loads(predict.TABLE.read_text(encoding="utf-8"))
ROWS = {entry["name"]: entry for entry in TABLE["families"]}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def compiled(family):
    return nvrtc.compile(family.source, ARCHITECTURE, OPTIONS)


def worse(before, now):
    """What has become worse in a family, as text.

    Instructions of PTX, the slow paths among them, say something only if those of the fast path
    are not known.
    """
    old, new = before["sm_90"], now["sm_90"]
    more = {"bytes": (before["bytes"], now["bytes"]), "spilled": (old["spilled"], new["spilled"])}
    if "per element" in new:
        more["instructions per element"] = old["per element"]["issue"], new["per element"]["issue"]
    else:
        more["ptx"] = old["ptx"], new["ptx"]
    found = [f"{key}: {a} -> {b}" for key, (a, b) in more.items() if b > WORSE * a]
    less = {"threads": (old["threads"], new["threads"])}
    for gpu in now.get("predicted", ()):
        shares = before["predicted"][gpu]["share"], now["predicted"][gpu]["share"]
        less[f"share on {gpu}"] = shares
    return found + [f"{key}: {a} -> {b}" for key, (a, b) in less.items() if b < a / WORSE]


def test_no_family_has_become_worse(family, compiled):
    """By more than 3 %; `python -m benchmarks.predict` writes a new table, if that is meant."""
    of = predict.counts(family, ARCHITECTURE, compiled)
    now = {"bytes": round(family.moved, 3), f"sm_{ARCHITECTURE}": of}
    if "per element" in of:
        now["predicted"] = predict.predicted(family, of)
    # Whatever the compiler is.
    assert now["bytes"] == ROWS[family.name]["bytes"] and of["spilled"] == 0
    found, here = worse(ROWS[family.name], now), nvrtc.version(compiled.ptx)
    if found and here != TABLE["compiler"]:
        pytest.skip(f"by NVRTC {here}, while the table is by {TABLE['compiler']}: {found}")
    assert not found, family.name


def test_it_is_noticed_if_a_family_becomes_worse():
    of = {"ptx": 100, "spilled": 0, "threads": 1280}
    path = {**of, "per element": {"issue": 40.0}}
    before = {"bytes": 28, "sm_90": path, "predicted": {"H200": {"share": 0.9}}}
    assert not worse(before, before) and not worse(before, {"bytes": 28, "sm_90": of})
    for change in ({"spilled": 8}, {"threads": 1024}, {"per element": {"issue": 41.3}}):
        assert len(worse(before, {**before, "sm_90": path | change})) == 1, change
    for change in ({"spilled": 8}, {"threads": 1024}, {"ptx": 104}):
        assert len(worse(before, {"bytes": 28, "sm_90": of | change})) == 1, change
    assert worse(before, {**before, "predicted": {"H200": {"share": 0.87}}})
    assert worse(before, {**before, "bytes": 30})
    assert not worse(before, {**before, "sm_90": path | {"per element": {"issue": 41.0}}})
    assert not worse(before, {**before, "sm_90": path | {"ptx": 104}})


def test_the_table_has_every_family_and_the_page_is_the_table():
    if FAMILIES:
        assert [family.name for family in FAMILIES] == list(ROWS)
    assert predict.PAGE.read_text(encoding="utf-8") == predict.page(TABLE)


def test_the_disassembler_is_where_torch_is():
    """Torch for Linux brings it with triton, so that counts are compared wherever torch is."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda and cuda_source.architectures():
        assert disassembly.disassembler()


CODE = """
kernel:
.text.kernel:
        /*0000*/                   LDG.E.64.CONSTANT R2, desc[UR4][R2.64] ;
        /*0010*/               @P0 BRA `(.L_x_4) ;
.L_x_1:
        /*0020*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E.128 R8, desc[UR4][R2.64+0x10] ;
        /*0040*/                   MUFU.RCP R12, R4 ;
        /*0050*/              @!P0 BRA `(.L_x_2) ;
        /*0060*/                   CALL.REL.NOINC `($__internal_0_$__cuda_division_slowpath) ;
.L_x_2:
        /*0070*/                   FADD R4, R4, R8 ;
        /*0080*/               @P1 BRA `(.L_x_3) ;
        /*0090*/                   FMUL R5, R5, R5 ;
.L_x_3:
        /*00a0*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*00b0*/                   ISETP.GE.AND P0, PT, R0, UR6, PT ;
        /*00c0*/              @!P0 BRA `(.L_x_1) ;
.L_x_4:
        /*00d0*/                   STG.E desc[UR4][R2.64], R4 ;
        /*00e0*/               @P1 BRA `(.L_x_4) ;
        /*00f0*/                   EXIT ;
$__internal_0_$__cuda_division_slowpath:
        /*0100*/                   RET.REL.NODEC R2 `(kernel) ;
"""


def test_the_fast_path_is_found():
    code = sass.blocks(CODE)
    wanted = sass.Wanted((*sass.LOADS, *sass.STORES), 8, ("MUFU",))
    path = sass.fast_path(code, wanted, loop=True)
    names = [one.name.partition(".")[0] for one in path]
    assert names == ["LDG", "LDG", "MUFU", "BRA", "FADD", "BRA", "STG", "ISETP", "BRA"]
    assert sass.moved(path, sass.STORES, 8) == 16
    assert predict.per_unit(path) == {
        "issue": 9, "ALU": 1, "FP32": 1, "IMAD": 0, "XU": 1, "FP64": 0
    }  # fmt: skip
    assert predict.waits(path, 8) == 1
    kept = sass.Wanted(wanted.accesses, 8, ("FMUL",))
    assert "FMUL" in [one.name for one in sass.fast_path(code, kept, loop=True)]
    whole = sass.fast_path(code, wanted, loop=False)
    assert (whole[0].name, whole[-1].name) == ("LDG.E.64.CONSTANT", "EXIT")
    assert predict.waits(whole, 16) == 1 + predict.L2_LATENCY / predict.LATENCY


def test_what_bounds_a_kernel():
    family = Family("", "", 256, 28.0, 12.0, sass.Wanted(sass.STORES, 8, ()))
    few = {"per element": {"issue": 10.0, "ALU": 2.0}, "in flight": 10**6}
    for of, bound in (
        (few, "memory"),
        ({**few, "per element": {"issue": 400.0, "ALU": 20.0}}, "issue"),
        ({**few, "per element": {"issue": 400.0, "ALU": 240.0}}, "ALU"),
        ({**few, "in flight": 4096}, "latency"),
    ):
        got = predict.predicted(family, of)
        assert [each["bound"] for each in got.values()] == [bound] * 2
        assert got["H200"]["share"] <= got["H100"]["share"] <= got["H100"]["at most"] <= 1
        assert (got["H200"]["share"] > 0.98) == (bound == "memory")


@pytest.mark.parametrize(
    ("block", "registers", "shared", "threads"),
    [(256, 32, 0, 2048), (256, 40, 0, 1536), (256, 72, 0, 768), (256, 128, 0, 512),
     (128, 68, 0, 896), (256, 32, 40 * 1024, 1280), (32, 16, 0, 1024)],
)  # fmt: skip
def test_resident_threads(block, registers, shared, threads):
    """By NVIDIA's occupancy calculator for compute capability 9.0."""
    assert predict.resident(90, block, registers, shared) == threads


def test_every_kernel_of_the_table_is_exact(family, compiled):
    """In its PTX, and in its machine code where there is a disassembler."""
    assert not cuda_source.inexact(compiled.ptx)
    if not family.divides:
        assert not re.search(r"\b(?:div|sqrt|rcp|rsqrt)\.", compiled.ptx)
    if disassembly.disassembler():
        assert not unexplained(sass.disassembled(compiled.cubin), family.divides)


def unexplained(code, divides=True):
    """Contractions and flushes beside those of NVIDIA's sequences for division and root.

    Subroutines are left out, which have the rare cases of these. A division of float32 tests its
    operands (FCHK) and has 5 FFMA. A root has 2 FFMA, and 2 products that flush where no operand is
    subnormal. A division of float64 has 7 DFMA and 1 FFMA, a root 5 DFMA. A division of integers
    has a conversion that flushes.
    """
    end = next((k for k, block in enumerate(code) if block.label.startswith("$")), len(code))
    given = [one for block in code[:end] for one in block.instructions]
    names = [one.name for one in given]
    operations = collections.Counter(name.partition(".")[0] for name in names)
    flushing = sum(".FTZ" in name and not name.startswith("F2I.") for name in names)
    units = collections.Counter(name for name in names if name.startswith("MUFU."))
    contracted = 5 * operations["FCHK"] + 2 * units["MUFU.RSQ"] + units["MUFU.RCP64H"]
    double = 7 * units["MUFU.RCP64H"] + 5 * units["MUFU.RSQ64H"]
    # Constants are loaded by a product of zeros.
    half = [one for one in given if one.operation in ("HFMA2", "HMUL2", "HADD2", "HMNMX2")]
    others = sum(n for name, n in units.items() if not re.fullmatch(r"MUFU\.(RCP|RSQ)(64H)?", name))
    found = {
        "FFMA": operations["FFMA"] - contracted,
        "DFMA": operations["DFMA"] - double,
        "FTZ": flushing - 2 * units["MUFU.RSQ"],
        "half": sum("RZ, RZ, " not in one.operands for one in half),
        "other functions": others,
        "divisions": 0 if divides else sum(units.values()) + operations["FCHK"],
    }
    return {name: n for name, n in found.items() if n}


@pytest.mark.skipif(not FAMILIES, reason="there is no NVRTC here")
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("a[0] * a[1] + a[2]", "FFMA"),
        ("double(a[0]) * a[1] + a[2]", "DFMA"),
        ("a[0] + a[1]", "FTZ"),
        ("__expf(a[0])", "other functions"),
    ],
)
def test_inexact_machine_code_is_noticed(expression, found):
    source = f'extern "C" __global__ void k(float *a) {{ a[0] = {expression}; }}'
    compiled = nvrtc.compile(source, ARCHITECTURE, ())
    assert cuda_source.inexact(compiled.ptx)
    if disassembly.disassembler():
        assert found in unexplained(sass.disassembled(compiled.cubin))
