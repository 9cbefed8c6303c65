"""Files: what is saved comes back, bit for bit; what is damaged or does not fit changes nothing."""

import copy
import errno
import hashlib
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cases import KINDS
from interruptions import interrupted_at
from safetensors.numpy import load_file

import gpuadapt as ga

BF16 = ml_dtypes.bfloat16
MUTATIONS = int(os.environ.get("GPUADAPT_MUTATIONS", "2000"))
KILLS = int(os.environ.get("GPUADAPT_KILLS", "8"))


def some(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def adam(seed=0, dtype=np.float32, **more):
    return ga.Adam({"w": some((6, 8), seed, dtype), "b": some(5, seed + 1, dtype)}, lr=0.1, **more)


def picture(optimizer):
    """All that a load may change, as bytes."""
    state = optimizer.state_dict()
    arrays = {
        (name, letter): getattr(value, "tobytes", lambda value=value: value)()
        for name, entry in state["state"].items()
        for letter, value in entry.items()
    }
    params = {name: array.tobytes() for name, array in optimizer.params.items()}
    return state["step_count"], repr(state["param_groups"]), arrays, params


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_the_next_steps_are_bit_equal(case, by_numpy, tmp_path):
    one, other = ({"w": some((4, 3)), "b": some(7)} for _ in range(2))
    straight, resumed = case.optimizer(one), case.optimizer(other)
    grads = [{"w": some((4, 3), seed), "b": some(7, seed + 50)} for seed in range(11)]
    for each in grads[:3]:
        straight.step(each)
        resumed.step(each)
    resumed.save(tmp_path / "run")
    new = {name: np.zeros_like(array) for name, array in other.items()}
    after = case.optimizer(new, lr=123.0)
    assert not any(after.load(tmp_path / "run"))
    for each in grads[3:]:
        straight.step(each)
        after.step(each)
    for name in one:
        assert np.array_equal(one[name], new[name])


FORMATS = [
    (np.float64, {}),
    (np.float32, {"state_dtype": "bfloat16"}),
    (np.float32, {"state_dtype": "8bit"}),
    (BF16, {"master": "split", "state_dtype": "float16"}),
    (BF16, {"master": "float32"}),
    (np.float16, {"rounding": "kahan", "state_dtype": "8bit"}),
    (BF16, {"rounding": "stochastic"}),
]


def filled(optimizer):
    """Write random bits into all states."""
    for name, states in optimizer.state.items():
        for letter, one in states.items():
            arrays = [one.codes] if hasattr(one, "codes") else [one]
            for array in arrays:
                array[...] = np.abs(some(array.shape, len(name + letter))).astype(array.dtype)
    return optimizer


@pytest.mark.parametrize(("dtype", "settings"), FORMATS)
def test_every_format_comes_back(dtype, settings, tmp_path):
    before, after = filled(adam(dtype=dtype, **settings)), adam(5, dtype, **settings)
    before.save(tmp_path / "a")
    after.load(tmp_path / "a")
    assert picture(after) == picture(before)
    found = load_file(tmp_path / "a")
    assert found["param/w"].tobytes() == before.params["w"].tobytes()


@pytest.mark.parametrize(("dtype", "settings"), FORMATS)
def test_a_float32_run_goes_into_every_format_and_back(dtype, settings, tmp_path):
    plain, kept, back = filled(adam()), adam(5, dtype, **settings), adam(9)
    plain.save(tmp_path / "a")
    with pytest.raises((ga.StateError, ga.HyperparameterError)):
        kept.load(tmp_path / "a")
    assert not any(kept.load(tmp_path / "a", convert=True))
    kept.save(tmp_path / "b")
    assert not any(back.load(tmp_path / "b", convert=True))
    states = settings.get("state_dtype")
    tolerance = {"8bit": 0.07, None: 0.0}.get(states, 0.01)
    exact = dtype in (np.float32, np.float64) or "master" in settings
    for name in ("w", "b"):
        assert np.allclose(back.params[name], plain.params[name], rtol=0 if exact else 0.01, atol=0)
        for letter in "mv":
            one, other = back.state[name][letter], plain.state[name][letter]
            assert np.allclose(one, other, rtol=tolerance, atol=0.02 if tolerance else 0)


def test_arrays_of_any_strides_and_large_ones(tmp_path, monkeypatch):
    from gpuadapt.checkpoint import chunks

    monkeypatch.setattr(chunks, "CHUNK", 64)
    base = some((6, 10, 7))
    arrays = {
        "f": np.asfortranarray(base), "part": base.copy()[::2, 1:9:3, ::-1].T,
        "gaps": np.zeros((5, 16), np.float32)[:, ::2], "none": np.zeros((0, 3)),
        "0d": np.array(2.0),
    }  # fmt: skip
    arrays["gaps"][...] = some((5, 8))
    optimizer = ga.SGD(arrays, lr=0.1)
    optimizer.save(tmp_path / "a")
    found = load_file(tmp_path / "a")
    new = ga.SGD({name: np.zeros_like(array) for name, array in arrays.items()}, lr=0.1)
    new.load(tmp_path / "a")
    for name, array in arrays.items():
        assert np.array_equal(found[f"param/{name}"], array)
        assert np.array_equal(new.params[name], array)


def test_a_memory_map_is_saved_in_little_memory(tmp_path):
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=(25_000, 1000))
    optimizer = ga.SGD({"t": table.T}, lr=0.1)
    calls = []
    tracemalloc.start()
    optimizer.save(tmp_path / "a", progress=lambda *given: calls.append(given))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25 and calls[-1] == (table.nbytes, table.nbytes) and len(calls) > 20


