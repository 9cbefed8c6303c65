"""What is printed of optimizers and what belongs to them: short, true, and whenever it is asked."""

import html.parser
import pickle
import re
import sys
import threading
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import representation, texts
from gpuadapt.kernels.formats import Quantized


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def many_groups():
    """Ten groups of 100 parameters, with two settings that differ."""
    groups = [
        {"params": {f"l{g}.{i}": ones(3) for i in range(100)}, "lr": 10.0 ** -(g // 3)}
        for g in range(10)
    ]
    groups[4]["weight_decay"] = 0.25
    return groups


def falling(step):
    return 1 / (step + 1)


class Schedule:
    def __call__(self, step):
        return 0.5

    def __repr__(self):
        return "Schedule(\n  0.5)"


@ga.rule
def own(p, g, h):
    """Move against the gradient, by a factor of the author's."""
    return p - h.factor * g


SHOWN = {
    "defaults": (
        lambda: ga.Adagrad(ones(10, 200)),
        "Adagrad: 0 steps taken\n"
        "  1 parameter: 2,000 elements, 8 kB of float32 on cpu\n"
        "  states: G float32, 8 kB\n"
        "  lr=0.01",
    ),
    "a variant, and what differs": (
        lambda: ga.AdamW(
            {"a": ones(64, 64), "b": ones(3)}, eps_mode="inside", weight_decay=0.5, seed=3,
            state_dtype={"m": "8bit"},
        ),
        "AdamW (rule adam_inside): 0 steps taken\n"
        "  2 parameters: 4,099 elements, 16.4 kB of float32 on cpu\n"
        "  states: m 8bit, v float32, 20.8 kB\n"
        "  lr=0.001, weight_decay=0.5, state_dtype={'m': '8bit'}, seed=3",
    ),
    "no states, and a schedule": (
        lambda: ga.SGD([ones(3), ones(2, dtype=np.float64)], lr=falling, maximize=True),
        "SGD: 0 steps taken\n"
        "  2 parameters: 5 elements, 28 bytes of float32 and float64 on cpu\n"
        "  states: none\n"
        "  lr=falling, maximize=True",
    ),
    "a schedule that is an object": (
        lambda: ga.SGD(ones(3), lr=Schedule()),
        "SGD: 0 steps taken\n"
        "  1 parameter: 3 elements, 12 bytes of float32 on cpu\n"
        "  states: none\n"
        "  lr=Schedule( 0.5)",
    ),
    "a rule of one's own": (
        lambda: ga.Optimizer(own, ones(3), factor=2),
        "Optimizer (rule own): 0 steps taken\n"
        "  1 parameter: 3 elements, 12 bytes of float32 on cpu\n"
        "  states: none\n"
        "  factor=2",
    ),
    "companions and initial values": (
        lambda: ga.Adam(
            ones(100, dtype=ml_dtypes.bfloat16), betas=(0.5, 0.999), master="float32",
            initial={"v": 0.25},
        ),
        "Adam: 0 steps taken\n"
        "  1 parameter: 100 elements, 200 bytes of bfloat16 on cpu\n"
        "  states: m float32, v float32, master float32, 1.2 kB\n"
        "  lr=0.001, beta1=0.5, master='float32', initial={'v': 0.25}",
    ),
    "an option that has no effect": (
        lambda: ga.SGD(ones(3), decay="after", weight_decay=0),
        "SGD: 0 steps taken\n"
        "  1 parameter: 3 elements, 12 bytes of float32 on cpu\n"
        "  states: none\n"
        "  lr=0.01",
    ),
    "groups": (
        lambda: ga.Adam(many_groups(), eps=1e-6),
        "Adam: 0 steps taken\n"
        "  1,000 parameters in 10 groups: 3,000 elements, 12 kB of float32 on cpu\n"
        "  states: m float32, v float32, 24 kB\n"
        "  eps=1e-06\n"
        "  by group: lr=1.0 (0-2), 0.1 (3-5), 0.01 (6-8), 0.001 (9); "
        "weight_decay=0.0 (0-3, 5-9), 0.25 (4)",
    ),
    "nothing": (
        lambda: ga.SGD([]),
        "SGD: 0 steps taken\n  no parameters\n  lr=0.01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_the_text(name):
    make, expected = SHOWN[name]
    found = repr(make()).splitlines()
    heading, *rest = expected.splitlines()
    assert found[:1] == [heading] and len(found) <= 5
    for line, wanted in zip(found[1:], rest, strict=True):
        # The order of settings is that of the constructor, which is not what is tested.
        assert sorted(line.strip().split(", ")) == sorted(wanted.strip().split(", "))


@pytest.mark.parametrize("name", ga.optimizers.__all__)
def test_every_method_shows_only_what_differs(name):
    """By default that is the learning rate, which is always shown."""
    heading, _, _, *settings = repr(getattr(ga, name)({"w": ones(4, 8)})).splitlines()
    assert heading.startswith(name) and heading.endswith(": 0 steps taken")
    assert re.fullmatch(r"  lr=[\d.]+", *settings)


def test_steps_are_counted(backend):
    w = backend.array(np.ones((3, 2), np.float32))
    optimizer = ga.Adam({"w": w})
    for _ in range(2):
        optimizer.step({"w": w.copy()})
    assert repr(optimizer).startswith("Adam: 2 steps taken\n")
    where = "cpu" if isinstance(w, np.ndarray) else "cuda:0"
    assert repr(optimizer).splitlines()[1].endswith(f" on {where}")


def test_nothing_waits_for_a_gpu(host, monkeypatch):
    """Not even for steps that the GPU may have skipped, nor for a loss scale there."""
    w, scale = host.array(np.ones((3, 2), np.float32)), ga.LossScale()
    count = host.array(np.ones(1, np.int64))
    optimizer = ga.Adam({"w": w})
    optimizer.step({"w": w.copy()}, grad_scale=scale)
    rows = ga.RowGrad(host.array(np.zeros(1, np.int64)), w[:1], count=count)

    def waits(*_, **__):
        raise AssertionError("it waits")

    for name in ("get", "__int__", "__float__", "__repr__", "__str__", "item"):
        monkeypatch.setattr(type(w), name, waits, raising=False)
    monkeypatch.setattr(host.library.cuda.Device, "synchronize", waits)
    assert repr(optimizer).startswith("Adam: 0 to 1 step taken\n")
    assert "<td>" in optimizer._repr_html_()
    assert repr(scale).startswith("LossScale(on a GPU, growth=2.0, ")
    assert "as many as `count` says of them in use" in repr(rows)
    assert repr(optimizer.state) == "{'w': {'m': float32 (3, 2), 'v': float32 (3, 2)}}"
    assert repr(optimizer.params) == "{'w': float32 (3, 2)}"


def test_nothing_is_changed():
    asked = []
    optimizer = ga.Adam({"w": ones(3)}, lr=lambda step: asked.append(step) or 0.1)
    optimizer.step({"w": ones(3)})
    before, dumped = dict(vars(optimizer)), pickle.dumps(optimizer.state_dict())
    repr(optimizer), optimizer._repr_html_()
    assert asked == [0] and pickle.dumps(optimizer.state_dict()) == dumped
    assert vars(optimizer).keys() == before.keys()
    assert all(vars(optimizer)[name] is value for name, value in before.items())


def test_while_another_thread_is_in_a_call():
    optimizer = ga.Adam({"w": ones(3)})
    with optimizer._turn.lock:
        shown = []
        other = threading.Thread(target=lambda: shown.append(repr(optimizer)), daemon=True)
        other.start()
        other.join(30)
    assert shown == [repr(optimizer)]


@pytest.fixture
def eager_threads():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_while_steps_are_taken_and_groups_come(eager_threads):
    """Whatever another thread is doing, the text is whole, and of one moment."""
    optimizer, done = ga.Adam({"w": ones(3)}), []

    def work():
        for number in range(40):
            optimizer.add({f"v{number}": ones(3)}, lr=number + 1.0)
            optimizer.step({name: ones(3) for name in optimizer.params})
            for _ in range(100):
                optimizer.param_groups[0]["note"] = number
                del optimizer.param_groups[0]["note"]
            done.append(number)

    other = threading.Thread(target=work, daemon=True)
    other.start()
    shown = set()
    while other.is_alive():
        shown |= {repr(optimizer), optimizer._repr_html_()[:30]}
        repr(optimizer.state), repr(optimizer.params)
    assert len(done) == 40
    assert not any("incomplete" in text or "<pre>" in text for text in shown)
    counts = [re.search(r"(\d+) parameters in (\d+) groups", text) for text in shown]
    assert all(each[1] == each[2] for each in counts if each)
    assert "41 parameters in 41 groups" in repr(optimizer)


def test_long_schedules_are_told_apart():
    """By their whole texts, of which only the beginning is printed."""
    one, two = (Long(f"{'x' * 400}{end}") for end in "ab")
    groups = [{"params": [ones(1)], "lr": each} for each in (one, two, one)]
    last = repr(ga.SGD(groups)).splitlines()[-1]
    assert last.startswith("  by group: lr=xxx") and "x… (0, 2), xxx" in last and len(last) < 330


class Long(str):
    def __call__(self, step):
        return 0.5

    def __repr__(self):
        return str(self)


def test_a_rule_of_ones_own_is_named_in_torchs_text():
    torch = pytest.importorskip("torch")
    from gpuadapt.torch import Optimizer

    optimizer = Optimizer(own, [torch.nn.Parameter(torch.ones(3))], factor=2.0)
    assert repr(optimizer).startswith("Optimizer (\nRule own\nParameter Group 0\n    decay: l2\n")


class Bad:
    """A setting whose every method fails."""

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None

    def __repr__(self):
        raise RuntimeError

    def __call__(self, step):
        return 0.1


def half_loaded():
    optimizer = ga.Adam({"w": ones(3)})
    vars(optimizer)["_half_loaded"] = {"w": 3}
    return optimizer


def without(name):
    optimizer = ga.Adam({"w": ones(3)})
    del vars(optimizer)[name]
    return optimizer


def spoilt():
    optimizer = ga.Adam({"w": ones(3)})
    vars(vars(optimizer)["_parameters"]["w"])["array"] = None
    return optimizer


def with_setting(value):
    optimizer = ga.Adam([{"params": ones(3)}, {"params": ones(3)}])
    optimizer.param_groups[0]["eps"] = value
    optimizer.param_groups[1]["another"] = value
    return optimizer


BROKEN = {
    "not made": lambda: object.__new__(ga.Adam),
    "half loaded": half_loaded,
    **{f"without {name}": lambda name=name: without(name) for name in vars(ga.Adam(ones(3)))},
    "a setting that fails": lambda: with_setting(Bad()),
    "an array as a setting": lambda: with_setting(np.arange(10_000.0)),
    "a long text as a setting": lambda: with_setting("x\n" * 10_000),
    "a parameter without an array": spoilt,
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_never_raises(name):
    broken = BROKEN[name]()
    shown = repr(broken)
    assert "Adam" in shown and shown.count("\n") < 5 and len(shown) < 1_000
    assert "Adam" in broken._repr_html_()
    if name == "half loaded":
        assert shown.startswith("Adam: 0 steps taken; a load has not come to its end\n")
    if name == "not made":
        assert shown == "Adam: it has not been made"


def test_averages_are_shown_and_where_they_are():
    optimizer = ga.Adam({"w": ones(3)}, average=ga.averages.Exponential(0.75))
    heading, _, states, settings = repr(optimizer).splitlines()
    assert "average float32" in states and "average_decay=0.75" in settings
    with optimizer.averages.swapped():
        assert repr(optimizer).startswith(f"{heading}; the arrays hold the averages\n")
    assert repr(optimizer).startswith(f"{heading}\n")


@pytest.mark.parametrize("kind", [ga.LossScale, ga.RowGrad])
def test_other_objects_that_are_half_made(kind):
    assert repr(object.__new__(kind)) == f"<{kind.__name__}, incomplete: AttributeError>"


class Table(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.rows, self.inside = [], [], [], None
        self.feed(text)
        assert not self.tags

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.tags.pop() == tag

    def handle_data(self, text):
        if self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += text


def test_the_table_of_a_notebook():
    """A row for each group; nothing but tags without attributes, so no colours, scripts, links."""
    table = Table(ga.Adam(many_groups(), eps=1e-6)._repr_html_())
    head, *rows = table.rows
    assert not table.attributes and len(rows) == 10 and {len(row) for row in rows} == {len(head)}
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert columns["group"] == tuple(map(str, range(10)))
    assert columns["lr"] == ("1.0",) * 3 + ("0.1",) * 3 + ("0.01",) * 3 + ("0.001",)
    assert columns["weight_decay"][4] == "0.25" and set(columns["eps"]) == {"1e-06"}
    assert columns["parameters"][0] == "100: l0.0, l0.1, l0.2, …"
    assert set(columns["bytes"]) == {"1.2 kB"}
    assert set(columns["states"]) == {"m float32, v float32, 2.4 kB"}


def test_names_in_the_table_are_escaped():
    name = "<script>alert('a & \"b\"')</script>"
    shown = ga.SGD([{"params": {name: ones(3)}}, {"params": [ones(2)], "lr": Bad()}])._repr_html_()
    table = Table(shown)
    assert "<script" not in shown and table.rows[1][1] == f"1: {name}"


def test_a_table_of_many_groups_is_short():
    optimizer = ga.SGD([{"params": [ones(1)]} for _ in range(100)])
    shown = optimizer._repr_html_()
    assert len(Table(shown).rows) == 1 + representation.MOST_LINES and "80 more groups" in shown


def test_arrays_are_outlined():
    """Each by dtype and shape; no numbers are printed."""
    w = {f"w{k}": ones(1000, 300) for k in range(30)}
    optimizer = ga.Adam(w, state_dtype={"m": "8bit"})
    states = "{'m': 8bit (1000, 300), 'v': float32 (1000, 300)}"
    for shown, entry in ((optimizer.params, "float32 (1000, 300)"), (optimizer.state, states)):
        lines = repr(shown).splitlines()
        assert lines[0] == f"{{'w0': {entry}," and lines[-1] == " ... 10 more}"
        assert len(lines) == representation.MOST_LINES + 1
    assert repr(optimizer.state["w0"]["m"]).startswith("Quantized(signed, shape (1000, 300)")


def test_state_and_params_are_read_only_dicts():
    optimizer = ga.Adam({"w": ones(3)})
    for shown, error in ((optimizer.params, ga.ParameterError), (optimizer.state, ga.StateError),
                         (optimizer.state["w"], ga.StateError)):  # fmt: skip
        with pytest.raises(error, match="cannot be changed"):
            shown["w"] = 1
        with pytest.raises(error, match="cannot be changed"):
            shown.update(w=1)
        with pytest.raises(error, match="cannot be changed"):
            del shown["w"]
        assert type(pickle.loads(pickle.dumps(shown))) is dict
    assert optimizer.state["w"]["m"] is optimizer.state["w"]["m"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (123_456_789, "123 MB"),
        (8 * 10**9, "8 GB"),
        (7 * 10**13, "70 TB"),
    ],
)
def test_sizes(count, text):
    assert texts.size(count) == text


def test_outlines():
    eight = Quantized(np.zeros((4, 2), np.uint8), np.ones((1, 1), np.float32), True)
    assert texts.outline(eight) == "8bit (4, 2)"
    assert texts.outline(memoryview(b"12")) == "B (2,)"
    assert texts.outline(SimpleNamespace()) == "<SimpleNamespace>"
