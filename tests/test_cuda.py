"""The CUDA sources as CuPy hands them to NVRTC, and the launch code; no GPU is needed."""

import itertools
import platform
import re
import sys

import hostcupy
import numpy as np
import ptx
import pytest
from cases import KINDS, RULES
from cuda_source import architectures, assemble, compile_ptx, inexact
from ml_dtypes import bfloat16
from test_bits import assert_same_bits, every_function, some_coefficients

import gpuadapt as ga
from gpuadapt.arrays import numpy_dtype
from gpuadapt.kernels.catchup.plan import catch_up_plan
from gpuadapt.kernels.commit import make
from gpuadapt.kernels.cuda import (
    compile,
    exact_rows,
    generate,
    multi_tensor,
    rows,
    scalars,
    squares,
    step_history,
    strided,
)
from gpuadapt.kernels.formats import FLOAT64, PLAIN, uniform
from gpuadapt.optimizer import internals
from gpuadapt.oracle import any_bits, evaluate


@pytest.mark.parametrize("architecture", architectures())
def test_kernels_of_many_arrays_compile(architecture, dtype):
    """Every rule and its rate once; on every architecture some of each kind."""
    rules = [*(case.rule for case in KINDS[::3]), every_function]
    if architecture == 90:
        rules = [*RULES, *(rule.rate for rule in RULES), every_function]
    for rule in rules:
        source = multi_tensor.source(rule, uniform(rule, dtype))
        compiled = compile_ptx(source, architecture, compile.OPTIONS)
        exact(compiled, rule)
        if not rule.name.endswith("_rate"):
            # As 4-byte words whatever the element type: NVRTC's choice.
            arrays = len(rule.program.arguments)
            packed = [
                len(re.findall(rf"{kind}\.global\.(?:nc\.)?v[24]\.\w+", compiled))
                for kind in ("ld", "st")
            ]
            # The compiler may write the loop more than once.
            assert packed[0] % arrays == 0 < packed[0], rule
            assert packed[1] * arrays == packed[0] * (arrays - 1), rule


@pytest.mark.parametrize("architecture", architectures())
def test_kernels_of_any_strides_compile(architecture, dtype):
    for rule in [*(case.rule for case in KINDS[:: 1 if architecture == 90 else 3]), every_function]:
        for ndim in (0, 1, 3):
            source = assemble(strided.strided(rule), dtype, ndim)
            exact(compile_ptx(source, architecture, compile.OPTIONS), rule)


@pytest.mark.parametrize("architecture", architectures())
def test_kernels_without_a_rule_compile(architecture, dtype):
    kind = str(dtype), PLAIN[str(dtype)]
    sources = [scalars.count_source(), scalars.judge_source()]
    for key in ("uint32", "uint64"):
        sources.append(rows.hot_rows_source(*kind, key))
        sources += [rows.keys_source(np.dtype(index), key) for index in (np.int32, np.int64)]
    sources += [squares.source(*kind, strided) for strided in (False, True)]
    sources.append(squares.source("float64", FLOAT64, squared=False))
    sources += [rows.squares_source(*kind, of) for of in ROW_FORMS if fits(of, dtype)]
    for source in sources:
        exact(compile_ptx(source, architecture, compile.OPTIONS), RULES[0])


