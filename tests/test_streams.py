"""Work on several streams of a GPU, with the stand-in, whose streams queue what they are given.

What nothing orders runs late there, in an order that a test chooses.
"""

import hostcupy
import numpy as np
import pytest
from hoststreams import CudaError, Device, Stream, queued

import gpuadapt as ga
from gpuadapt.kernels.cuda import memory


@pytest.fixture(params=[True, False], ids=["oldest_first", "newest_first"])
def device(request, host):
    """The stand-in, whose null stream queues too."""
    with queued(request.param):
        yield host


@pytest.fixture
def apart(device):
    """Two streams that nothing orders."""
    return [device.library.cuda.Stream(non_blocking=True) for _ in range(2)]


# The stand-in itself.


def test_the_null_stream_and_blocking_streams_wait_for_each_other(device):
    cupy = device.library
    a, blocking = device.array(np.zeros(2)), cupy.cuda.Stream()
    a.fill(1)
    with blocking:
        a.fill(2)
    a.fill(3)
    with blocking:
        assert (a.get() == 3).all()
        a.fill(4)
    assert (a.get() == 4).all()


def test_streams_that_do_not_block_wait_for_nobody(device, apart):
    a = device.array(np.zeros(2))
    a.fill(1)
    with apart[0]:
        a.fill(2)
        assert (a.get() == 2).all()
    assert (a.get() == 1).all()
    with apart[0]:
        a.fill(3)
        event = apart[0].record()
        a.fill(4)
    apart[1].wait_event(event)
    apart[1].synchronize()
    assert (a.host == 3).all()


def test_which_stream_is_first_is_chosen(host):
    for oldest_first in (True, False):
        with queued(oldest_first):
            a = host.array(np.zeros(2))
            for value in (1, 2):
                with host.library.cuda.Stream(non_blocking=True):
                    a.fill(value)
            Device(0).synchronize()
        assert (a.host == (2 if oldest_first else 1)).all()


def test_new_arrays_hold_what_was_there_before_until_their_stream_runs(device):
    made = [device.library.zeros(3), device.library.asarray(np.ones(3)), device.library.empty(3)]
    assert not any((array.host == 0).any() or (array.host == 1).any() for array in made)
    assert (made[0].get() == 0).all() and (made[1].get() == 1).all()


def test_each_device_has_a_current_stream(device):
    with Device(1):
        other = device.library.cuda.Stream()
    with pytest.raises(RuntimeError, match=r"\(1\) does not match with the current device \(0\)"):
        other.__enter__()
    current = device.library.cuda.get_current_stream
    with Device(1), other:
        assert current() is current(1) is other and current(0) is Stream.null
        with Device(0):
            assert current() is Stream.null


def test_a_capture_refuses_what_cuda_refuses(device, apart):
    a, cupy = device.array(np.ones(2)), device.library
    free, blocking = apart[0], cupy.cuda.Stream()
    refused = [
        (blocking, lambda: a.fill(1), blocking.synchronize),
        (blocking, lambda: None, lambda: cupy.cuda.Stream.null.synchronize()),
        (blocking, lambda: None, Device(0).synchronize),
        (free, lambda: a.fill(1), free.synchronize),
        (free, lambda: None, Device(0).synchronize),
        (free, lambda: None, lambda: cupy.zeros(1)),
        (free, lambda: None, a.get),
        (free, lambda: None, lambda: free.wait_event(apart[1].record())),
        (free, lambda: None, lambda: apart[1].wait_event(free.record())),
    ]
    for stream, first, call in refused:
        with stream:
            stream.begin_capture()
            assert stream.is_capturing() and not apart[1].is_capturing()
            first()
            with pytest.raises(CudaError):
                call()
            if stream is free and call != apart[1].wait_event:
                free.queue.broken = True
            with pytest.raises(CudaError, match="invalid"):
                stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        cupy.cuda.Stream.null.begin_capture()


def test_a_graph_does_not_keep_memory(device, apart):
    kept, freed = device.array(np.zeros(2)), device.array(np.zeros(2))
    with apart[0]:
        apart[0].begin_capture()
        kept.fill(1)
        graph = apart[0].end_capture()
        graph.launch()
        assert (kept.get() == 1).all()
        apart[0].begin_capture()
        freed.fill(1)
        graph = apart[0].end_capture()
        del freed
        with pytest.raises(AssertionError, match="fills"):
            graph.launch()