def mapped(path, array):
    """A copy of an array that lies in a file."""
    found = np.memmap(path, np.uint8, "w+", shape=array.nbytes).view(array.dtype)
    found = found.reshape(array.shape)
    found[...] = array
    return found


def test_a_memory_map_is_loaded_in_little_memory(tmp_path):
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=(25_000, 1000))
    table[...] = np.arange(1000)
    table[::7] += 1
    old = ga.SGD({"t": table, "b": np.zeros(3, np.float32)}, lr=0.1)
    old.step({"t": None, "b": np.ones(3, np.float32)})
    old.save(tmp_path / "a")
    table[...] = 0
    new = ga.SGD({"t": table, "b": np.zeros(3, np.float32)}, lr=0.1)
    tracemalloc.start()
    new.load(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25 and new.step_count == 1
    assert new.params["b"].tobytes() == old.params["b"].tobytes()
    for row in (0, 6, 7, 24_999):
        assert np.array_equal(table[row], np.arange(1000) + (row % 7 == 0))


@pytest.mark.parametrize(("dtype", "settings"), FORMATS)
def test_a_memory_map_of_every_format_comes_back(dtype, settings, tmp_path):
    before, start = filled(adam(dtype=dtype, **settings)), some((6, 8), 5).astype(dtype)
    before.save(tmp_path / "a")
    params = {"w": mapped(tmp_path / "w", start), "b": some(5, dtype=dtype)}
    after = ga.Adam(params, lr=0.1, **settings)
    after.load(tmp_path / "a")
    assert picture(after) == picture(before)


def test_the_first_rows_of_a_longer_memory_map(tmp_path):
    ga.SGD({"t": some((6, 8))}, lr=0.1).save(tmp_path / "a")
    table = mapped(tmp_path / "t", some((9, 8), 1))
    left = ga.SGD({"t": table}, lr=0.1).load(tmp_path / "a", strict=False)
    assert left.longer == ["t"]
    assert np.array_equal(table, np.concatenate([some((6, 8)), some((9, 8), 1)[6:]]))


def fails(kind, data):
    """What reading some bytes does, on a disk that fails or under a user who has enough."""
    if kind == "is changed":
        return bytes(len(data))
    if kind == "is cut":
        return b""
    raise {"raises": OSError(errno.EIO, "EIO"), "is interrupted": KeyboardInterrupt()}[kind]


ENDS = [
    ("raises", ga.NotReadError), ("is cut", ga.DamagedFileError),
    ("is changed", ga.DamagedFileError), ("is interrupted", KeyboardInterrupt),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "expected"), ENDS)