def fits(of, dtype):
    return of.elements in (1, multi_tensor.ACCESS // dtype.itemsize)


ROW_FORMS = [
    rows.launch_config(64, 4, False),
    rows.launch_config(4096, 2, False),
    rows.launch_config(3, 1, True)._replace(key="uint32"),
]


@pytest.mark.parametrize("architecture", architectures())
def test_kernels_of_rows_compile(architecture):
    dtypes = [np.dtype(np.float32), np.dtype(np.float64)]
    sources = [(case.rule, dtypes[0], ROW_FORMS[0]) for case in KINDS]
    sources += [
        (rule, dtype, of)
        for rule in (ga.rules.adagrad.rowwise, ga.rules.adam.rowwise)
        for dtype in dtypes
        for of in ROW_FORMS
        if fits(of, dtype)
    ]
    for rule, dtype, of in sources:
        compiled = compile_ptx(
            rows.source(rule, uniform(rule, dtype), of), architecture, compile.OPTIONS
        )
        exact(compiled, rule)
        packed = [
            len(re.findall(rf"{kind}\.global\.(?:\w+\.)?v[24]\.\w+", compiled))
            for kind in ("ld", "st")
        ]
        if of.elements == 1:
            assert packed == [0, 0]
        else:
            # The compiler may write a loop twice. Gradients are read in three places.
            wide = 1 + len(rule.states) - len(rule.row_states)
            assert packed[1] >= wide and packed[1] % wide == 0, (rule, of)
            assert packed[0] >= wide + 3, (rule, of)
            assert ("st.global.f" in compiled) == bool(rule.row_states), (rule, of)


@pytest.mark.parametrize("architecture", architectures())
def test_kernels_of_exact_rows_compile(architecture):
    """By a closed form and replayed, in one type and in others, on rows of any width."""
    adam, dtypes = ga.rules.adam, (np.dtype(np.float32), np.dtype(np.float64))
    rules = [case.rule for case in KINDS[:: 1 if architecture == 90 else 5]]
    sources = [exact_rows.source(rule, uniform(rule, dtypes[0])) for rule in rules]
    sources += [
        rows.source(rule, uniform(rule, dtype), of, True, way)
        for rule in (adam, adam.rowwise)
        for dtype in dtypes
        for of in ROW_FORMS
        if fits(of, dtype) and not of.strided
        for way in (None, catch_up_plan(rule))
        if way is None or dtype == np.float32
    ]
    element, settings, gradient = FORMATS["all 16 bits"]
    optimizer = ga.Adam(np.zeros((4, 64), numpy_dtype(element, "cpu")), **settings)
    formats = internals(optimizer).parameters["0"].formats_for(gradient)
    sources.append(exact_rows.source(adam, formats))
    sources.append(step_history.source())
    for source in sources:
        exact(compile_ptx(source, architecture, compile.OPTIONS), adam)


FORMATS = {
    "8-bit states": ("float32", {"state_dtype": "8bit"}, "float16"),
    "all 16 bits": ("bfloat16", {"state_dtype": "bfloat16", "rounding": "stochastic"}, "bfloat16"),
    "split": ("bfloat16", {"state_dtype": "float16", "master": "split"}, "float32"),
    "kahan": ("float16", {"state_dtype": "8bit", "rounding": "kahan"}, "float64"),
    "in float64": ("float64", {"state_dtype": "bfloat16"}, "float32"),
}


@pytest.mark.parametrize(
    ("architecture", "name"), list(zip(itertools.cycle(architectures()), FORMATS, strict=False))
)
def test_kernels_of_formats_compile(architecture, name):
    """Exactly, and with accesses of 16 bytes (of codes 4) in whole blocks and rows."""
    element, settings, gradient = FORMATS[name]
    rule = ga.rules.adam
    optimizer = ga.Adam(np.zeros((4, 64), numpy_dtype(element, "cpu")), **settings)
    formats = internals(optimizer).parameters["0"].formats_for(gradient)
    by_rows = [rows.source(rule, formats)]
    rowwise = formats._replace(states=(formats.states[0], PLAIN[formats.compute]))
    by_rows.append(rows.source(rule.rowwise, rowwise, ROW_FORMS[2]))
    sources = [
        multi_tensor.source(rule, formats),
        squares.source(formats.compute, formats.gradient),
    ]
    for k, source in enumerate(sources + by_rows):
        compiled = compile_ptx(source, architecture, compile.OPTIONS)
        exact(compiled, rule)
        if k == 0:
            assert re.search(r"st\.global\.v[24]\.\w+", compiled)


def exact(compiled, rule):
    """No subnormal is flushed and nothing is contracted, though CuPy asks for -ftz=true."""
    assert not inexact(compiled), (rule.name, inexact(compiled))


def test_exactness_is_noticed():
    """The check above fails on a kernel written without our numbers."""
    source = 'extern "C" __global__ void k(float *a) { a[0] = a[0] * a[1] / a[2] + a[3]; }'
    with pytest.raises(AssertionError, match="ftz"):
        exact(compile_ptx(source, 90, compile.OPTIONS), RULES[0])


def test_there_is_a_compiler():
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        assert 90 in architectures()


@pytest.fixture
def launches(host):
    """Of kernels without strides, in order."""
    hostcupy.RawKernel.launches.clear()
    hostcupy.ElementwiseKernel.launches.clear()
    return hostcupy.RawKernel.launches


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_one_launch_for_all_arrays(case, host, launches, dtype):
    arrays = [host.array(np.ones(n, dtype)) for n in (1, 5, 100, 0, 5000)]
    optimizer = case.optimizer(arrays)
    launches.clear()
    optimizer.step([host.array(np.ones(n, dtype)) for n in (1, 5, 100, 0, 5000)])
    assert launches == [f"gpuadapt_{case.rule.name}_many"]
    assert not hostcupy.ElementwiseKernel.launches


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["adam_many"]),
        ({"grad_scale": 8.0}, ["adam_many"]),
        ({"clip_value": 0.5}, ["adam_many"]),
        ({"max_norm": 1.0}, ["squares", "judge", "adam_many"]),
        ({"skip_nonfinite": True}, ["squares", "judge", "adam_many"]),
        ({"grad_scale": "array"}, ["judge", "adam_many"]),
        ({"grad_scale": "array", "max_norm": 1.0}, ["squares", "judge", "adam_many"]),
        ({"grad_scale": "LossScale"}, ["squares", "judge", "adam_many"]),
        ({"grad_scale": "LossScale", "max_norm": 1.0}, ["squares", "judge", "adam_many"]),
    ],
)
def test_launches_of_a_step(options, expected, host, launches):
    """As few as README says; nothing else is launched, and the second step has no others."""
    scales = {"array": host.array(np.full(1, 8, np.float32)), "LossScale": ga.LossScale(8.0)}
    options = {name: scales.get(value, value) for name, value in options.items()}
    sizes = (3, 5, 5000)
    optimizer = ga.Adam([host.array(np.ones(n, np.float32)) for n in sizes])
    for _ in range(2):
        launches.clear()
        optimizer.step([host.array(np.ones(n, np.float32)) for n in sizes], **options)
        names = [re.sub("_unscale|_clip_norm|_clip_value", "", name) for name in launches]
        assert names == [f"gpuadapt_{name}" for name in expected]
    assert not hostcupy.ElementwiseKernel.launches