# Optimizers.

START = np.linspace(-1, 1, 40).reshape(10, 4).astype(np.float32)


class Pair:
    """A table and its twin on the CPU; steps of it go to a stream of one's choice."""

    def __init__(self, device, make=ga.Adam, **settings):
        self.device, self.array, self.twin_array = device, device.array(START), START.copy()
        settings = {"lr": 0.1, **settings}
        self.optimizer = make({"w": self.array}, **settings)
        self.twin = make({"w": self.twin_array}, **settings)
        self.random = np.random.default_rng(0)
        self.kept = []

    def step(self, stream, **options):
        gradient = self.random.normal(size=START.shape).astype(np.float32)
        given = self.device.array(gradient)
        self.kept.append(given)
        self.optimizer.step({"w": given}, stream=stream, **options)
        self.twin.step({"w": gradient}, **options)

    def rows(self, stream, rows):
        values = self.random.normal(size=(len(rows), 4)).astype(np.float32)
        given = ga.RowGrad(self.device.array(np.array(rows)), self.device.array(values))
        self.kept.append(given)
        self.optimizer.step({"w": given}, stream=stream)
        self.twin.step({"w": ga.RowGrad(np.array(rows), values)})

    def check(self):
        Device(0).synchronize()
        assert np.array_equal(self.array.host, self.twin_array)


