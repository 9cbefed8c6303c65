"""Steps of `gpuadapt.torch` beside torch's own, each right after other work of torch's threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.benchmark import draws, traffic
from gpuadapt.benchmark.candidates import HYPER, Make, MakeRows
from gpuadapt.benchmark.draws import normal, over_batches
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.threads import limited
from gpuadapt.benchmark.timing import Times, interleaved, ratio
from gpuadapt.kernels import rules

from . import overhead, peers, rows, torch_losses, update

RUNS, SECONDS = 7, 0.1
"""Turns of each candidate at most, and about how long one lasts, the work in between included."""

THREADS = 2
BUSY = 512
"""Rows and columns of the matrices whose product comes before each step that is timed."""

SMALL = 6
MANY = 1_000

Shape = tuple[int, ...]


class Arrays(NamedTuple):
    """Parameters of one step."""

    method: str
    label: str
    shapes: tuple[Shape, ...]

    @property
    def name(self) -> str:
        return f"{self.method}, {self.label}"


class Table(NamedTuple):
    """A table of `nn.Embedding(sparse=True)`, and how many rows a batch reads."""

    method: str
    rows: int = 100_000
    width: int = 64
    batch: int = 4_096

    @property
    def name(self) -> str:
        return f"sparse {self.rows_case.name}"

    @property
    def rows_case(self) -> rows.Case:
        return rows.Case(self.method, self.rows, self.width, self.batch)


Case = Arrays | Table | torch_losses.Case


def cases(quick: bool) -> list[Case]:
    """Lists of parameters of known models, many and few small tensors, tables, and final losses."""
    if peers.torch.library() is None:
        return []
    large: list[Case] = [
        Arrays("adam", "ResNet-18, 62 tensors, 11.7M", resnet()),
        Arrays("adam", "a transformer, 150 tensors, 18.8M", transformer()),
    ]
    return [
        Arrays("adam", "an MLP, 6 tensors, 0.12M", layers(100, 256, 256, 100)),
        Arrays("adam", "1,000,000 elements", ((1_000, 1_000),)),
        *([] if quick else large),
        Arrays("adam", "1,000 x 1,000", ((1_000,),) * MANY),
        Arrays("adam", f"{SMALL} x 100", ((100,),) * SMALL),
        Arrays("adam", "1,000 x 1", ((1,),) * MANY),
        *(
            Arrays(method, "402 small tensors", layers(*[32] * 202))
            for method in ("adam", "rmsprop", "adagrad", "adadelta")
        ),
        *(Table(method) for method in ("adam", "adagrad")),
        *torch_losses.cases(quick),
    ]


def run(case: Case, backend: str, rounds: int) -> dict[str, Any]:
    """As `update.run`, with "figures": entries as those of the suite "overhead"."""
    if backend != "cpu":
        raise ValueError(f"the suite torch: got the backend {backend!r}, and it runs on the CPU")
    with limited(THREADS):
        if isinstance(case, torch_losses.Case):
            return torch_losses.run(case)
        measure: Any = _arrays if isinstance(case, Arrays) else _table
        return measure(case, min(rounds, RUNS))  # type: ignore[no-any-return]


def _arrays(case: Arrays, runs: int) -> dict[str, Any]:
    """Check every candidate, then time a step of each in turns."""
    errors: Errors = {}
    makers = candidates(case.method)
    sizes = tuple(math.prod(shape) for shape in case.shapes)
    first = update.check(makers, update.Case(case.method, sizes, case.label), "cpu", errors)
    draw = normal("cpu", 0)
    parameters, gradients = ([draw(shape) for shape in case.shapes] for _ in range(2))
    steps: dict[str, Callable[[], Any]] = {}
    for name in first:
        with noted(errors, name):
            trainer = makers[name](parameters, HYPER[case.method])
            trainer.load(gradients)
            trainer.step()
            steps[name] = trainer.step
    own = sizes == (1,) * MANY
    if own:
        with noted(errors, "kernel"):
            steps["kernel"] = kernel_alone(len(sizes))
    times = interleaved(steps, "cpu", runs, SECONDS, errors, before=busy())
    each = traffic.element(getattr(rules, case.method), np.dtype(np.float32))
    shared = {
        "case": case.method,
        "size": sum(sizes),
        "arrays": len(sizes),
        "bytes": sum(sizes) * each,
    }
    result = _result(case.name, times, first, errors) | shared
    if own and {"gpuadapt", "kernel"} <= set(times):
        result["figures"].append(_above_the_kernel(case.name, times, len(sizes)))
    if len(sizes) == SMALL and "gpuadapt" in times:
        seconds = times["gpuadapt"]["median"]
        result["figures"].append({"name": f"{case.name}: a step", "value": seconds, "unit": "s"})
    return result


def _table(case: Table, runs: int) -> dict[str, Any]:
    """The gradients are not coalesced, as autograd gives them."""
    errors: Errors = {}
    makers = row_candidates(case.method)
    first = rows.check(case.method, "cpu", makers, errors)
    random, draw = np.random.default_rng(0), normal("cpu", 0)
    drawn = [rows.draw(case.rows_case, random) for _ in range(draws.BATCHES)]
    batches = [(numbers, draw((case.batch, case.width))) for numbers in drawn]
    start, steps = draw((case.rows, case.width)), {}
    for name in first:
        with noted(errors, name):
            steps[name] = over_batches(makers[name](start, batches, HYPER[case.method]).step)
    times = interleaved(steps, "cpu", runs, SECONDS, errors, before=busy())
    touched = round(float(np.mean([np.unique(numbers).size for numbers in drawn])))
    rule = getattr(rules, case.method)
    moved = traffic.rows(rule, np.dtype(np.float32), case.width, case.batch, touched)
    shared = {"case": case.method, "size": touched * case.width, "bytes": moved}
    return _result(case.name, times, first, errors) | shared


def _result(
    name: str, times: dict[str, Times], first: dict[str, float], errors: Errors
) -> dict[str, Any]:
    """What all cases have, with our share of each rival's time as figures."""
    for candidate in times.keys() & first.keys():
        times[candidate]["first"] = first[candidate]
    figures = [
        {
            "name": f"{name}: over {rival}'s time",
            "value": ratio(times, "gpuadapt", rival),
            "unit": "x",
        }
        for rival in times
        if "gpuadapt" in times and rival not in ("gpuadapt", "kernel")
    ]
    result = {"name": name, "backend": "cpu", "threads": THREADS, "times": times}
    return result | {"figures": figures} | ({"errors": errors} if errors else {})