def test_a_step_is_counted_once(host, launches):
    """By the last kernel, whatever kernels a step has; by a kernel of its own if it has none."""
    arrays = {
        "single": host.array(np.ones(9000, np.float32)),
        "double": host.array(np.ones(5)),
        "table": host.array(np.ones((9, 4), np.float32)),
        "gaps": hostcupy.ndarray(np.ones(8)[::2]),
        "empty": host.array(np.ones((9, 0), np.float32)),
    }
    optimizer = ga.SGD(arrays, lr=lambda step: 2.0**-step)
    optimizer.capturable = True  # so that a GPU's count is asked for
    whole = {name: host.array(np.ones(arrays[name].shape, arrays[name].dtype)) for name in arrays}
    ids, none = host.array(np.arange(2)), host.array(np.zeros((2, 0), np.float32))
    rows = ga.RowGrad(ids, host.array(np.ones((2, 4), np.float32)))
    given = [
        (["single"], ["sgd_many"]),
        (["single", "double"], ["sgd_many", "sgd_many"]),
        (["double", "table"], ["keys", "sgd_rows", "sgd_many"]),
        (["table"], ["keys", "sgd_rows"]),
        (["gaps", "single"], ["sgd_many"]),
        (["gaps"], ["count_step"]),
        (["empty"], ["count_step"]),
        ([], ["count_step"]),
        (["empty rows"], ["keys", "count_step"]),
        (["single"], ["sgd_many"]),
    ]
    for step, (names, expected) in enumerate(given):
        gradients = {name: whole[name] if name in names else None for name in arrays}
        if "table" in names:
            gradients["table"] = rows
        if "empty rows" in names:
            gradients["empty"] = ga.RowGrad(ids, none)
        before = host.numpy(arrays["single"])
        launches.clear()
        optimizer.step(gradients)
        assert launches == [f"gpuadapt_{name}" for name in expected], names
        (device,) = internals(optimizer).steps.devices()
        assert device.scalars.steps() == step + 1
        moved = 2.0**-step * ("single" in names)
        assert np.array_equal(host.numpy(arrays["single"]), before - np.float32(moved))