def test_a_load_that_ends_while_a_memory_map_is_filled(tmp_path, monkeypatch, kind, expected):
    """It cannot be as before: steps and saves are refused until a load has mended it."""
    from gpuadapt.checkpoint import safetensors_file

    monkeypatch.setattr(safetensors_file, "CHUNK", 64)
    monkeypatch.setattr("gpuadapt.checkpoint.chunks.CHUNK", 64)
    old, new = (
        ga.Adam({"w": mapped(tmp_path / f"w{k}", some((6, 8), k)), "b": some(5, k)}, lr=0.1)
        for k in (0, 1)
    )
    grads = {"w": some((6, 8)), "b": None}
    old.step(grads)
    old.save(tmp_path / "a")
    old.save(tmp_path / "states", params=False)
    reads, read_at, before = Counter(), safetensors_file._read_at, new.params["w"].copy()

    def failing(fd, count, at):
        reads[at] += 1
        data = read_at(fd, count, at)
        # The first time they are read to compare checksums.
        return fails(kind, data) if list(reads.values()).count(2) == 2 else data

    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "_read_at", failing)
        with pytest.raises(expected):
            new.load(tmp_path / "a")
    rows = (new.params["w"] == old.params["w"]).all(axis=1)
    assert rows.any() and not rows.all() and not np.array_equal(new.params["w"], before)
    assert new.step_count == 0
    attempts = [
        lambda one: one.step(grads), lambda one: one.step(grads), lambda one: one.state_dict(),
        lambda one: one.save(tmp_path / "a"), lambda one: ga.save(tmp_path / "a", one),
    ]  # fmt: skip

    def refused(*optimizers):
        for one in optimizers:
            for attempt in attempts:
                with pytest.raises(ga.StateError, match="a load has not come to its end: 'w'"):
                    attempt(one)

    refused(new, copy.deepcopy(new), pickle.loads(pickle.dumps(new)))
    for name, changes in (("states", {}), ("a", {"params": False}), ("a", {"only": ["b"]})):
        new.load(tmp_path / name, **changes)
        refused(new)
    new.load(tmp_path / "a", only=["w"])
    new.load(tmp_path / "a")
    assert picture(new) == picture(old)
    for one in (new, old):
        one.step(grads)
    assert picture(new) == picture(old)


def test_a_half_filled_memory_map_is_mended_by_what_fits(tmp_path, monkeypatch):
    """Also where more is in the file, or the table here has more rows."""
    from gpuadapt.checkpoint import safetensors_file

    monkeypatch.setattr("gpuadapt.checkpoint.chunks.CHUNK", 64)
    ga.save(tmp_path / "a", ga.SGD({"t": some((6, 8))}, lr=0.1), extra=[1])
    new = ga.SGD({"t": mapped(tmp_path / "t", some((9, 8), 1))}, lr=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "put", lambda *_: fails("is interrupted", b""))
        with pytest.raises(KeyboardInterrupt):
            new.load(tmp_path / "a", strict=False)
    with pytest.raises(ga.StateError, match="a load has not come to its end"):
        new.step({"t": some((9, 8))})
    new.load(tmp_path / "a", strict=False)
    new.step({"t": some((9, 8))})