def _above_the_kernel(name: str, times: dict[str, Times], count: int) -> dict[str, Any]:
    """What a step costs for each tensor beside the call of the kernel."""
    added = (times["gpuadapt"]["median"] - times["kernel"]["median"]) / count
    return {"name": f"{name}: above the kernel, each tensor", "value": added, "unit": "s"}


def candidates(method: str) -> dict[str, Make]:
    """`gpuadapt.torch` first, then torch's three ways, those that it has for the method."""
    import gpuadapt.torch

    theirs = peers.torch.makers(method, "cpu")
    kind = peers.torch.CLASSES[method]
    make = partial(peers.torch.make, method=method, device="cpu")

    def of(module: Any) -> Make:
        return lambda start, hyper: make(getattr(module, kind), start=start, hyper=hyper)

    found = {"gpuadapt": of(gpuadapt.torch)}
    found |= {name: theirs[name] for name in ("torch fused", "torch foreach") if name in theirs}
    return found | {"torch default": of(peers.torch.library().optim)}


def row_candidates(method: str) -> dict[str, MakeRows]:
    """The class of `gpuadapt.torch` beside torch's own that takes sparse gradients."""
    import gpuadapt.torch

    theirs = peers.torch.row_makers(method, "cpu")
    kind = getattr(gpuadapt.torch, {"adam": "SparseAdam", "adagrad": "Adagrad"}[method])
    return {"gpuadapt": partial(peers.torch.make_rows, kind, method, "cpu")} | theirs


def busy() -> Callable[[], Any]:
    """A product of two matrices by torch, of about a millisecond."""
    torch = peers.torch.library()
    one, other = torch.ones(BUSY, BUSY), torch.ones(BUSY, BUSY)
    return lambda: one @ other


def kernel_alone(count: int) -> Callable[[], None]:
    """A call of Adam's kernel on so many arrays of one element, by gpuadapt's own route."""
    tensors = [[np.ones(1, np.float32) for _ in range(4)] for _ in range(count)]
    return overhead.adam_alone("cpu", tensors, [0.9, 0.1, 0.999, 0.001, 1.0, 1.0, 1e-3, 1e-8])


def layers(*widths: int) -> tuple[Shape, ...]:
    """Weights and biases of linear layers."""
    found: list[Shape] = []
    for before, after in itertools.pairwise(widths):
        found += [(after, before), (after,)]
    return tuple(found)


def resnet() -> tuple[Shape, ...]:
    """The parameters of a ResNet-18 for 1,000 classes."""
    found: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for first in (True, False):
            shapes = [(width, before, 3, 3), (width, width, 3, 3)]
            if first and width != before:
                shapes.append((width, before, 1, 1))
            for shape in shapes:
                found += [shape, (width,), (width,)]
            before = width
    return (*found, (1_000, 512), (1_000,))


def transformer() -> tuple[Shape, ...]:
    """The parameters of a decoder of 12 layers: embeddings, attention, feed-forward, norms."""
    width, words, places = 320, 6_000, 512
    norm: list[Shape] = [(width,), (width,)]
    attention: list[Shape] = [(3 * width, width), (3 * width,), (width, width), (width,)]
    layer = [*norm, *attention, *norm, *layers(width, 4 * width, width)]
    ends: list[Shape] = [(words, width), (places, width), *norm, (words, width), (words,)]
    return (*layer * 12, *ends)