SETTINGS = {
    "alone": {},
    "random bits": {"rounding": "stochastic"},
    "groups": {"lr": lambda step: 0.1 / (step + 1)},
}
STEPS = [
    {}, {}, {"max_norm": 1.0}, {}, {"grad_scale": 2.0}, {"skip_nonfinite": True}, {}, {"bad": True},
    {}, {"count": True}, {}, {"none": True}, {}, {"clip_value": 0.1}, {"scale": True}, {},
]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_scalars_by_value_and_in_memory_in_turns(name, host):
    """Steps that are measured, skipped or counted between those that are not."""
    random, settings = np.random.default_rng(5), SETTINGS[name]
    kind = bfloat16 if name == "random bits" else np.float32
    start = [random.normal(size=n).astype(kind) for n in (3, 5000, 64)]
    if name == "groups":
        ours, twins = ([{"params": a.copy()} for a in start] for _ in range(2))
        for group in ours:
            group["params"] = host.array(group["params"])
    else:
        ours, twins = [host.array(a) for a in start], [a.copy() for a in start]
    optimizers = ga.Adam(ours, **settings), ga.Adam(twins, **settings)
    for options in STEPS:
        grads = [random.normal(size=a.shape).astype(kind) for a in start]
        if "bad" in options:
            grads[1][7], options = np.inf, {"skip_nonfinite": True}
        absent = options == {"none": True}
        counted, scaled = options == {"count": True}, options == {"scale": True}
        given = {} if absent or counted or scaled else options
        for one, convert in zip(optimizers, (host.array, np.array), strict=True):
            own = [convert(g) for g in grads]
            own[2] = None if absent else own[2]
            scale = {"grad_scale": ga.LossScale(4.0)} if scaled else {}
            one.step(own, **given, **scale)
            if counted:
                assert one.step_count == 9
        for a, b in zip(*(one.params.values() for one in optimizers), strict=True):
            assert np.array_equal(host.numpy(a).view(np.uint8), b.view(np.uint8)), options
    assert len({one.step_count for one in optimizers}) == 1


def test_steps_are_counted_beyond_32_bits(host):
    made, rows = scalars.StepScalars(), [[0.0, 1.0, 0.5, 0.0]] * 3
    made.restart(scalars.WRAP - 1)
    made.load(scalars.WRAP - 1, rows)
    for step in range(scalars.WRAP, scalars.WRAP + 4):
        make([*made.select_step(None, (), 1, False), *made.end_step()])
        assert made.steps() == min(step, scalars.WRAP + 2)
        assert made.result() == (0, 1, step == scalars.WRAP + 3)


@pytest.mark.parametrize(
    ("parameter", "gradient", "strided"),
    [
        (np.s_[:8], np.s_[:8], False),
        (np.s_[1:9], np.s_[2:10], False),
        (np.s_[:16:2], np.s_[:8], True),
        (np.s_[:8], np.s_[8:0:-1], True),
    ],
)
def test_strided_arrays_have_a_kernel_of_their_own(parameter, gradient, strided, launches):
    w = np.zeros(32, np.float32)
    g = np.zeros(32, np.float32)
    w, g = (hostcupy.ndarray(aligned(a)[s]) for a, s in ((w, parameter), (g, gradient)))
    optimizer = ga.SGD(w)
    own = ["gpuadapt_sgd_strided"] * strided
    for compiling in (own, []):  # which the first launch does, for a step that is not taken
        hostcupy.ElementwiseKernel.launches.clear()
        launches.clear()
        optimizer.step(g)
        assert hostcupy.ElementwiseKernel.launches == [*compiling, *own]
        assert launches == ["gpuadapt_count_step" if strided else "gpuadapt_sgd_many"]


def aligned(array):
    raw = np.empty(array.nbytes + 64, np.uint8)
    result = raw[-raw.ctypes.data % 64 :][: array.nbytes].view(array.dtype)
    result[...] = array
    return result


@pytest.mark.parametrize(("n", "frequent"), [(100, 0), (1000, 1)])
def test_launches_for_rows_of_an_array(n, frequent, host):
    launches = hostcupy.RawKernel.launches
    optimizer = ga.Adam({"table": host.array(np.ones((9, 4), np.float32))})
    gradient = ga.RowGrad(host.array(np.arange(n) % 9), host.array(np.ones((n, 4), np.float32)))
    launches.clear()
    optimizer.step({"table": gradient})
    names = ["gpuadapt_keys", *["gpuadapt_hot_rows"] * frequent]
    assert launches == [*names, "gpuadapt_adam_rows"]