def test_it_moves_between_backends(host, tmp_path):
    w = some((6, 8)).astype(BF16)
    settings = {"state_dtype": "8bit", "master": "split"}
    on_cpu = filled(ga.Adam({"w": w}, **settings))
    on_gpu = ga.Adam({"w": host.array(np.zeros_like(w).view(np.uint16))}, **settings)
    on_cpu.save(tmp_path / "a")
    on_gpu.load(tmp_path / "a")
    on_gpu.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_whole_run(tmp_path):
    optimizer, scale = adam(), ga.LossScale(64.0)
    extra = {"epoch": 3, "best": float("inf"), "a/b": [np.arange(3), {"x": None}], "s": "ü"}
    ga.save(tmp_path / "a", optimizer, extra=extra, loss_scale=scale)
    new, other = adam(4), ga.LossScale(2.0)
    loaded = ga.load(tmp_path / "a", new, loss_scale=other)
    assert other.value == 64.0 and picture(new) == picture(optimizer)
    assert loaded.extra["best"] == float("inf") and loaded.extra["s"] == "ü"
    assert np.array_equal(loaded.extra["a/b"][0], np.arange(3)) and not any(loaded.left)
    before = picture(new)
    for refused in (lambda: new.load(tmp_path / "a"), lambda: ga.load(tmp_path / "a", new)):
        with pytest.raises(ga.StateError, match="loss"):
            refused()
    assert picture(new) == before
    left = new.load(tmp_path / "a", strict=False)
    assert left.unexpected == ["loss_scale", "extra"]


@pytest.mark.parametrize(
    "extra", [{1: 2}, object(), b"x", {"__array__": 1}, np.array(["x"]), {1, 2}]
)
def test_extra_values_that_cannot_be_written(extra, tmp_path):
    ga.save(tmp_path / "a", adam())
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(ga.CheckpointError, match="extra: "):
        ga.save(tmp_path / "a", adam(), extra=extra)
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_names_and_parts(tmp_path):
    before = filled(adam())
    before.save(tmp_path / "a")
    new = ga.Adam({"x": np.zeros((6, 8), np.float32), "b": np.zeros(5, np.float32)}, lr=0.1)
    with pytest.raises(ga.StateError):
        new.load(tmp_path / "a")
    assert not new.params["b"].any()
    assert not any(new.load(tmp_path / "a", only=["b"]))
    assert new.params["b"].any() and not new.params["x"].any()
    assert not any(new.load(tmp_path / "a", rename={"w": "x"}, params=False))
    assert not new.params["x"].any() and new.state["x"]["m"].any()
    with pytest.raises(ga.StateError, match="rename"):
        new.load(tmp_path / "a", rename={"y": "x"})
    with pytest.raises(ga.ParameterError, match="only"):
        new.load(tmp_path / "a", only=["w"])
    left = new.load(tmp_path / "a", strict=False)
    assert left.missing == ["x"] and left.unexpected == ["w"]


@pytest.mark.parametrize("method", [ga.SGD, ga.Adam])
def test_a_table_with_more_rows(method, tmp_path):
    method({"w": some((4, 8))}, lr=0.1).save(tmp_path / "a")
    new = method({"w": np.zeros((7, 8), np.float32)}, lr=0.1)
    with pytest.raises(ga.StateError):
        new.load(tmp_path / "a")
    assert new.load(tmp_path / "a", strict=False).longer == ["w"]
    assert np.array_equal(new.params["w"][:4], some((4, 8))) and not new.params["w"][4:].any()


def test_schedules_are_named_and_refused(tmp_path):
    with_schedule = ga.SGD({"w": some(3)}, lr=some_schedule)
    with_schedule.save(tmp_path / "a")
    with pytest.raises(ga.StateError, match="some_schedule"):
        ga.SGD({"w": some(3)}, lr=0.1).load(tmp_path / "a")
    ga.SGD({"w": some(3)}, lr=lambda step: 0.5).load(tmp_path / "a")


def some_schedule(step):
    return 0.1


def test_another_rule_is_refused(tmp_path):
    ga.SGD({"w": some(3)}, lr=0.1).save(tmp_path / "a")
    with pytest.raises(ga.StateError, match="rule"):
        ga.Adagrad({"w": some(3)}, lr=0.1).load(tmp_path / "a")


def test_torch_optimizers_are_told_where_to_go(tmp_path):
    with pytest.raises(ga.CheckpointError, match=r"torch\.save"):
        ga.save(tmp_path / "a", object())


def test_version_1_stays_readable():
    new = adam(3, BF16, state_dtype="8bit", master="split")
    assert not any(new.load(Path(__file__).parent / "golden" / "version1.safetensors"))
    expected = filled(adam(dtype=BF16, state_dtype="8bit", master="split"))
    assert picture(new) == picture(expected)


