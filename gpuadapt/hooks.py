"""Functions that an optimizer calls before and after its steps, and ranges of NVTX around them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from .arrays import describe, namespace
from .errors import BackendError, GradientError, HyperparameterError
from .step_options import StepOptions

__all__ = ["Handle", "nvtx"]

__dir__ = partial(sorted, __all__)

Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]
"""Called as ``hook(optimizer, args, kwargs)``, as torch's hooks of steps are."""

Finish = Callable[[], None]
"""Called when a step has been taken or skipped."""


class Observer(Protocol):
    """What looks at the parameters of a step, such as a `Record`."""

    def begin(
        self, optimizer: Any, grads: list[Any], options: StepOptions
    ) -> tuple[StepOptions, Finish] | None:
        """Look at a step before it is taken.

        Parameters
        ----------
        optimizer : Optimizer
        grads : list
            One for each parameter.
        options : StepOptions

        Returns
        -------
        (StepOptions, Finish) or None
            The options with which the step is to be taken, and what follows it. None for a step
            that is of no interest.
        """


class Range(NamedTuple):
    """Calls around each step, also around one that raises."""

    enter: Callable[[], object]
    leave: Callable[[], object]


class Hooks(NamedTuple):
    """What is called around each step of an optimizer."""

    ranges: tuple[Range, ...] = ()
    before: tuple[Hook, ...] = ()
    observers: tuple[Observer, ...] = ()
    after: tuple[Hook, ...] = ()

    def enter(self, optimizer: Any, grads: Any, options: Mapping[str, Any]) -> None:
        """Begin ranges, and call the hooks before a step.

        Raises
        ------
        GradientError
            A hook returned something.
        """
        for one in self.ranges:
            one.enter()
        for hook in self.before:
            result = hook(optimizer, (grads,), _given(options))
            if result is not None:
                raise GradientError(
                    f"hook {hook!r} returned {describe(result)}, expected None: a hook cannot "
                    "replace gradients, but it may write into them"
                )

    def begin(
        self, optimizer: Any, grads: list[Any], options: StepOptions
    ) -> tuple[StepOptions, list[Finish]]:
        """Let observers look; the options of the step, and what follows it."""
        finish = []
        for observer in self.observers:
            begun = observer.begin(optimizer, grads, options)
            if begun is not None:
                options = begun[0]
                finish.append(begun[1])
        return options, finish

    def call_after(self, optimizer: Any, grads: Any, options: Mapping[str, Any]) -> None:
        """Call the hooks after a step."""
        for hook in self.after:
            hook(optimizer, (grads,), _given(options))

    def leave(self) -> None:
        """End ranges."""
        for one in reversed(self.ranges):
            one.leave()


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a step that differ from their defaults."""
    return {
        name: value for name, value in options.items() if value is not None and value is not False
    }


class Handle:
    """A hook of an optimizer, until it is removed.

    It is a context, too: the hook is removed at the end of a ``with`` statement.
    """

    def __init__(self, optimizer: Any, kind: str, item: Any) -> None:
        # The optimizer may hold the handle's owner, such as a Record: a strong reference back
        # would be a cycle, which keeps arrays alive.
        self._optimizer = weakref.ref(optimizer)
        self._kind, self._item = kind, item
        self._removed = False
        with optimizer._turn.lock:
            _change(optimizer, kind, (*_of_kind(optimizer, kind), item))

    def remove(self) -> None:
        """Remove the hook from its optimizer; a second time this does nothing."""
        optimizer = self._optimizer()
        if optimizer is None or self._removed:
            return
        with optimizer._turn.lock:
            left = [*_of_kind(optimizer, self._kind)]
            del left[next(k for k, one in enumerate(left) if one is self._item)]
            _change(optimizer, self._kind, tuple(left))
            self._removed = True

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _of_kind(optimizer: Any, kind: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] = getattr(optimizer._hooks or Hooks(), kind)
    return found


def _change(optimizer: Any, kind: str, items: tuple[Any, ...]) -> None:
    hooks = (optimizer._hooks or Hooks())._replace(**{kind: items})
    # A step without hooks asks nothing but whether there are any.
    vars(optimizer)["_hooks"] = hooks if any(hooks) else None


def register(optimizer: Any, kind: str, hook: Any) -> Handle:
    """Register a hook before or after each step of an optimizer.

    Raises
    ------
    HyperparameterError
        The hook cannot be called.
    """
    if not callable(hook):
        raise HyperparameterError(
            f"hook: got {describe(hook)}, expected a function of (optimizer, args, kwargs)"
        )
    return Handle(optimizer, kind, hook)


def nvtx(optimizer: Any) -> Handle:
    """Put a range of NVTX around each step, which NVIDIA's profilers show by its name.

    The range is called "gpuadapt Adam.step", by the optimizer's class. It lasts while the host
    launches the step; the profiler shows which kernels were launched in it. It ends also if the
    step raises.

    Parameters
    ----------
    optimizer : Optimizer
        With parameters on a GPU.

    Returns
    -------
    Handle
        Its ``remove()`` ends this; it can be the context of a ``with`` statement.

    Raises
    ------
    BackendError
        No parameter is on a GPU, or it is an optimizer of gpuadapt.torch.
    """
    steps = getattr(optimizer, "_steps", None)
    if steps is None:
        raise BackendError(
            f"nvtx: got {describe(optimizer)}, expected an optimizer of gpuadapt itself; torch's "
            "profiler marks the steps of torch's optimizers by torch.autograd.profiler.emit_nvtx()"
        )
    if not steps.on_gpu:
        raise BackendError("nvtx: no parameter of the optimizer is on a GPU")
    library: Any = namespace("cuda").cuda.nvtx
    name = f"gpuadapt {type(optimizer).__name__}.step"
    push = library.RangePush
    return Handle(optimizer, "ranges", Range(lambda: push(name), library.RangePop))