@pytest.mark.parametrize(
    ("table", "values", "elements"),
    [
        (np.s_[:, :], np.s_[:, :], 4),
        (np.s_[1:, :], np.s_[1:, :], 4),
        (np.s_[:, :6], np.s_[:, :6], 1),
        (np.s_[:, ::2], np.s_[:, :4], 1),
        (np.s_[::2], np.s_[:, :], 1),
    ],
)
def test_16_byte_accesses_only_where_rows_are_aligned(table, values, elements, host, monkeypatch):
    forms = []
    monkeypatch.setattr(rows, "kernel", lambda rule, dtype, of: forms.append(of) or _nothing)
    ours = hostcupy.ndarray(aligned(np.zeros(80, np.float32)).reshape(10, 8)[table])
    given = hostcupy.ndarray(aligned(np.zeros(80, np.float32)).reshape(10, 8)[values])
    numbers = host.array(np.zeros(len(given), np.int64))
    ga.SGD(ours).step(ga.RowGrad(numbers, given))
    assert [of.elements for of in forms] == [elements]
    assert forms[0].strided == (table in (np.s_[:, :6], np.s_[:, ::2], np.s_[::2]))


def test_misaligned_values_are_read_one_by_one(host, monkeypatch):
    forms = []
    monkeypatch.setattr(rows, "kernel", lambda rule, dtype, of: forms.append(of) or _nothing)
    flat = aligned(np.zeros(41, np.float32))
    given = hostcupy.ndarray(flat[1:].reshape(10, 4))
    ours = hostcupy.ndarray(aligned(np.zeros(40, np.float32)).reshape(10, 4))
    ga.SGD(ours).step(ga.RowGrad(host.array(np.zeros(10, np.int64)), given))
    assert forms == [rows.launch_config(4, 1, False)._replace(key="uint32")]


def _nothing(grid, block, arguments):
    pass


_nothing.kernel = None  # as a compiled kernel has


def test_source_is_what_is_compiled():
    source = ga.rules.adam.source("cuda", "dense")
    kernel = strided.strided(ga.rules.adam)
    assert all(part in source for part in (kernel.in_params, kernel.out_params, kernel.name))
    assert kernel.preamble in source
    assert ga.rules.adam.source("cuda") == multi_tensor.source(
        ga.rules.adam, uniform(ga.rules.adam, np.dtype(np.float32))
    )


def element_kernel(rule, dtype):
    """A kernel that updates one element of each array: the rule's device function and no more."""
    ctype = {"float32": "float", "float64": "double"}[str(dtype)]
    names = rule.program.arguments
    pointers = ", ".join(f"{ctype} *{name}" for name in names)
    coefficients = "".join(f", {ctype} {name}" for name in rule.coefficients)
    loads = "\n".join(f"gpuadapt::number<{ctype}> {name}_n = *{name};" for name in names)
    stores = "\n".join(f"*{name} = {name}_n.value;" for name in (rule.parameter, *rule.states))
    numbers = ", ".join([f"{name}_n" for name in names] + list(rule.coefficients))
    return (
        f"{generate.PREAMBLE}{generate.function(rule)}\n}}\n"
        f'extern "C" __global__ void element({pointers}{coefficients}) {{\n{loads}\n'
        f"gpuadapt::{rule.symbol}<gpuadapt::number<{ctype}>>({numbers});\n{stores}\n}}\n"
    )


@pytest.mark.parametrize("rule", [*RULES, every_function], ids=lambda rule: rule.name)
def test_the_gpus_instructions_give_the_same_bits(rule, dtype):
    """The PTX of a rule, interpreted: compiled with -ftz=true as CuPy does, for any bits."""
    random = np.random.default_rng(11)
    arrays = [any_bits(random, 2001, dtype) for _ in rule.program.arguments]
    coefficients = some_coefficients(rule)
    expected = evaluate(rule, arrays, coefficients)
    compiled = compile_ptx(element_kernel(rule, dtype), 90, compile.OPTIONS)
    ptx.run(compiled, arrays, [dtype.type(c) for c in coefficients])
    got = [arrays[0], *arrays[2:]]
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b, rule=rule.name)