def test_a_later_version_is_refused(tmp_path):
    adam().save(tmp_path / "a")
    data = (tmp_path / "a").read_bytes().replace(b'"version":"1"', b'"version":"7"')
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ga.CheckpointError, match=r"version 7.*up to 1"):
        adam().load(tmp_path / "a")


HEADERS = [
    b"", b"\0" * 7, b"\xff" * 8, (2**62).to_bytes(8, "little") + b"{}",
    b"\2" + bytes(7) + b"{}", b"\4" + bytes(7) + b"null", b"\x0a" + bytes(7) + b'{"a":NaN }',
]  # fmt: skip


@pytest.mark.parametrize("data", [*HEADERS, b"[" * 10**6, b'"\\' * 10**6])
def test_headers_that_are_wrong(data, tmp_path):
    if len(data) > 100:
        data = len(data).to_bytes(8, "little") + data
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ga.DamagedFileError):
        adam().load(tmp_path / "a")
    assert ga.latest(tmp_path) is None


def test_damaged_files_change_nothing(tmp_path):
    source = adam()
    ga.save(tmp_path / "a", source, extra={"x": np.arange(9)})
    good, new, draw = (tmp_path / "a").read_bytes(), adam(7), random.Random(0)
    before = picture(new)
    for _ in range(MUTATIONS):
        data, kind = bytearray(good), draw.randrange(5)
        at = draw.randrange(len(data))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            data[draw.randrange(1500)] = (data[0] + draw.randrange(256)) % 256
        elif kind == 3:
            data += bytes(draw.randrange(1, 50))
        else:
            wide = draw.choice([0, 1, 2**63, 2**64 - 1, len(data), 2**31]).to_bytes(8, "little")
            data[at : at + 8] = wide
        if data == good:
            continue
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(ga.CheckpointError):
            ga.load(tmp_path / "b", new)
    assert picture(new) == before
    assert ga.latest(tmp_path) == tmp_path / "a"


def test_sizes_that_a_file_only_claims_take_no_memory(tmp_path):
    adam().save(tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    new, header = adam(4), json.loads(data[8:begin])
    other = adam(4, state_dtype="bfloat16")
    before, last = picture(new), max(header.values(), key=lambda one: one.get("data_offsets", [0]))
    start = last["data_offsets"][0]
    there = [2**38 + 1]  # a terabyte, in a file with a hole
    for shape in (
        there, [2**40], [2**61], [2**31, 2**30], [2**40, 0], [1] * 65, [0, *[2**62] * 3],
    ):  # fmt: skip
        last |= {"shape": shape, "data_offsets": [start, start + 4 * math.prod(shape)]}
        header["__metadata__"]["sha256"] = "0" * 64
        text = json.dumps(header).encode()
        text = len(text).to_bytes(8, "little") + text
        text = text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode())
        (tmp_path / "b").write_bytes(text + data[begin : begin + start + min(math.prod(shape), 99)])
        if shape is there:
            os.truncate(tmp_path / "b", len(text) + start + 4 * there[0])
        for one, changes in ((new, {}), (other, {"convert": True})):
            tracemalloc.start()
            with pytest.raises((ga.CheckpointError, ga.StateError)) as refused:
                one.load(tmp_path / "b", **changes)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2**20 and "digest" not in str(refused.value)
    assert picture(new) == before


def test_a_tensor_that_takes_the_place_of_a_count_is_refused(tmp_path):
    old, new = adam(), adam(4)
    tensors = {"state/w/updates": (np.array(2), np.dtype(np.int64))}
    old._save_file(tmp_path / "a", {}, tensors, True, 0, None)
    before = picture(new)
    with pytest.raises(ga.DamagedFileError, match="an unknown tensor 'state/w/updates'"):
        new.load(tmp_path / "a")
    assert picture(new) == before