SETTINGS = {
    "plain": {},
    "initial": {"initial": {"v": 0.5}},
    "8bit": {"state_dtype": "8bit"},
    "exact": {"sparse": "exact"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_construction_comes_before_the_first_step_on_any_stream(name, device, apart):
    pair = Pair(device, **SETTINGS[name])
    pair.step(apart[0])
    pair.step(apart[1], max_norm=0.5)
    pair.step(None)
    pair.step(apart[0])
    pair.check()
    assert pair.optimizer.last == pair.twin.last


def test_a_master_comes_before_the_first_step(device, apart):
    import ml_dtypes

    start = START.astype(ml_dtypes.bfloat16)
    ours, twin = device.array(start.view(np.uint16)), start.copy()
    gradient = device.array(START)
    for made in (ga.SGD(ours, lr=0.1, master="float32"), ga.SGD(twin, lr=0.1, master="float32")):
        given = {"stream": apart[0]} if made.params["0"] is ours else {}
        made.step(gradient if given else START, **given)
    Device(0).synchronize()
    assert np.array_equal(ours.host, twin.view(np.uint16))


def test_what_is_read_has_all_that_streams_have_to_do(device, apart):
    """Each alone, after a step on a stream that the null stream does not wait for."""
    scale, twin_scale = (ga.LossScale(4.0, growth=2.0, interval=1) for _ in range(2))
    pair = Pair(device, check="skip")
    reading = {
        "skipped rows": lambda one, _: one.skipped_rows,
        "last": lambda one, _: one.last,
        "count": lambda one, _: one.step_count,
        "states": lambda one, _: numbers(one.state_dict()["state"]["w"]["m"]),
        "rates": lambda one, _: numbers(one.effective_lr("w")),
        "scale": lambda _, scale: float(scale),
        "skipped": lambda _, scale: scale.skipped,
        "scale's state": lambda _, scale: scale.state_dict(),
        "rows": lambda one, _: numbers(one.read("w", rows_of(one))),
        "stats": lambda one, _: one.stats("w"),
    }
    for name, read in reading.items():
        gradient = pair.random.normal(size=(3, 4)).astype(np.float32)
        if name == "skipped":
            gradient[0, 0] = np.inf
        rows = np.array([1, 77, 3])
        given = ga.RowGrad(device.array(rows), device.array(gradient))
        options = {"stats": ["w"]} if name == "stats" else {}
        pair.optimizer.step({"w": given}, stream=apart[0], grad_scale=scale, **options)
        given_twin = ga.RowGrad(rows, gradient)
        assert twin_scale.value  # on the CPU steps divide by what has been read last
        pair.twin.step({"w": given_twin}, grad_scale=twin_scale, **options)
        ours, theirs = read(pair.optimizer, scale), read(pair.twin, twin_scale)
        assert np.array_equal(ours, theirs) or repr(ours) == repr(theirs), name


def numbers(array):
    return array.get() if isinstance(array, hostcupy.ndarray) else array


def rows_of(optimizer):
    found = np.arange(3)
    on_gpu = isinstance(optimizer.params["w"], hostcupy.ndarray)
    return hostcupy.ndarray(found) if on_gpu else found


def test_statistics_are_of_the_step_on_its_stream(device, apart):
    """Nothing else waits for the GPU: the step is not measured."""
    pair = Pair(device)
    for stream in apart:
        pair.step(stream)
        pair.step(stream, stats=["w"])
        assert pair.optimizer.stats("w") == pair.twin.stats("w")


def test_what_is_read_has_replays_on_streams_that_gpuadapt_does_not_know(device, apart, tmp_path):
    pair = Pair(device, sparse="exact")
    rows = np.arange(3)
    for _ in range(2):  # rows that have steps to catch up with
        pair.step(apart[0])
    given = ga.RowGrad(device.array(rows), device.array(START[:3]))
    graph = captured(pair, apart[0], given, ga.RowGrad(rows, START[:3]))
    elsewhere = device.library.cuda.Stream(non_blocking=True)

    def saved(one):
        one.save(tmp_path / "file")
        return (tmp_path / "file").read_bytes()

    for read in (
        lambda one: numbers(one.state_dict()["state"]["w"]["m"]),
        lambda one: numbers(one.effective_lr("w")),
        saved,
    ):
        with apart[0]:
            pair.optimizer.prepare_replay()
        elsewhere.wait_event(apart[0].record())
        graph.launch(elsewhere)
        pair.twin.step({"w": ga.RowGrad(rows, START[:3])})
        assert np.array_equal(read(pair.optimizer), read(pair.twin))
    pair.check()


def test_what_is_written_comes_between_steps(device, apart):
    """Loads, writes, flushes, new rows and new parameters: on the null stream."""
    pair = Pair(device, sparse="exact")
    pair.rows(apart[0], [1, 2])
    kept = pair.optimizer.state_dict(), pair.twin.state_dict()
    pair.rows(apart[1], [2, 3])
    pair.optimizer.load_state_dict(kept[0])
    pair.twin.load_state_dict(kept[1])
    pair.rows(apart[0], [1, 7])
    for one in (pair.optimizer, pair.twin):
        one.write("w", START)
    pair.rows(apart[1], [4])
    for one in (pair.optimizer, pair.twin):
        one.flush()
    pair.step(apart[0])
    pair.check()


def test_tables_grow_between_steps(device, apart):
    pair = Pair(device)
    pair.step(apart[0])
    more = np.vstack([START, START])
    pair.array, pair.twin_array = device.array(more), more.copy()
    for one, array in ((pair.optimizer, pair.array), (pair.twin, pair.twin_array)):
        one.grow("w", array)
        one.add({"b": device.array(START) if array is pair.array else START.copy()})
    gradients = [{"w": np.ones_like(more)}, {"b": np.ones_like(START)}]
    pair.optimizer.step(
        [{k: device.array(g) for k, g in one.items()} for one in gradients], stream=apart[1]
    )
    pair.twin.step(gradients)
    pair.check()


def test_a_loss_scale_is_loaded_between_steps(device, apart):
    pair = Pair(device)
    scale, twin_scale = (ga.LossScale(4.0) for _ in range(2))
    pair.optimizer.step({"w": device.array(START)}, stream=apart[0], grad_scale=scale)
    pair.twin.step({"w": START}, grad_scale=twin_scale)
    for one in (scale, twin_scale):
        one.load_state_dict({"scale": 16.0, "since": 0, "skipped": 0})
        assert float(one) == 16
    pair.optimizer.step({"w": device.array(START)}, stream=apart[1], grad_scale=scale)
    pair.twin.step({"w": START}, grad_scale=twin_scale)
    pair.check()


@pytest.mark.parametrize("number", [0, 1])
def test_a_stream_of_another_device_than_the_current_one(number, device):
    with Device(1):
        stream = device.library.cuda.Stream(non_blocking=True)
        w = device.library.asarray(START)
        gradient = device.library.asarray(START)
    optimizer, twin = ga.Adam({"w": w}), START.copy()
    with Device(number):
        for _ in range(2):
            optimizer.step({"w": gradient}, stream=stream, max_norm=1.0)
        if number == 0:
            with pytest.raises(ga.BackendError, match="'w' are on device 1"):
                optimizer.step({"w": gradient}, stream=device.library.cuda.Stream())
    expected = ga.Adam({"w": twin})
    for _ in range(2):
        expected.step({"w": START}, max_norm=1.0)
    assert optimizer.last == expected.last
    Device(1).synchronize()
    assert np.array_equal(w.host, twin) and Device.current == [0]


def captured(pair, stream, gradient=None, twins=START, **options):
    """A graph of a step on a stream, after one such step."""
    gradient = pair.device.array(START) if gradient is None else gradient
    pair.kept.append(gradient)
    pair.optimizer.capturable = True
    with stream:
        pair.optimizer.step({"w": gradient}, **options)
        pair.twin.step({"w": twins}, **options)
        stream.begin_capture()
        pair.optimizer.step({"w": gradient}, **options)
        return stream.end_capture()


@pytest.mark.parametrize("where", ["both", "prepared outside", "replayed on the current stream"])
def test_a_replay_finds_its_numbers(where, device, apart):
    """On the stream that has captured it, and on the one that is current."""
    pair = Pair(device)
    stream, other = apart
    graph = captured(pair, stream, max_norm=0.5)
    for _ in range(5):
        for one in (pair.optimizer, pair.twin):
            one.param_groups[0]["lr"] *= 0.9
        if where == "both":
            with stream:
                pair.optimizer.prepare_replay()
                graph.launch()
        else:
            with other:
                pair.optimizer.prepare_replay()
                graph.launch(stream if where == "prepared outside" else other)
        pair.twin.step({"w": START}, max_norm=0.5)
    assert not pair.optimizer.last.skipped
    pair.check()
    assert pair.optimizer.step_count == 6


def test_nothing_is_prepared_while_a_stream_is_captured(device, apart):
    pair = Pair(device)
    captured(pair, apart[0])
    with apart[0]:
        apart[0].begin_capture()
        with pytest.raises(ga.CaptureError, match="when the capture has ended"):
            pair.optimizer.prepare_replay()
        with pytest.raises(ga.CaptureError, match="when the capture has ended"):
            pair.optimizer.state_dict()
        apart[0].end_capture()
        apart[0].begin_capture()
    with apart[1], pytest.raises(ga.CaptureError, match="is being captured"):
        pair.optimizer.read("w", rows_of(pair.optimizer))
    apart[0].end_capture()


def test_steps_on_the_null_stream_while_another_is_captured(device, apart):
    """CUDA refuses that if the other one is blocking; nothing has changed, and both go on."""
    first, second = Pair(device), Pair(device)
    second.step(None)
    for stream, refused in ((device.library.cuda.Stream(), True), (apart[0], False)):
        gradient = device.array(START)
        first.optimizer.capturable = True
        with stream:
            first.optimizer.step({"w": gradient})
            stream.begin_capture()
            first.optimizer.step({"w": gradient})
        if refused:
            with pytest.raises(ga.CaptureError, match="being captured"):
                second.optimizer.step({"w": gradient})
        else:
            second.step(None)
        graph = stream.end_capture()
        first.optimizer.prepare_replay()
        graph.launch(stream)
        for _ in range(2):
            first.twin.step({"w": START})
        first.check()
        second.check()


class Replaced:
    """A captured step, and what takes its place."""

    def __init__(self, device, stream):
        self.device, self.stream = device, stream
        self.optimizer = Pair(device, sparse="exact").optimizer
        self.grads = {"w": ga.RowGrad(device.array(np.arange(3)), device.array(START[:3]))}
        self.options = {"max_norm": 1.0, "skip_nonfinite": True}
        self.state = self.optimizer.state_dict()

    def capture(self):
        self.optimizer.capturable = True
        with self.stream:
            self.optimizer.step(self.grads, **self.options)
            self.stream.begin_capture()
            self.optimizer.step(self.grads, **self.options)
            return self.stream.end_capture()

    def load(self):
        self.optimizer.load_state_dict(self.state)

    def other_options(self):
        self.optimizer.capturable = False
        gradient = {"w": self.device.array(START)}
        self.optimizer.step(gradient, clip_value=1.0, stream=self.stream)

    def more_rows(self):
        self.optimizer.capturable = False
        rows, values = np.arange(400) % 7, np.ones((400, 4), np.float32)
        given = ga.RowGrad(self.device.array(rows), self.device.array(values))
        self.optimizer.step({"w": given}, **self.options, stream=self.stream)

    def grow(self):
        self.optimizer.capturable = False
        self.optimizer.flush()
        self.optimizer.grow("w", self.device.array(np.vstack([START, START])))

    def add(self):
        self.optimizer.capturable = False
        self.optimizer.add({"b": self.device.array(START)})

    def give_up(self):
        self.optimizer.capturable = True


@pytest.mark.parametrize(
    "change", ["load", "other_options", "more_rows", "grow", "add", "capture", "give_up"]
)
def test_a_stale_replay_writes_nothing(change, device, apart):
    """Neither into parameters nor into memory that has been freed; more steps are prepared."""
    given = Replaced(device, apart[0])
    graph = given.capture()
    with given.stream:
        given.optimizer.prepare_replay(3)
        graph.launch()
    getattr(given, change)()
    Device(0).synchronize()
    arrays = given.optimizer.params.values()
    before = [w.host.copy() for w in arrays], given.optimizer.step_count
    with given.stream:
        graph.launch()
    Device(0).synchronize()
    assert all(np.array_equal(w.host, then) for w, then in zip(arrays, before[0], strict=True))
    assert given.optimizer.step_count == before[1]


# Copies that are too large for CUDA to take aside.


@pytest.fixture
def pinned():
    memory._pinned.clear()
    yield memory._pinned
    memory._pinned.clear()


def test_large_copies_neither_wait_nor_read_what_has_changed(device, apart, pinned):
    """Pinned memory is read when the stream comes to it; it is used again, never too early."""
    source, targets = np.zeros(20_000), [device.array(np.zeros(20_000)) for _ in range(7)]
    for k, target in enumerate(targets):
        source[:] = k + 1
        with apart[k % 2]:
            memory.upload(target, source)
        if k == 3:
            apart[0].synchronize()
    source[:] = -1
    (kept,) = pinned.values()
    assert len(kept) == 5  # of the first four copies two are done when the fifth one comes
    for stream in apart:
        stream.synchronize()
    assert [float(target.get()[-1]) for target in targets] == [1, 2, 3, 4, 5, 6, 7]
    for _ in range(10):
        memory.upload(targets[0], source)
        device.library.cuda.Device(0).synchronize()
    assert len(kept) <= 5 and (targets[0].get() == -1).all()


def test_pinned_memory_of_other_sizes_is_given_back(device, pinned):
    for count in (10_000, 30_000, 9_000, 90_000):
        target, source = device.array(np.zeros(count)), np.arange(count, dtype=float)
        memory.upload(target, source)
        assert np.array_equal(target.get(), source)
    ((one,),) = pinned.values()
    assert one[2] == 2**20


def test_many_steps_are_prepared_from_pinned_memory(device, pinned):
    """512 rows of scalars are more than CUDA takes aside."""
    arrays = [device.array(np.ones(2, np.float32)) for _ in range(8)]
    optimizer = ga.Adam([{"params": [each], "lr": 0.1 * k} for k, each in enumerate(arrays, 1)])
    stream = device.library.cuda.Stream()
    grads = [[device.array(np.ones(2, np.float32))] for _ in arrays]
    optimizer.capturable = True
    with stream:
        optimizer.step(grads)
        stream.begin_capture()
        optimizer.step(grads)
        graph = stream.end_capture()
        optimizer.prepare_replay(512)
        for _ in range(512):
            graph.launch(stream)
    assert optimizer.step_count == 513 and pinned
    twins = [np.ones(2, np.float32) for _ in arrays]
    twin = ga.Adam([{"params": [each], "lr": 0.1 * k} for k, each in enumerate(twins, 1)])
    for _ in range(513):
        twin.step([[np.ones(2, np.float32)] for _ in twins])
    for ours, theirs in zip(arrays, twins, strict=True):
        assert np.array_equal(device.numpy(ours), theirs)
