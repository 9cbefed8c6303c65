"""`Optimizer`: parameters, state and `step`; the same for every rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from gpuadapt.kernels.language.rule import Rule

from .arrays import check_disjoint, describe
from .construct import Built, are_groups, build, gradient_templates, summary
from .effects import check_effects
from .errors import BackendError, CaptureError, ParameterError, RuleError, StateError
from .gradients import check_gradient, numbers_of, row_numbers
from .group import Group
from .growth import grown
from .hyperparameters import (
    SETTINGS,
    Hyperparameter,
    check_initial,
    check_known,
    check_rule,
    expand,
    number,
)
from .parameter import Parameter
from .passed import Held, Passed, all_held, held, look, portable, unchanged
from .state import Left, examined, plan, restore, snapshot
from .stats import Stats, watch
from .step_options import StepOptions, StepResult, check_step_options
from .steps import Steps
from .suggest import READ_ONLY, attribute, options, setting
from .sums import added
from .tree import Branch, Place, flatten, taken


class Params(dict[str, Any]):
    """Arrays by name, to be read: what is put there instead of an array would not be updated."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ParameterError(
            "params: it shows which arrays are updated, and cannot be changed. Write into an array "
            "(params[name][...] = new); for more parameters there is `add`, for more rows `grow`"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class Optimizer:
    """Updates arrays in place with a rule, all of them in one fused kernel.

    Parameters
    ----------
    rule : Rule
        A rule of `gpuadapt.rules`, or your own (see `gpuadapt.rule`).
    params : array, or dict, list, tuple or iterator of arrays, or of such; or list of groups
        NumPy or CuPy arrays of float32, float64, float16 or bfloat16 (`ml_dtypes`; on a GPU
        also its bits as uint16), of any shape and strides; they are updated where they are, on
        the backend and device where they live. An array is called by its path: keys, fields of
        named tuples and positions, such as "encoder.0.w"; "0" if it is alone. Pairs of name and
        array, in a list or from an iterator, are as a dict. A group is a dict with "params"
        (any of the former) and hyperparameters of its own; positions in it count from the
        number of arrays in the groups before.
    weight_decay : float or schedule, >= 0
        Weight decay; 0 for none.
    decay : {"l2", "decoupled", "absolute", "after"}
        "l2" adds ``weight_decay p`` to the gradient. The others subtract from the parameter:
        "decoupled" ``lr weight_decay p`` before the update (Loshchilov & Hutter 2019),
        "absolute" ``weight_decay p`` before it, "after" ``lr weight_decay p`` of the new
        parameter after it. To exclude parameters, put them in a group with weight_decay 0.
    maximize : bool
        Ascend instead of descend.
    rowwise : bool
        Keep one second moment for each row (an index of the first dimension) instead of one
        for each element: the mean of the squares over the row takes the place of the square.
        For rules that square nothing but the gradient (see docs/combinations.md). Cannot be
        changed later.
    max_row_norm : float or schedule, > 0
        Each row of a gradient, its duplicates merged, is scaled down to this Euclidean norm
        if it has a larger one, before weight decay. Norms are float64 numbers: a row whose
        norm overflows becomes zero.
    check : {"raise", "skip"} or None
        What to do about rows of a `RowGrad` that are not in the table: raise `RowIndexError`,
        or leave them out and count them. None is "raise" on the CPU and "skip" on a GPU,
        where "raise" waits for the GPU in every step.
    initial : mapping of str to float, optional
        What every element of a state is before the first step, by the rule's letter; 0 for
        those left out. Numbers, and the same in every group.
    state_dtype : {"float64", "float32", "bfloat16", "float16", "8bit"}, or a dict, optional
        How states are kept, all of them or by the rule's letter; by default in float32 (float64
        for parameters of float64), in which all arithmetic is done whatever is kept. 16 and 8
        bits are rounded stochastically: a running mean changes by less than they can hold.
        "float16" leaves squares in bfloat16, unless they are named: most lie below its smallest
        number, 6e-8. "8bit" has a scale for each block of up to 256 elements, within one row if
        rows have at least 8. States that the rule's lines do not show to bear fewer bits are kept
        in more, and refused if they are named (see docs/formats.md).
    master : {"float32", "split"}, optional
        For parameters of 16 bits: keep a float32 copy, which is what is updated, or (of
        bfloat16) the 16 bits that are missing, so that the two are that float32 number.
    rounding : {"nearest", "stochastic", "kahan"}
        How parameters of 16 bits are rounded without a master. To the nearest, updates below
        half of the last place are lost, all of them; stochastically, they are right in the mean;
        "kahan" keeps what rounding left out in 16 more bits.
    seed : int, >= 0
        Of random bits, which depend on it, the parameter's name, its number of updates and the
        element, and on nothing else.
    sparse : {"lazy", "exact"}
        What rows that do not occur in a `RowGrad` do: nothing, or what a zero gradient makes them
        do. Exact rows take the steps that they have missed when they occur again, or are read:
        see `read` and `flush`, and docs/exact_rows.md. Arrays hold them as they were last.
    exactness : {"close", "bits"}
        Of exact rows. "close": many missed steps at once, where the rule allows it. The largest
        distance of a table from what dense steps in float64 make of it is then no more than 4
        above that of dense steps in float32, in units in the last place of the largest magnitude
        that an element has had on the way: for every rule, schedule and number of missed steps.
        "bits": each step, with the bits of dense steps.
    **hyperparameters : float or schedule
        Those of the rule; numbers of NumPy's, and arrays of one, are copied. A schedule is a
        function of the step, counted from 0, that returns the value for that step: it is called
        once for each, in order, from the first step on, and may keep a state. A step that was
        skipped or refused, taken again, has the same value; a loaded optimizer calls anew.
        ``betas=(b1, b2)`` is short for ``beta1=b1, beta2=b2``.

    Attributes
    ----------
    param_groups : tuple of dict
        Hyperparameters by name, and "params", the names of the group's parameters. May be
        changed between steps.

    Raises
    ------
    ParameterError, HyperparameterError, BackendError, RuleError
        With the parameter's or hyperparameter's name, what was given, what was expected.

    Notes
    -----
    Memory of states larger than 4 MB is taken as rows are first updated: 4 kB or a little more for
    each on Linux. Dense gradients, ``initial`` values, a snapshot that is loaded and the scales of
    8 bits (one float32 for each row and 256 elements) take all of it.

    Coefficients that depend on the step are computed in float64 on the host. Bias
    correction counts the updates of each parameter: one that had no gradient in a step
    is, bits and count, as if that step had not been.

    A new state whose magnitude is below the smallest normal number of the arithmetic's type
    (1.2e-38 in float32, 2.2e-308 in float64) becomes +0; parameters keep such numbers.
    """

    rule: Rule
    _parameters: dict[str, Parameter]
    _groups: list[Group]
    _steps: Steps
    _stats: dict[str, Stats]
    _built: Built
    _template: Place
    _names: Branch
    _passed: list[Passed]

    def __init__(
        self,
        rule: Rule,
        params: Any,
        *,
        weight_decay: Hyperparameter = 0.0,
        decay: str = "l2",
        maximize: bool = False,
        rowwise: bool = False,
        max_row_norm: Hyperparameter = math.inf,
        check: str | None = None,
        initial: Mapping[str, float] | None = None,
        state_dtype: str | Mapping[str, str] | None = None,
        master: str | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        sparse: str = "lazy",
        exactness: str = "close",
        **hyperparameters: Any,
    ) -> None:
        if not isinstance(rule, Rule):
            raise RuleError(f"rule: got {rule!r}, expected a function decorated with @rule")
        common: dict[str, Any] = {
            "weight_decay": weight_decay,
            "decay": decay,
            "maximize": maximize,
        }
        common |= {"rowwise": rowwise, "max_row_norm": max_row_norm, "check": check}
        common |= {"state_dtype": state_dtype, "master": master, "rounding": rounding}
        common |= {"seed": seed, "sparse": sparse, "exactness": exactness}
        common |= expand(hyperparameters)
        check_rule(rule)
        known = (*rule.hyperparameters, *SETTINGS)
        check_known(hyperparameters, (*known, "lr", "betas"), options(type(self)))
        self.rule = rule
        self._common, self._initial = common, check_initial(rule, initial or {})
        self._stats = {}
        self._held: Held | None = []
        self._grown: frozenset[str] = frozenset()
        nothing = Built([], [], {})
        self._put(self._joined(params, common, nothing, []), Steps([], []))

    def _joined(
        self, params: Any, common: Mapping[str, Any], before: Built, passed: list[Passed]
    ) -> dict[str, Any]:
        """What is this optimizer's with more parameters; nothing of it is put in place."""
        params = taken(params)
        built = build(self.rule, params, common, self._initial, before)
        check_effects([group.settings for group in built.groups], list(built.parameters.values()))
        new = slice(len(before.groups), None)
        for group in built.groups[new]:
            group.check()
        template, names = gradient_templates(built, bool(before.groups) or are_groups(params))
        watched = None if self._held is None else self._held + held(params)
        return {
            "_built": built, "_template": template, "_names": names, "_groups": built.groups,
            "_parameters": built.parameters, "_held": watched,
            "_passed": [*passed, Passed(params, built.templates[new])],
        }  # fmt: skip

    def _put(self, parts: dict[str, Any], steps: Steps) -> None:
        """Make all of it this optimizer's at once, with steps that go on from others."""
        parameters = list(parts["_parameters"].values())
        vars(self).update(parts | {"_steps": steps.renewed(parameters, parts["_groups"])})

    def __setattr__(self, name: str, value: Any) -> None:
        # `optimizer.lr = x` would change nothing.
        kind = type(self)
        if not name.startswith("_") and not any(name in vars(of) or
                name in getattr(of, "__annotations__", {}) for of in kind.__mro__):  # fmt: skip
            settings = [name for group in vars(self).get("_groups", ()) for name in group.settings]
            own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
            if own or setting(name, settings):
                raise AttributeError(attribute(kind, name, settings))
        elif name in READ_ONLY:
            raise AttributeError(attribute(kind, name, ()))
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        self._steps.sync_counts()  # before the parameters are copied
        self.flush()
        return self.__dict__ | {"_passed": portable(self._passed, self._held), "_held": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._held = all_held(self._passed)

    def __copy__(self) -> Optimizer:
        raise StateError(
            "copy.copy: both would update the same arrays, and count in one place; "
            "copy.deepcopy copies the arrays too (see `params`)"
        )

    def _look(self) -> None:
        """See whether what was passed as params still holds the parameters.

        Raises
        ------
        ParameterError
        """
        passed, now = look(self._passed, self.params, self._grown)
        vars(self).update(_passed=passed, _held=now, _grown=frozenset())

    def step(
        self,
        grads: Any,
        *,
        grad_scale: Any = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        stream: Any = None,
        stats: Sequence[str] = (),
    ) -> None:
        """Update every parameter that has a gradient, in place.

        Everything is checked before anything is written: a step that raises has changed
        nothing. Gradients are divided by ``grad_scale``, checked, measured, clipped by norm
        and then by value; weight decay and the rule see what comes of that.

        Parameters
        ----------
        grads
            The structure of ``params`` with a gradient for each array: of its shape, on its
            device, of any type that parameters have, with any strides; or None where there is
            no gradient; or a `RowGrad`, where only some rows have one; or a list or tuple of
            these, which add up (see `RowGrad`). Lists, tuples and iterators stand for each
            other, and None for a whole part without gradients. A dict of name to gradient always
            works. With groups: a list, with the structure of each group's params; if these are
            dicts, also one dict with the keys of all. A gradient shares no memory with a
            parameter or a state.
        grad_scale : float > 0, LossScale, int * LossScale, or CuPy array of one float32, optional
            What the loss was multiplied by: gradients are divided by it.
        max_norm : float > 0, optional
            Largest Euclidean norm of all gradients together, with the duplicates of rows
            merged: gradients of a larger one are multiplied by ``max_norm / norm`` (Pascanu et
            al. 2013, algorithm 1). Infinity for the norm alone; see `last`.
        clip_value : float > 0, optional
            Each element of a gradient is brought between -clip_value and clip_value.
        skip_nonfinite : bool
            Change nothing, parameters, states and counts, if a gradient is not finite (or, in
            float64, beyond 1e145), or if, divided by the scale and clipped, it is too large to be
            squared by a rule that squares (in float32 from 2**64, about 1.8e19). Always so with a
            `LossScale`.
        stream : cupy.cuda.Stream, optional
            Where to launch; the current one by default.
        stats : sequence of str
            Names of parameters that `stats` is to be asked about: they and their states are
            copied to the host, which takes many times as long as the step.

        Raises
        ------
        GradientError, HyperparameterError
        ParameterError
            A parameter has been made read-only; or the dict or list that was passed as ``params``
            holds another array now.
        RowIndexError
            Names the first row that is not in its table, and its position.
        """
        if self._held is None or not unchanged(self._held):
            self._look()
        given = flatten(self._template, self._names, grads)
        asked = check_step_options(grad_scale, max_norm, clip_value, skip_nonfinite)
        if stats:
            self._watched(stats, given, lambda: self._take(given, asked, stream))
        else:
            self._take(given, asked, stream)

    def _take(self, given: list[Any], asked: StepOptions, stream: Any) -> None:
        if stream is None:
            self._steps.take(given, asked)
        elif not hasattr(stream, "ptr"):
            raise BackendError(f"stream: got {describe(stream)}, expected a cupy.cuda.Stream")
        else:
            with stream:
                self._steps.take(given, asked)

    def _watched(self, names: Sequence[str], given: list[Any], step: Callable[[], None]) -> None:
        """Take a step, and keep what it did to some parameters."""
        grads = dict(zip(self._parameters, given, strict=True))
        watching = {}
        for name in names:
            parameter = self._parameter(name)
            parameter.flush()
            grad = grads[name]
            grad = added(parameter, grad) if isinstance(grad, (list, tuple)) else grad
            if grad is not None:
                check_gradient(parameter, grad)
                used = partial(self._steps.last_coefficients, name)
                rate = partial(self._rate, parameter)
                watching[name] = watch(parameter, grad, used, rate)
        step()
        skipped = self.last is not None and self.last.skipped
        self._stats = {} if skipped else {name: done() for name, done in watching.items()}

    def add(self, params: Any, **settings: Any) -> None:
        """Add parameters, in the midst of training: layers made later, or trained from now on.

        Their states start as new, and their updates count from here; others go on as they are.
        Gradients come in a list then, with the structure of each group's params, or in a dict by
        name; where all groups have dicts, also in one dict with the keys of all.

        Parameters
        ----------
        params
            As of `Optimizer`. What goes by position counts from the number of arrays before.
        **settings
            Hyperparameters and settings of the new group; by default those that the optimizer was
            made with.

        Raises
        ------
        ParameterError, HyperparameterError, BackendError
            As when an optimizer is made; a name that is there already. Nothing has changed then.
        CaptureError
            Steps are captured.
        """
        self._check_not_captured("add")
        common = self._common | expand(settings)
        parts = self._joined(params, common, self._built, self._passed)
        self._put(parts, self._steps)

    def grow(self, name: str, array: Any) -> None:
        """Give a table more rows: ``array`` becomes the parameter.

        Its first rows are those of the table; copy the weights there, nobody else does (with
        ``sparse="exact"`` after a `flush`). Their states go on, and the table's count of updates
        with them; states of the new rows start as new. Random bits and blocks of 8 bits go by an
        element's place, so they stay. Where such blocks go on through rows, the last one with old
        elements is rounded anew if a new element needs a larger scale.

        Parameters
        ----------
        name : str
            The parameter's name.
        array : array, shape (as many rows or more, \\*row shape)
            Of the table's element type, on its device. If a dict or list that was passed as
            ``params`` is to be watched further, put the array there before the next step.

        Raises
        ------
        ParameterError
            No such table; not such an array. Nothing has changed then.
        CaptureError
            Steps are captured.
        """
        self._check_not_captured("grow")
        parameter = self._parameter(name)
        self._steps.sync_counts()
        settings = self._groups[parameter.group].settings
        new = grown(parameter, array, self.rule, settings, self._initial)
        parameters = {**self._parameters, name: new}
        check_disjoint((one.name, one.backend, one.array) for one in parameters.values())
        parts: dict[str, Any] = {"_parameters": parameters, "_groups": self._groups}
        parts |= {"_grown": self._grown | {name}, "_held": None}
        self._put(parts | {"_built": self._built._replace(parameters=parameters)}, self._steps)

    def _check_not_captured(self, name: str) -> None:
        if self.capturable:
            raise CaptureError(f"{name}: steps are captured; set `capturable` to False before")

    @property
    def capturable(self) -> bool:
        """Whether a step may be captured in a CUDA graph (``stream.begin_capture()``).

        Set it before the step that is taken before capturing. From then on a step neither
        waits for the GPU nor needs new memory, if it is like the step before: gradients are
        the same arrays, written anew, and options are the same. Call `prepare_replay` before a
        captured step is replayed. Once a step has been captured, other steps are refused;
        setting ``capturable`` again gives the captured step up.

        Raises
        ------
        CaptureError
            When set, if the parameters are not all on one CUDA device; by `step`, if it
            cannot be captured: nothing has been launched then.
        """
        return self._steps.capturable

    @capturable.setter
    def capturable(self, value: bool) -> None:
        self._steps.capturable = value

    def prepare_replay(self, count: int = 1) -> None:
        """Make the coefficients of the next steps, for a captured step that will be replayed.

        They are those of the hyperparameters as they are now, and of the schedules; ``max_norm``
        and ``max_row_norm`` stay as they were captured. A replay without coefficients writes
        nothing, and `last` says that it was skipped.

        Parameters
        ----------
        count : int, 1 to 512
            How many replays will follow. It does not wait for the GPU, unless more than 512
            replays may be under way.

        Raises
        ------
        CaptureError, HyperparameterError
        """
        self._steps.prepare_replay(count)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which training resumes exactly, bit for bit.

        Returns
        -------
        dict
            "version", "rule" and "digest" (its name, and what tells its formulas from others),
            "step_count", "param_groups" (schedules are left out: they are code) and "state": for
            each parameter its "updates" and copies of its state arrays, where they live.
        """
        self.flush()
        return snapshot(self.rule, self._steps.sync_counts(), self._groups, self._parameters)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Left:
        """Take over a snapshot of `state_dict`, made on either backend.

        Everything is checked before anything is changed. Groups, and parameters in a group, may be
        in another order; parameters belong together by name.

        Parameters
        ----------
        state : dict
        strict : bool
            False: take over what fits, and leave other parameters and settings as they are: by
            name, shape and element type. Of a table that has more rows than in the snapshot, the
            first rows are taken over.

        Returns
        -------
        Left
            (missing, unexpected, mismatched, longer, settings, reasons): names of what was left,
            and why; nothing with ``strict``.

        Raises
        ------
        StateError
            Of another rule, other parameters, other shapes or element types; of another rule also
            without ``strict``.
        HyperparameterError
            With settings that this optimizer cannot have, such as another ``rowwise``.
        """
        if not isinstance(strict, bool):
            raise StateError(f"strict: got {strict!r}, expected a bool")
        self._steps.sync_counts()
        taken, left = plan(examined(state, self.rule), self._groups, self._parameters, strict)
        try:
            restore(taken, self._groups, self._parameters)
            self._steps.restart(taken.step_count)
        except BaseException:  # an interrupt, or no memory: half a snapshot would be worse
            restore(taken, self._groups, self._parameters)
            self._steps.restart(taken.step_count)
            raise
        return left

    @property
    def step_count(self) -> int:
        """Steps taken, without those that were skipped; may wait for a GPU that skips some."""
        return self._steps.count

    @property
    def last(self) -> StepResult | None:
        """What became of the last step; waits for a GPU. None before the first.

        Returns
        -------
        StepResult or None
            (grad_norm, clip_factor, skipped): the norm of all gradients, unscaled, as a
            float64 number that does not depend on threads, backend or the parameters' order,
            or None if the step had no use for it; what ``max_norm`` made the gradients be
            multiplied by, 1 for nothing; whether ``skip_nonfinite`` left everything as it was.
        """
        return self._steps.last

    @property
    def skipped_rows(self) -> int:
        """Rows of gradients that were not in their tables and were left out (``check="skip"``).

        Counts every occurrence since the optimizer was made. Waits for the GPU.
        """
        return sum(parameter.skipped_rows for parameter in self._parameters.values())

    @property
    def params(self) -> Params:
        """The arrays that are updated, by name: those that were given, or a copy's own.

        Arrays and their optimizer stay together if they are copied or pickled together:
        ``copy.deepcopy((arrays, optimizer))``. A copy of the optimizer alone has copies of the
        arrays, which are found here.
        """
        return Params({name: parameter.user_array for name, parameter in self._parameters.items()})

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        return tuple(group.settings for group in self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """The state arrays themselves, by parameter and by the rule's letters; read-only maps."""
        return MappingProxyType(
            {name: MappingProxyType(held.saved_states) for name, held in self._parameters.items()}
        )

    def read(self, name: str, rows: Any) -> Any:
        """Rows of a table, up to date: with ``sparse="exact"`` they take what they have missed.

        Parameters
        ----------
        name : str
            The parameter's name.
        rows : array of any integer type and shape, or (of a NumPy table) a list of int
            Numbers of rows, on the table's device, as often as they are wanted.

        Returns
        -------
        array, shape (\\*rows.shape, \\*row shape)
            New, of the table's element type. Zeros for rows that are not in the table, if the
            group's ``check`` is to skip them.

        Raises
        ------
        ParameterError, GradientError
            No such table; not such rows.
        RowIndexError
        """
        parameter = self._parameter(name)
        return parameter.read(
            row_numbers(parameter, rows),
            self._groups[parameter.group].skips_out_of_range(parameter.backend),
        )

    def write(self, name: str, values: Any) -> None:
        """Make a parameter hold these numbers, and what is kept beside it hold the rest of them.

        Of float32 numbers that are written into an array of 16 bits, only what fits is left. Given
        here, the next step starts from the numbers themselves with ``master``, and from a number
        within 16 more bits of each with ``rounding="kahan"``. Other parameters take them to the
        nearest. Rows that have missed steps (``sparse="exact"``) take them before. States stay.

        Parameters
        ----------
        name : str
            The parameter's name.
        values : array
            NumPy's or CuPy's, of the parameter's shape, of any type that parameters have.

        Raises
        ------
        ParameterError
            No such parameter; not such an array; a number that is infinite in the parameter's type.

        Examples
        --------
        >>> import ml_dtypes, numpy as np, gpuadapt as ga
        >>> full = np.array([1.001, 2.002], np.float32)
        >>> w = full.astype(ml_dtypes.bfloat16)
        >>> optimizer = ga.Adam({"w": w}, master="float32")
        >>> optimizer.write("w", full)
        >>> optimizer.state["w"]["master"]
        array([1.001, 2.002], dtype=float32)
        """
        parameter = self._parameter(name)
        parameter.write(numbers_of(parameter, values))

    def flush(self, name: str | None = None, *, fraction: float = 1.0) -> None:
        """Bring rows up to date that have missed steps (``sparse="exact"``), states too.

        `state_dict`, `effective_lr` and ``stats`` do so themselves; it is for who reads the
        arrays, such as ``state``, and for who writes into a table: call it before, or rows take
        the steps that they have missed from what was written. Steps bring a few rows up to date as
        well, so that no more than some thousand steps have to be remembered.

        Parameters
        ----------
        name : str, optional
            Of one parameter; by default of all.
        fraction : float, > 0 and <= 1
            Of so many of each table's rows, from where the last call has stopped.

        Raises
        ------
        ParameterError, HyperparameterError
        """
        share = number("fraction", fraction)
        for parameter in self._parameters.values() if name is None else (self._parameter(name),):
            parameter.flush(share)

    def effective_lr(self, name: str) -> Any:
        """The learning rate of each element, from the state after the last step.

        It is what multiplies the gradient (for Adam the corrected mean of gradients):
        lr / (sqrt(.) + eps), with eps where the rule has it; for Adadelta
        lr RMS(u) / RMS(g).

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        array
            New, of the parameter's shape and device; float64 for float64, otherwise float32.

        Raises
        ------
        ParameterError
            No parameter has that name.
        RuleError
            The rule (your own) has no variable named ``rate``.
        """
        parameter = self._parameter(name)
        parameter.flush()
        count = self._steps.sync_counts()
        return parameter.effective_rates(
            *self._groups[parameter.group].rate(parameter.update_count, max(count - 1, 0))
        )

    def _rate(self, parameter: Parameter) -> tuple[Rule, Sequence[float]] | None:
        """The rule of effective rates and its coefficients, if there is one."""
        count = self._steps.sync_counts()
        try:
            return self._groups[parameter.group].rate(parameter.update_count, max(count - 1, 0))
        except RuleError:
            return None

    def _parameter(self, name: str) -> Parameter:
        if name not in self._parameters:
            raise ParameterError(f"no parameter {name!r}; there are {', '.join(self._parameters)}")
        return self._parameters[name]

    def stats(self, name: str) -> Stats:
        """What the last step that was asked for it (``step(grads, stats=[name])``) did.

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        Stats
            (lost, ratio, rates): the share of updates that were lost to rounding, the norm of the
            update over that of the parameter, quantiles of the effective rates.

        Raises
        ------
        ParameterError
            No parameter has that name, or no step was asked about it while it had a gradient.
        """
        self._parameter(name)
        if name not in self._stats:
            raise ParameterError(f"no stats of {name!r}: take a step with stats=[{name!r}]")
        return self._stats[name]

    def __repr__(self) -> str:
        parameters = list(self._parameters.values())
        return summary(type(self).__name__, self.rule, self._groups, parameters, self.step_count)


class Internals(NamedTuple):
    """The parts of an optimizer, for tests and benchmarks; other versions may have others."""

    parameters: dict[str, Parameter]
    groups: list[Group]
    steps: Steps


def internals(optimizer: Optimizer) -> Internals:
    """The parts of an optimizer themselves, not copies."""
    return Internals(optimizer._parameters, optimizer._groups, optimizer._steps)