def test_arrays_of_the_caller_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    from gpuadapt.checkpoint import safetensors_file

    def empty(shape, dtype):
        if shape == (77,):
            raise MemoryError("Unable to allocate")
        return np.zeros(shape, dtype)

    ga.save(tmp_path / "a", adam(), extra={"x": np.zeros(77)})
    new = adam(4)
    before = picture(new)
    monkeypatch.setattr(safetensors_file.np, "empty", empty)
    with pytest.raises(ga.CheckpointError, match="'extra/x' takes too much memory"):
        ga.load(tmp_path / "a", new)
    monkeypatch.undo()
    assert picture(new) == before


REFUSALS = [
    *((call, errno.ENOSPC) for call in ("open", "write", "fsync", "replace", "posix_fallocate")),
    ("open", errno.EACCES), ("replace", errno.EPERM), ("fsync", errno.EIO),
]  # fmt: skip


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize(("call", "number"), REFUSALS)
def test_the_old_file_stays_when_the_system_refuses(call, number, keep, tmp_path, monkeypatch):
    path, real = tmp_path / "a", getattr(os, call)
    adam(1).save(path)
    after = path.read_bytes()
    adam().save(path)
    before = path.read_bytes()
    kinds, names = [], {"a", "a.1", "a.2"} if keep else {"a"}
    for refusals in range(40):
        count = iter(range(100))

        def refused(*given, count=count, refusals=refusals, **named):
            if next(count) == refusals:
                raise OSError(number, os.strerror(number))
            return real(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, refused)
            try:
                adam(1).save(path, keep=keep)
                break
            except (ga.NotWrittenError, ga.NotDurableError) as raised:
                error = raised
        assert error.errno == number and {"a"} <= {*os.listdir(tmp_path)} <= names
        kinds.append(type(error))
        assert path.read_bytes() == (before if kinds[-1] is ga.NotWrittenError else after)
        adam().save(path)
    durable = call in ("open", "fsync")  # of the folder
    assert kinds[-1] is (ga.NotDurableError if durable else ga.NotWrittenError)
    assert path.read_bytes() == after and refusals < 39


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda path: path.rename(f"{path}2")])
def test_a_folder_that_vanishes_during_a_save(vanish, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    adam().save(folder / "a")
    before = (folder / "a").read_bytes()
    with pytest.raises(ga.NotWrittenError):
        adam(1).save(folder / "a", progress=lambda *_: folder.exists() and vanish(folder))
    assert not folder.exists()
    for moved in tmp_path.glob("*/a"):
        assert moved.read_bytes() == before


def test_of_two_saves_at_once_the_last_to_end_wins(tmp_path):
    path, begun = tmp_path / "a", []

    def save_another(*_):
        if not begun:
            begun.append(adam(2).save(path, keep=1))

    adam(1).save(path, keep=1, progress=save_another)
    adam(1).save(tmp_path / "one")
    adam(2).save(tmp_path / "two")
    for name, same in (("a", "one"), ("a.1", "two")):
        assert (tmp_path / name).read_bytes() == (tmp_path / same).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "a.1", "one", "two"]


