"""Steps captured in a CUDA graph: on a GPU, and with the stand-in, which forbids what one would."""

import hostcupy
import numpy as np
import pytest
from conftest import BACKENDS, installed

import gpuadapt as ga

OLDER = "host, CuPy 13"
"""The stand-in as a CuPy that waits for the GPU when it sorts: rows cannot be captured."""


@pytest.fixture(params=[name for name in BACKENDS if name != "cpu"] + [OLDER])
def device(request, monkeypatch):
    name, _, older = request.param.partition(", ")
    with installed(name) as result:
        if older:
            monkeypatch.setattr(result.library, "__version__", "13.6.0")
        yield result


def captures_rows(device):
    """Whether steps of rows can be captured."""
    return int(device.library.__version__.split(".")[0]) >= 14


class Setup:
    """Parameters with gradients that stay where they are, and the same on the CPU."""

    def __init__(self, device, make=ga.Adam, **settings):
        self.device, self.random = device, np.random.default_rng(0)
        shapes = {"a": (3, 5), "b": (7,), "table": (30, 4)}
        start = {k: self.random.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        self.arrays = {name: device.array(w) for name, w in start.items()}
        self.twins = {name: w.copy() for name, w in start.items()}
        self.optimizer = make(self.arrays, **settings)
        self.twin = make(self.twins, **settings, check="skip")
        self.grads = {k: device.array(np.zeros_like(start[k])) for k in "ab"}
        self.rows, self.count = (device.array(np.zeros(n, np.int64)) for n in (8, 1))
        self.values = device.array(np.zeros((8, 4), np.float32))
        self.by_rows = captures_rows(device)
        if self.by_rows:
            self.grads["table"] = ga.RowGrad(self.rows, self.values, count=self.count)
        else:
            self.grads["table"] = device.array(np.zeros((30, 4), np.float32))
        self.stream = device.library.cuda.Stream()

    def write(self, bad=False):
        """New gradients; those for the twin."""
        draw, library = self.random, self.device.library
        dense = "ab" if self.by_rows else ("a", "b", "table")
        given = {k: draw.normal(size=self.twins[k].shape).astype(np.float32) for k in dense}
        if bad:
            given["a"][0, 0] = np.inf
        for name, g in given.items():
            self.grads[name][...] = library.asarray(g)
        if not self.by_rows:
            return given
        rows, n = draw.integers(0, 30, 8), int(draw.integers(0, 9))
        values = draw.normal(size=(8, 4)).astype(np.float32)
        self.rows[...], self.values[...] = library.asarray(rows), library.asarray(values)
        self.count[...] = library.asarray(np.array([n]))
        return {**given, "table": ga.RowGrad(rows, values, count=n)}

    def capture(self, **options):
        self.stream.begin_capture()
        try:
            self.optimizer.step(self.grads, **options)
        finally:
            graph = self.stream.end_capture()
        return graph

    def check(self):
        for name, w in self.arrays.items():
            assert np.array_equal(self.device.numpy(w), self.twins[name]), name
        assert self.optimizer.step_count == self.twin.step_count


@pytest.mark.parametrize(
    ("scaled", "kept", "sparse"),
    [
        (False, None, "lazy"), (True, None, "lazy"), (True, "bfloat16", "lazy"),
        (False, None, "exact"), (True, None, "exact"),
    ],
)  # fmt: skip
def test_replays_are_steps(scaled, kept, sparse, device):
    """Bias correction, a changing rate and a schedule, rows in use, loss scale and skipping.

    And random bits, which go by the step; and rows that miss steps, of which a GPU keeps count.
    """
    decay = {"weight_decay": lambda step: 0.01 * step + 0.01, "decay": "decoupled"}
    setup = Setup(device, lr=0.1, state_dtype=kept, sparse=sparse, **decay)
    options = [{"max_norm": 1.5} if scaled else {} for _ in range(2)]
    scales = [ga.LossScale(4.0, interval=2) for _ in range(2)]
    if scaled:
        for given, scale in zip(options, scales, strict=True):
            given["grad_scale"] = 3 * scale
    optimizer, graph = setup.optimizer, None
    optimizer.capturable = True
    with setup.stream:
        for step in range(10):
            for one in (optimizer, setup.twin):
                one.param_groups[0]["lr"] = 0.1 / (1 + step)
            setup.twin.step(setup.write(scaled and step in (3, 4)), **options[1])
            if step < 2:
                optimizer.step(setup.grads, **options[0])
            else:
                graph = graph or setup.capture(**options[0])
                optimizer.prepare_replay()
                graph.launch(setup.stream)
            setup.check()
            assert repr(optimizer.last) == repr(setup.twin.last)
            assert float(scales[0]) == float(scales[1])
        state = optimizer.state_dict()
        assert [entry["updates"] for entry in state["state"].values()] == [10 - 2 * scaled] * 3
    assert optimizer.capturable


def test_a_scale_on_the_gpu_is_read_by_every_replay(device):
    setup, library = Setup(device, make=ga.SGD, lr=1.0), device.library
    setup.optimizer.capturable = True
    scale, graph = device.array(np.ones(1, np.float32)), None
    with setup.stream:
        for step in range(4):
            value = np.float32(3.7 + step)
            scale[...] = library.asarray(np.array([value]))
            setup.twin.step(setup.write(), grad_scale=value, max_norm=2.0)
            if step == 0:
                setup.optimizer.step(setup.grads, grad_scale=scale, max_norm=2.0)
            else:
                graph = graph or setup.capture(grad_scale=scale.reshape(()), max_norm=2.0)
                setup.optimizer.prepare_replay()
                graph.launch(setup.stream)
            setup.check()
    wrong = [np.ones(2, np.float32), np.ones(1)]
    for array in wrong:
        with pytest.raises(ga.HyperparameterError, match="grad_scale"):
            setup.optimizer.step(setup.grads, grad_scale=device.array(array))


def test_replays_prepared_ahead(device):
    """Several at once, some of them skipped; and a replay that nobody has prepared."""
    setup = Setup(device, lr=lambda step: 0.1 / (1 + step))
    optimizer = setup.optimizer
    optimizer.capturable = True
    options = {"skip_nonfinite": True}
    with setup.stream:
        setup.twin.step(setup.write(), **options)
        optimizer.step(setup.grads, **options)
        graph = setup.capture(**options)
        graph.launch(setup.stream)
        assert optimizer.last.skipped
        setup.check()
        for count, bad in ((3, None), (2, 1), (4, 0), (1, None)):
            optimizer.prepare_replay(count)
            for k in range(count):
                setup.twin.step(setup.write(k == bad), **options)
                graph.launch(setup.stream)
                setup.check()
        # Steps as such go on too, as long as they are like the captured one.
        setup.twin.step(setup.write(), **options)
        optimizer.step(setup.grads, **options)
        setup.check()
        optimizer.prepare_replay(512)
        optimizer.prepare_replay(512)  # the GPU says that none of the others has been
        for bad in (False, True):
            setup.twin.step(setup.write(bad), **options)
            graph.launch(setup.stream)
            setup.check()


def test_a_state_is_loaded_between_replays(device):
    setup = Setup(device, lr=0.1)
    optimizer = setup.optimizer
    optimizer.capturable = True
    with setup.stream:
        setup.twin.step(setup.write())
        optimizer.step(setup.grads)
        graph = setup.capture()
        kept, twin = optimizer.state_dict(), setup.twin.state_dict()
        optimizer.prepare_replay()
        graph.launch(setup.stream)
        optimizer.load_state_dict(kept)
        graph.launch(setup.stream)  # nobody has prepared it: the numbers of before are gone
        assert optimizer.step_count == 1
        setup.twin.load_state_dict(twin)
        for name, w in setup.arrays.items():
            setup.twins[name][...] = device.numpy(w)
        for _ in range(2):
            setup.twin.step(setup.write())
            optimizer.prepare_replay()
            graph.launch(setup.stream)
            setup.check()
            assert not optimizer.last.skipped


def test_a_capture_refuses_capturable_and_keeps_the_captured_step(device):
    setup = Setup(device, lr=0.1)
    optimizer = setup.optimizer
    optimizer.capturable = True
    with setup.stream:
        setup.twin.step(setup.write())
        optimizer.step(setup.grads)
        graph = setup.capture()
        setup.stream.begin_capture()
        with pytest.raises(ga.CaptureError, match="when the capture has ended"):
            optimizer.capturable = False
        setup.stream.end_capture()
        assert optimizer.capturable
        setup.twin.step(setup.write())
        optimizer.prepare_replay()
        graph.launch(setup.stream)
        setup.check()


def test_a_loss_scale_of_another_device_is_refused():
    with installed("host"):
        scale = ga.LossScale(2.0)
        w, v = (hostcupy.ndarray(np.ones(3), device=k) for k in (0, 1))
        ga.SGD(w).step(hostcupy.ndarray(np.ones(3)), grad_scale=scale)
        with pytest.raises(ga.HyperparameterError, match="device 0"):
            ga.SGD(v).step(hostcupy.ndarray(np.ones(3), device=1), grad_scale=scale)
        assert (v.host == 1).all()


def test_rows_of_one_table_are_not_those_of_another(device):
    """Two tables of one shape that take turns."""
    tables = [device.array(np.ones((5, 2))) for _ in range(2)]
    rows = ga.RowGrad(device.array(np.arange(3)), device.array(np.ones((3, 2))))
    optimizer, stream = ga.Adam(tables), device.library.cuda.Stream()
    optimizer.capturable = True
    if not captures_rows(device):
        with pytest.raises(ga.CaptureError, match="CuPy 14"):
            optimizer.step([rows, None])
        return
    with stream:
        optimizer.step([rows, None])
        stream.begin_capture()
        with pytest.raises(ga.CaptureError, match="take one such step first"):
            optimizer.step([None, rows])
        stream.end_capture()


def test_what_cannot_be_captured(device):
    setup = Setup(device)
    optimizer = setup.optimizer
    with setup.stream:
        setup.write()
        with pytest.raises(ga.CaptureError, match="capturable"):
            setup.capture()
        with pytest.raises(ga.CaptureError, match="no step has been captured"):
            optimizer.prepare_replay()
        optimizer.capturable = True
        with pytest.raises(ga.CaptureError, match="take one such step first"):
            setup.capture()
        optimizer.step(setup.grads)
        with pytest.raises(ga.CaptureError, match="take one such step first"):
            setup.capture(max_norm=1.0)
        moved = {**setup.grads, "b": device.array(np.zeros(7, np.float32))}
        optimizer.step(setup.grads)
        kept, setup.grads = setup.grads, moved
        with pytest.raises(ga.CaptureError, match="the same arrays"):
            setup.capture()
        setup.grads = kept
        optimizer.step(setup.grads)
        setup.capture()
        before = [device.numpy(w) for w in setup.arrays.values()]
        with pytest.raises(ga.CaptureError, match="unlike the captured one"):
            optimizer.step(moved)
        optimizer.param_groups[0]["weight_decay"] = 0.1
        with pytest.raises(ga.CaptureError, match="other options"):
            optimizer.prepare_replay()
        for count in (0, 513):
            with pytest.raises(ga.CaptureError, match="1 to 512"):
                optimizer.prepare_replay(count)
        after = [device.numpy(w) for w in setup.arrays.values()]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        optimizer.capturable = False
        optimizer.step(moved, clip_value=1.0)


def test_what_is_not_on_one_gpu_cannot_be_captured(device):
    for arrays in ([np.ones(3)], [np.ones(3), device.array(np.ones(3))]):
        with pytest.raises(ga.CaptureError, match="not all on one CUDA device"):
            ga.Adam(arrays).capturable = True


@pytest.mark.parametrize("kind", ["check", "gaps"])
def test_rows_that_wait_or_are_copied_cannot_be_captured(kind, device):
    wide = device.array(np.ones((8, 8), np.float32)[:, ::2])
    rows = ga.RowGrad(device.array(np.arange(8)), wide)
    settings = {"check": "raise"} if kind == "check" else {}
    optimizer = ga.Adam({"t": device.array(np.ones((9, 4), np.float32))}, **settings)
    optimizer.step({"t": rows})
    optimizer.capturable = True
    words = "raise" if kind == "check" else "gaps" if captures_rows(device) else "CuPy 14"
    with pytest.raises(ga.CaptureError, match=words):
        optimizer.step({"t": rows})


def test_a_stream_can_be_given(device):
    used, stream = [], device.library.cuda.Stream()
    w = device.array(np.ones(3))
    optimizer = ga.SGD(w, lr=lambda step: used.append(current(device)) or 0.5)
    optimizer.step(device.array(np.ones(3)), stream=stream)
    stream.synchronize()
    assert used[-1] is stream and np.array_equal(device.numpy(w), np.full(3, 0.5))


def current(device):
    return device.library.cuda.get_current_stream()