def test_two_processes_may_save_to_one_path(tmp_path):
    w = np.zeros(300_000, np.float32)
    optimizer = ga.SGD({"w": w}, lr=0.1)
    ga.save(tmp_path / "a", optimizer, extra=0.0)
    command = [sys.executable, "-c", SAVES, str(tmp_path / "a")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for child in children:
            child.stdout.readline()
        time.sleep(0.1)
        for _ in range(100):
            loaded = ga.load(tmp_path / "a", optimizer)
            assert (w == loaded.extra).all()
        assert not any(child.poll() for child in children)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert loaded.extra > 0
    ga.load(tmp_path / "a.1", optimizer)


def test_folders_and_files_that_are_not_there(tmp_path):
    with pytest.raises(ga.NotWrittenError):
        adam().save(tmp_path / "none" / "a")
    with pytest.raises(ga.NotWrittenError):
        adam().save(tmp_path)
    for path in (tmp_path / "none", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(ga.NotReadError):
            adam().load(path)
    for path in (5, "", "a\0b", None):
        for call in (adam().load, adam().save):
            with pytest.raises(ga.CheckpointError):
                call(path)


def test_progress_may_end_a_save(tmp_path):
    adam().save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(ZeroDivisionError):
        adam(1).save(tmp_path / "a", progress=lambda *_: 1 / 0)
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_a_load_within_another_call_is_refused_by_its_name(tmp_path):
    optimizer = adam()
    optimizer.save(tmp_path / "a")
    for load in (optimizer.load, lambda path: ga.load(path, optimizer)):
        with pytest.raises(ga.ConcurrencyError, match=r"^load: this optimizer is in the middle"):
            optimizer.save(tmp_path / "b", progress=lambda *_, load=load: load(tmp_path / "a"))


def test_a_loss_scale_on_a_gpu_is_loaded_in_place(host, tmp_path):
    w, scale = host.array(some((6, 8))), ga.LossScale(64.0)
    optimizer = ga.SGD({"w": w}, lr=0.1)
    ga.save(tmp_path / "a", optimizer, loss_scale=scale)
    optimizer.step({"w": host.array(np.full((6, 8), np.inf, np.float32))}, grad_scale=scale)
    live = scale.value
    assert live.get() == 32.0
    ga.load(tmp_path / "a", optimizer, loss_scale=scale)
    assert live.get() == float(scale) == 64.0 and scale.skipped == 0


def test_an_interrupted_load_has_loaded_all_or_nothing(tmp_path):
    ga.save(tmp_path / "a", adam(), loss_scale=ga.LossScale(64.0))
    new, scale, other = adam(4), ga.LossScale(2.0), ga.LossScale(2.0)
    ga.save(tmp_path / "b", new, loss_scale=scale)
    pictures = {2.0: picture(new), 64.0: picture(adam())}
    line = 0
    while interrupted_at(line, lambda: ga.load(tmp_path / "a", new, loss_scale=scale)):
        assert picture(new) == pictures[scale.value]
        ga.load(tmp_path / "b", new, loss_scale=other)
        scale.load_state_dict({"scale": 2.0, "since": 0})
        line += 7
    assert line > 100 and picture(new) == pictures[scale.value]


def test_older_files_are_kept(tmp_path):
    for seed in range(4):
        adam(seed).save(tmp_path / "a", keep=2)
    assert sorted(os.listdir(tmp_path)) == ["a", "a.1", "a.2"]
    for name, seed in (("a", 3), ("a.1", 2), ("a.2", 1)):
        assert np.array_equal(load_file(tmp_path / name)["param/b"], some(5, seed + 1))
    assert ga.latest(tmp_path) == tmp_path / "a"
    os.truncate(tmp_path / "a", 200)
    assert ga.latest(tmp_path) == tmp_path / "a.1"


def test_the_newest_of_two_names_of_one_file(tmp_path):
    """A save that is killed while it keeps an older file leaves them."""
    adam().save(tmp_path / "a")
    for number in range(1, 12):
        os.link(tmp_path / "a", tmp_path / f"a.{number}")
    assert ga.latest(tmp_path) == tmp_path / "a"
    (tmp_path / "a").unlink()
    assert ga.latest(tmp_path).name == "a.9"  # other names: there is no "a"


SAVES = """
import sys, numpy as np, gpuadapt as ga
w = np.zeros(300_000, np.float32)
optimizer = ga.SGD({"w": w}, lr=0.1)
print("begun", flush=True)
while True:
    w += 1
    ga.save(sys.argv[1], optimizer, extra=float(w[0]), keep=1)
"""


def test_a_killed_save_leaves_the_last_file(tmp_path):
    draw, last = random.Random(1), 0.0
    w = np.zeros(300_000, np.float32)
    optimizer = ga.SGD({"w": w}, lr=0.1)
    path, old = tmp_path / "a", tmp_path / "old"
    ga.save(path, optimizer, extra=0.0)
    for _ in range(KILLS):
        command = [sys.executable, "-c", SAVES, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(draw.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
        loaded = ga.load(path, optimizer)
        assert (w == loaded.extra).all() and loaded.extra >= 0
        assert ga.latest(tmp_path) == path
        last = max(last, loaded.extra)
    ga.save(path, optimizer)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] and not old.exists()
    assert last > 0
