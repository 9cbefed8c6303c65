"""`Optimizer`: parameters, states and `step`, for any rule."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import is_
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuadapt.kernels import averaging
from gpuadapt.kernels.commit import Call, make
from gpuadapt.kernels.language.rule import Rule

from . import representation
from .arrays import check_disjoint, copied, copy_calls, describe
from .averages import START, Average, Averages, Block, Swapped, averaged
from .checkpoint.contents import Contents as FileContents
from .checkpoint.contents import metadata_of, tensors_of
from .checkpoint.fill import fill, parameter_calls, read
from .checkpoint.match import Wanted as WantedFile
from .checkpoint.match import match
from .checkpoint.paths import FilePath, open_file, write_file
from .choices import Check, Decay, Exactness, Master, Rounding, Sparse, StateDtype
from .construct import Built, are_groups, build, gradient_templates
from .containers import Array, Listed, ParamsOrGroups
from .device_errors import explain, explained
from .effects import check_effects
from .errors import BackendError, CaptureError, ParameterError, RuleError, StateError
from .foreign import written
from .gradients import adapted, check_gradient, numbers_of, row_numbers
from .group import Group, skips_out_of_range
from .growth import grown
from .hooks import Handle, Hook, Hooks, register
from .hyperparameters import (
    SETTINGS,
    Betas,
    Hyperparameter,
    Scalar,
    Setting,
    check_initial,
    check_known,
    check_rule,
    expand,
    number,
)
from .loss_scale import Multiple
from .parameter import Parameter
from .passed import Contents, Passed, all_contents, contents, look, portable
from .representation import Params, States
from .rowgrad import Grads, RowGrad
from .run import Steps
from .sampling import Sampling
from .state import Left, Plan, examined, plan, restore_calls, snapshot
from .stats import Stats, Wanted, Watched, watch
from .step_options import DEFAULT_OPTIONS, StepOptions, StepResult, check_step_options
from .suggest import READ_ONLY, attribute, options, setting
from .sums import added
from .tree import Branch, Place, flatten, taken
from .turn import Turn, alone, in_turn, takes_lock

NOT_LISTED = {"_params": None, "_state": None}
"""The attributes behind `Optimizer.params` and `state` until somebody asks for them.

Loops over names may ask for them once for each array.
"""


NOTHING: Sequence[Callable[[], None]] = ()
"""What follows a step that nobody looks at."""


class Optimizer:
    """Update arrays in place with a rule, all of them in one fused kernel.

    Parameters
    ----------
    rule : Rule
        A rule of `gpuadapt.rules`, or your own (see `gpuadapt.rule`).
    params : array, or dict, list, tuple or iterator of arrays, or of such; or list of groups
        NumPy or CuPy arrays of float32, float64, float16 or bfloat16 (`ml_dtypes`; on a GPU also
        its bits as uint16), of any shape and strides. They are updated in place, on their own
        backend and device. So are arrays of other libraries that offer writable memory, such as
        torch tensors, memoryviews and Numba device arrays. The name of an array is its path: keys,
        fields of named tuples and indices, such as "encoder.0.w"; "0" for a single array. Pairs of
        name and array, in a list or from an iterator, count as a dict. A group is a dict with
        "params" (any of the former) and its own hyperparameters; indices in a group continue from
        the number of arrays in the groups before.
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
        Initial value of every element of a state, by the rule's letter; 0 for those left out.
        The same in every group.
    state_dtype : {"float64", "float32", "bfloat16", "float16", "8bit"}, or a dict, optional
        Storage type of all states, or of each by the rule's letter; float32 by default (float64
        for parameters of float64). The arithmetic is float32 (float64) in any case. 16 and 8 bits
        are rounded stochastically, because a running mean changes by less than they resolve.
        "float16" leaves squares in bfloat16 unless a dict names them: most are below float16's
        smallest number, 6e-8. "8bit" has a scale for each block of up to 256 elements, within one
        row if rows have at least 8. States that may need more bits than given are stored in
        more, and refused if a dict names them (see docs/formats.md).
    master : {"float32", "split"}, optional
        For parameters of 16 bits. "float32" keeps and updates a float32 copy. "split" (bfloat16
        only) keeps the other 16 bits of that float32 number.
    rounding : {"nearest", "stochastic", "kahan"}
        Rounding of parameters of 16 bits without a master. "nearest" loses every update below
        half a unit in the last place, "stochastic" is right in the mean, and "kahan" keeps the
        rounding error in 16 more bits.
    seed : int, >= 0
        Seed of random bits. These depend on the seed, the parameter's name, its number of updates
        and the index of the element, and on nothing else.
    sparse : {"lazy", "exact"}
        "lazy" leaves rows that a `RowGrad` does not have as they are. "exact" gives them a
        gradient of zero: a row catches up with the steps when a `RowGrad` has it again, or when it
        is read. Until then the arrays hold its old values; see `read`, `flush` and
        docs/exact_rows.md.
    exactness : {"close", "bits"}
        How exact rows catch up. "bits" takes each step, with the bits of dense steps. "close"
        takes all of them at once where the rule allows it, for every schedule and number of
        steps: an element that catches up is at most about 6 units in the last place (of the
        largest magnitude that it has had) farther from dense steps in float64 than dense steps
        in float32 are, and in general nearer; see docs/exact_rows.md.
    average : gpuadapt.averages.Average, optional
        An average of each parameter that the update's kernel keeps, in float32 (float64 for
        float64), such as ``averages.Exponential(0.999)``; see `averages`. Cannot be changed later.
    **hyperparameters : float or schedule
        The rule's. NumPy scalars, and arrays of one element, are copied. A schedule is one of
        `gpuadapt.schedules`, or any function of the step, counted from 0, that returns the value at
        that step. It is called once for each step, in order, from the first on, and may have a
        state of its own. A skipped or failed step that is taken again has the same value; after
        `load_state_dict`, schedules are called anew.
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
    On Linux, states larger than 4 MB take memory as rows are first updated, 4 kB or a little more
    for each. Dense gradients, ``initial`` values, loading a snapshot, and the scales of 8-bit
    states (one float32 for each row and 256 elements) take all of it.

    Coefficients that depend on the step are computed in float64 on the host. Bias correction
    counts the updates of each parameter: a step without its gradient changes neither its bits nor
    its count.

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
    _keys: list[str] | None
    """The keys of a dict of arrays that was passed as params."""
    _array_type: type | None
    """The type of the only array, if it was passed as params itself."""
    _passed: list[Passed]
    _foreign: list[Parameter]
    """The parameters whose arrays are other libraries'."""
    _params: Params | None
    _state: Mapping[str, Mapping[str, Any]] | None

    def __init__(
        self,
        rule: Rule,
        params: ParamsOrGroups[Mapping[str, object]],
        *,
        weight_decay: Hyperparameter = 0.0,
        decay: Decay = "l2",
        maximize: bool = False,
        rowwise: bool = False,
        max_row_norm: Hyperparameter = math.inf,
        check: Check | None = None,
        initial: Mapping[str, float] | None = None,
        state_dtype: StateDtype | Mapping[str, StateDtype] | None = None,
        master: Master | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
        sparse: Sparse = "lazy",
        exactness: Exactness = "close",
        average: Average | None = None,
        **hyperparameters: Hyperparameter | Betas | None,
    ) -> None:
        if not isinstance(rule, Rule):
            raise RuleError(f"rule: got {rule!r}, expected a function decorated with @rule")
        common: dict[str, Any] = {
            "weight_decay": weight_decay, "decay": decay, "maximize": maximize,
            "rowwise": rowwise, "max_row_norm": max_row_norm, "check": check,
            "state_dtype": state_dtype, "master": master, "rounding": rounding,
            "seed": seed, "sparse": sparse, "exactness": exactness,
        }  # fmt: skip
        check_rule(rule)
        known = (*rule.hyperparameters, *SETTINGS, "lr")
        pair = ["betas"] if "beta1" in rule.hyperparameters else []
        check_known(hyperparameters, (*known, *pair), options(type(self)))
        common |= expand(hyperparameters)
        self._initial = check_initial(rule, initial or {})
        if average is not None:
            rule = averaged(rule, average)
            common |= average.settings
            self._initial |= {averaging.STATE: START}
        self.rule, self._common = rule, common
        self._stats = {}
        self._turn = Turn()
        self._held: Contents | None = []
        self._grown: frozenset[str] = frozenset()
        self._assign(self._with(params, common, Built([], [], {}), []), Steps([], []))

    _hooks: Hooks | None = None
    """What is called around each step, if there is anything."""
    _swapped: Swapped | None = None
    """Set while the parameters' arrays hold the averages."""
    _half_loaded: Mapping[str, int] = MappingProxyType({})
    """Memory maps that a load has begun to fill: numbers of elements, by name of parameter."""

    @explained
    def _with(
        self, params: Any, common: Mapping[str, Any], before: Built, passed: list[Passed]
    ) -> dict[str, Any]:
        """The attributes of this optimizer with more parameters; it stays as it is."""
        params = taken(params)
        built = build(self.rule, params, common, self._initial, before)
        check_effects([group.settings for group in built.groups], list(built.parameters.values()))
        new = slice(len(before.groups), None)
        for group in built.groups[new]:
            group.check()
        template, names = gradient_templates(built, bool(before.groups) or are_groups(params))
        watched = None if self._held is None else self._held + contents(params)
        only = next(iter(built.parameters.values())) if isinstance(template, str) else None
        return {
            "_keys": template.keys if isinstance(template, Branch) and template.flat else None,
            "_array_type": None if only is None else only.array_type,
            "_built": built, "_template": template, "_names": names, "_groups": built.groups,
            "_parameters": built.parameters, "_held": watched,
            "_passed": [*passed, Passed(params, built.templates[new])],
        }  # fmt: skip

    def _assign(self, attributes: dict[str, Any], steps: Steps) -> None:
        """Assign all attributes at once, and steps that continue from others."""
        parameters = list(attributes["_parameters"].values())
        steps = steps.renewed(parameters, attributes["_groups"])
        foreign = [one for one in parameters if one.owner is not None]
        vars(self).update(attributes | {"_steps": steps, "_foreign": foreign} | NOT_LISTED)

    if not TYPE_CHECKING:  # which would allow each name

        def __setattr__(self, name: str, value: Any) -> None:
            # `optimizer.lr = x` would change nothing.
            kind = type(self)
            if not name.startswith("_") and not any(name in vars(of) or
                    name in getattr(of, "__annotations__", {}) for of in kind.__mro__):  # fmt: skip
                settings = [
                    name for group in vars(self).get("_groups", ()) for name in group.settings
                ]
                own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
                if own or setting(name, settings):
                    raise AttributeError(attribute(kind, name, settings))
            elif name in READ_ONLY:
                raise AttributeError(attribute(kind, name, ()))
            object.__setattr__(self, name, value)

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        self._check_not_swapped()
        for name, held in self._parameters.items():
            if type(held.owner) is memoryview:
                raise StateError(
                    f"parameter {name!r}: a memoryview cannot be copied or pickled; pass a NumPy "
                    "array of it (numpy.asarray(view)) to the optimizer, or use state_dict()"
                )
        self._steps.streams.wait()
        self._steps.sync_counts()  # before the parameters are copied
        # What is copied together with the optimizer, but before it, is as it was before this.
        found = {name: held.caught_up() for name, held in self._parameters.items()}
        watched = {"_passed": portable(self._passed, self._held), "_held": None}
        left = {"_turn": None, "_hooks": None, "_caught_up": found}
        return {**self.__dict__, **watched, **NOT_LISTED, **left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        caught_up = state.pop("_caught_up")
        vars(self).update(state)
        for name, rows in caught_up.items():
            if rows is not None:
                self._parameters[name].put(*rows)
        self._turn = Turn()
        self._held = None if self._half_loaded else all_contents(self._passed)

    def __copy__(self) -> Optimizer:
        raise StateError(
            "copy.copy: both would update the same arrays, and count in one place; "
            "copy.deepcopy copies the arrays too (see `params`)"
        )

    def _check_not_swapped(self) -> None:
        """Check that the parameters' arrays do not hold their averages.

        Raises
        ------
        StateError
        """
        self._put_back()
        if self._swapped is not None:
            raise StateError(
                "the arrays of the parameters hold their averages; leave the block of "
                "`with optimizer.averages.swapped()` first"
            )

    def _check_loaded(self) -> None:
        """Check that the parameters' arrays hold the parameters.

        Raises
        ------
        StateError
            A load has ended while it filled memory maps, or the averages are swapped in.
        """
        self._check_not_swapped()
        if self._half_loaded:
            raise StateError(
                f"a load has not come to its end: {', '.join(map(repr, self._half_loaded))} may "
                "hold numbers of before and of the file. Load again; until a load succeeds, steps, "
                "state_dict and save are refused"
            )

    def _check_params(self) -> None:
        """Check that the containers passed as ``params`` still hold the parameters.

        Raises
        ------
        ParameterError
        StateError
            See `_check_loaded`.
        """
        self._check_loaded()
        passed, now = look(self._passed, self.params, self._grown)
        vars(self).update(_passed=passed, _held=now, _grown=frozenset())

    @takes_lock
    def step(
        self,
        grads: Grads,
        *,
        grad_scale: Scalar | Multiple | None = None,
        max_norm: Scalar | None = None,
        clip_value: Scalar | None = None,
        skip_nonfinite: bool = False,
        stream: Any = None,
        stats: Sequence[str] = (),
    ) -> None:
        """Update every parameter that has a gradient, in place.

        All checks come before the first write: a step that raises has changed nothing, but that
        exact rows may have caught up with earlier steps, as `flush` lets them. Gradients are
        divided by ``grad_scale``, checked, measured, clipped by norm and then by value; then
        come weight decay and the rule.

        Parameters
        ----------
        grads
            The structure of ``params`` with a gradient for each array: of the array's shape and
            device, of any dtype that parameters can have, with any strides; also of another
            library, such as torch, and read-only, such as JAX's. None for no gradient. A torch
            tensor in COO format with one sparse dimension counts as a `RowGrad`. A `RowGrad` for a
            gradient of some rows. A list or tuple of these for their sum (see `RowGrad`). Lists,
            tuples and iterators are interchangeable, and None stands for a whole part without
            gradients. A dict of name to gradient always works. With groups: a list with the
            structure of each group's params; if these are dicts, also one dict with the keys of
            all. A gradient may not alias a parameter or a state.
        grad_scale : float > 0, LossScale, int * LossScale, or CuPy array of one float32, optional
            Scale of the loss: gradients are divided by it.
        max_norm : float > 0, optional
            Largest Euclidean norm of all gradients together, with the duplicates of rows
            merged: gradients of a larger one are multiplied by ``max_norm / norm`` (Pascanu et
            al. 2013, algorithm 1). Infinity measures the norm only; see `last`.
        clip_value : float > 0, optional
            Each element of a gradient is clipped to [-clip_value, clip_value].
        skip_nonfinite : bool
            Change nothing, neither arrays nor counts, if a gradient is not finite (or, in
            float64, beyond 1e145), or if, divided by the scale and clipped, it is too large to be
            squared by a rule that squares (in float32 from 2**64, about 1.8e19). A `LossScale`
            always does so.
        stream : cupy.cuda.Stream, optional
            The stream of the launches; the current one by default. It waits for the stream of the
            call before, so that all of the optimizer's work has one order.
        stats : sequence of str
            Names of parameters to collect `stats` of. They and their states are copied to the
            host, which takes many times as long as the step.

        Raises
        ------
        GradientError, HyperparameterError
        ParameterError
            If a parameter has been made read-only, the dict or list that was passed as ``params``
            holds another array now, or a tensor has other memory than when it was passed.
        RowIndexError
            With the first row that is out of range, and its index in the gradient.
        """
        # Small arrays feel each call of a function: `alone`, and the cases of most steps, are here.
        turn = self._turn
        if turn.lock._is_owned():
            turn.check("step")
        with turn.lock:
            hooks = self._hooks
            try:
                if hooks is not None:
                    given = {
                        "grad_scale": grad_scale, "max_norm": max_norm, "stream": stream,
                        "clip_value": clip_value, "skip_nonfinite": skip_nonfinite,
                        "stats": stats or None,
                    }  # fmt: skip
                    hooks.enter(self, grads, given)
                if self._held is None:
                    self._check_params()
                for now, then in self._held or ():
                    if not all(map(is_, now, then)):
                        self._check_params()
                        break
                if type(grads) is dict and [*grads] == self._keys:
                    flat = [*grads.values()]
                elif self._array_type is not None and type(grads) in (self._array_type, RowGrad):
                    flat = [grads]
                else:
                    flat = flatten(self._template, self._names, grads)
                options, finish = DEFAULT_OPTIONS, NOTHING
                if not (grad_scale is max_norm is clip_value is None and skip_nonfinite is False):
                    options = check_step_options(grad_scale, max_norm, clip_value, skip_nonfinite)
                if stream is not None and not hasattr(stream, "ptr"):
                    described = describe(stream)
                    raise BackendError(f"stream: got {described}, expected a cupy.cuda.Stream")
                if stats or hooks is not None:
                    options, finish = self._begin(stats, hooks, flat, options)
                take = self._steps.take_on_gpu if self._steps.on_gpu else self._steps.take
                if self._foreign:
                    take = partial(self._take_with_owners, take)
                if stream is None or not self._steps.on_gpu:
                    take(flat, options)
                else:
                    name = next(iter(self._parameters))
                    with self._steps.streams.device_of(stream, name), stream:
                        take(flat, options)
                for call in finish:
                    call()
                if hooks is not None:
                    hooks.call_after(self, grads, given)
            except Exception as error:
                explain(error)
                raise
            finally:
                if hooks is not None:
                    hooks.leave()

    def _begin(
        self, stats: Sequence[str], hooks: Hooks | None, flat: list[Any], options: StepOptions
    ) -> tuple[StepOptions, list[Callable[[], None]]]:
        """Look at a step before it is taken; its options, and what to call after it."""
        finish: list[Callable[[], None]] = []
        if stats:
            finish.append(partial(self._set_stats, self._watch(stats, flat)))
        if hooks is not None:
            options, more = hooks.begin(self, flat, options)
            finish += more
        return options, finish

    def _set_stats(self, watched: Watched) -> None:
        self._steps.streams.wait()
        self._steps.sync_counts()
        skipped = self.last is not None and self.last.skipped
        self._stats = {} if skipped else watched.finish()

    def _take_with_owners(
        self, take: Callable[..., None], grads: list[Any], options: StepOptions
    ) -> None:
        """Take a step of other libraries' arrays: check where they lie, and tell of the update."""
        for parameter in self._foreign:
            parameter.check_place()
        take(grads, options)
        if not self._steps.on_gpu and self.last is not None and self.last.skipped:
            return
        pairs = zip(self._parameters.values(), grads, strict=True)
        updated = [one for one, grad in pairs if one.owner is not None and grad is not None]
        written((one.owner, one.array) for one in updated)

    def _watch(self, names: Iterable[str], flat: list[Any], limit: int | None = None) -> Watched:
        """Copy parameters before a step, to compare them after it.

        ``limit`` is the number of elements of each that are looked at; by default all.
        """
        self._steps.streams.wait()
        flat = adapted([*self._parameters.values()], flat)
        grads = dict(zip(self._parameters, flat, strict=True))
        wanted = []
        for name in names:
            parameter = self._parameter(name)
            grad = grads[name]
            grad = added(parameter, grad) if isinstance(grad, (list, tuple)) else grad
            if grad is not None:
                check_gradient(parameter, grad)
                whole_rows = self._groups[parameter.group].rowwise
                sampling = None if limit is None else Sampling(limit, whole_rows)
                wanted.append(Wanted(parameter, grad, sampling))
        rate = cache(self._rate)  # parameters of a group have it in common, mostly
        watched = watch(
            wanted, self._steps.last_coefficients, lambda one: rate(one.group, one.update_count)
        )
        self._steps.streams.wait()
        return watched

    def register_step_pre_hook(self, hook: Hook) -> Handle:
        """Call a function before each step, as ``hook(optimizer, args, kwargs)``.

        Parameters
        ----------
        hook : function
            ``args`` is ``(grads,)``, and ``kwargs`` has the other arguments of `step` that were
            given. It returns None. It may write into gradients and parameters; in it the optimizer
            refuses to step (`ConcurrencyError`). If it raises, nothing has changed.

        Returns
        -------
        Handle
            Its ``remove()`` ends this; it can be the context of a ``with`` statement. A copy of
            the optimizer has no hooks.

        Raises
        ------
        HyperparameterError
            It is not a function.
        """
        return register(self, "before", hook)

    def register_step_post_hook(self, hook: Hook) -> Handle:
        """Call a function after each step, as ``hook(optimizer, args, kwargs)``.

        Parameters
        ----------
        hook : function
            As of `register_step_pre_hook`. It is called after a skipped step, too:
            ``optimizer.last.skipped`` says so (and waits for a GPU). If it raises, the step has
            been taken. It is not called if the step raises.

        Returns
        -------
        Handle
            See `register_step_pre_hook`.

        Raises
        ------
        HyperparameterError
            It is not a function.
        """
        return register(self, "after", hook)

    @alone
    def add(self, params: ParamsOrGroups[Mapping[str, object]], **settings: Setting) -> None:
        """Add parameters during training, such as new or unfrozen layers.

        Their states and counts of updates start anew; other parameters continue. From then on
        gradients come in a list, with the structure of each group's params, or in a dict by name;
        where all groups have dicts, also in one dict with the keys of all.

        Parameters
        ----------
        params
            As of `Optimizer`. Indices continue from the number of arrays before.
        **settings
            Hyperparameters and settings of the new group; by default those that the optimizer was
            made with.

        Raises
        ------
        ParameterError, HyperparameterError, BackendError
            As by `Optimizer`, and if a name is taken. Nothing has changed then.
        CaptureError
            If steps are captured.
        """
        self._check_not_captured("add")
        self._check_not_swapped()
        self._steps.streams.follow()
        common = self._common | expand(settings)
        self._assign(self._with(params, common, self._built, self._passed), self._steps)

    @alone
    def grow(self, name: str, array: Array) -> None:
        """Give a table more rows: ``array`` becomes the parameter.

        Copy the weights into its first rows before (with ``sparse="exact"``, after a `flush`).
        The states of these rows and the table's count of updates continue; states of new rows
        start anew. Random bits and blocks of 8 bits are numbered by element, so they stay. If a
        block of 8 bits has old and new elements, the old ones are rounded anew when a new one
        needs a larger scale.

        Parameters
        ----------
        name : str
            The parameter's name.
        array : array, shape (as many rows or more, \\*row shape)
            Of the table's dtype, on its device. Put it into the dict or list that was passed as
            ``params`` before the next step, which otherwise does not check that any more.

        Raises
        ------
        ParameterError
            If there is no such table, or the array does not fit. Nothing has changed then.
        CaptureError
            If steps are captured.
        """
        self._check_not_captured("grow")
        self._check_not_swapped()
        self._steps.streams.follow()
        parameter = self._parameter(name)
        self._steps.sync_counts()
        settings = self._groups[parameter.group].settings
        new = grown(parameter, array, settings, self._initial)
        parameters = {**self._parameters, name: new}
        check_disjoint({name: one.array for name, one in parameters.items()})
        attributes: dict[str, Any] = {"_parameters": parameters, "_groups": self._groups}
        attributes |= {"_grown": self._grown | {name}, "_held": None}
        attributes["_built"] = self._built._replace(parameters=parameters)
        self._assign(attributes, self._steps)

    def _check_not_captured(self, name: str) -> None:
        if self.capturable:
            raise CaptureError(f"{name}: steps are captured; set `capturable` to False before")

    @property
    def capturable(self) -> bool:
        """True if a step may be captured in a CUDA graph (``stream.begin_capture()``).

        Set it before the step that precedes the capture. From then on a step neither waits for the
        GPU nor allocates memory if it equals the step before: the same arrays as gradients, with
        new contents, and the same options. Call `prepare_replay` before replaying a captured
        step. After a capture, other steps are refused; setting ``capturable`` again gives the
        captured step up.

        Raises
        ------
        CaptureError
            When set, if the parameters are not all on one CUDA device; by `step`, if the step
            cannot be captured. Nothing has been launched then.
        """
        return self._steps.capturable

    @capturable.setter
    @alone
    def capturable(self, value: bool) -> None:
        if value and self._hooks is not None and self._hooks.observers:
            raise CaptureError("capturable: a Record waits for the GPU; close it before")
        self._steps.capturable = value

    @alone
    def prepare_replay(self, count: int = 1) -> None:
        """Compute the coefficients of the next steps, before a captured step is replayed.

        They follow the current hyperparameters and schedules; ``max_norm`` and ``max_row_norm``
        stay as captured. They are sent on the stream that has captured the step, and the current
        stream waits for them: launch replays on one of the two. A replay without coefficients
        writes nothing, and `last` says that it was skipped.

        Parameters
        ----------
        count : int, 1 to 512
            Number of replays that will follow. The call does not wait for the GPU, unless more
            than 512 replays may be under way.

        Raises
        ------
        CaptureError, HyperparameterError
        """
        self._check_not_swapped()
        self._steps.prepare_replay(count)
        for parameter in self._foreign:
            parameter.tell_owner()

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which training resumes exactly, bit for bit.

        Returns
        -------
        dict
            "version", "rule" (its name) and "digest" (of its formulas), "step_count",
            "param_groups" (schedules as dicts; functions of the user's, which are code, are only
            named) and "state": for each parameter its "updates" and copies of its state arrays, on
            their device.
        """
        self._check_loaded()
        self._steps.streams.wait()
        self.flush()
        return snapshot(self.rule, self._steps.sync_counts(), self._groups, self._parameters)

    @alone
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Left:
        """Load a snapshot of `state_dict`, made on either backend.

        All checks come before any change. Groups, and parameters in a group, may be in another
        order; parameters are matched by name. The snapshot's settings, schedules included, take
        the place of the optimizer's.

        Parameters
        ----------
        state : dict
        strict : bool
            False loads what matches by name, shape and dtype, and leaves other parameters and
            settings as they are. Of a table with more rows than in the snapshot, it loads the
            first rows.

        Returns
        -------
        Left
            (missing, unexpected, mismatched, longer, settings, reasons): names that were not
            loaded, and why; empty with ``strict``.

        Raises
        ------
        StateError
            If the snapshot is of another rule; with ``strict`` also of other parameters, shapes
            or dtypes.
        HyperparameterError
            If it has settings that this optimizer cannot have, such as another ``rowwise``.
        """
        if not isinstance(strict, bool):
            raise StateError(f"strict: got {strict!r}, expected a bool")
        self._check_not_swapped()
        self._steps.streams.follow()
        self._steps.sync_counts()
        taken, left = plan(examined(state, self.rule), self._groups, self._parameters, strict)
        make(self._restore_calls(taken))
        return left

    def _restore_calls(self, taken: Plan) -> list[Call]:
        """The calls that write a plan, and let steps continue from its counts."""
        updates = [
            taken.updates[name] if name in taken.arrays else parameter.update_count
            for name, parameter in self._parameters.items()
        ]
        calls = restore_calls(taken, self._groups, self._parameters)
        return calls + self._steps.restart_calls(taken.step_count, updates)

    @in_turn
    def save(
        self,
        path: FilePath,
        *,
        params: bool = True,
        keep: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Save the optimizer, and its parameters, in a safetensors file.

        The file of that name is the old one or the new one at any time, also after a crash or
        with a full disk. It holds no code: functions of the user's as schedules are named only.
        See docs/checkpoints.md.

        Parameters
        ----------
        path : str or path-like
        params : bool
            Save the parameters too, beside their states.
        keep : int, >= 0
            Number of older files to keep: ``path.1`` is the youngest.
        progress : callable, optional
            Called with (bytes written, bytes in all), at least every 4 MB. What it raises ends
            the save, and the old file stays.

        Raises
        ------
        NotWrittenError
            The system has refused: the old file is whole.
        NotDurableError
            The new file is in place, but the folder could not be flushed to disk.
        CheckpointError
            A value, or the path, cannot be written. The old file is whole.
        """
        self._save_file(path, {}, {}, params, keep, progress)

    @in_turn
    def _save_file(
        self,
        path: FilePath,
        more: Mapping[str, str],
        tensors: Mapping[str, Any],
        params: bool,
        keep: int,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        """Save, with more metadata and tensors."""
        self._check_loaded()
        self._steps.streams.wait()
        self.flush()
        metadata = metadata_of(self.rule, self._steps.sync_counts(), self._groups, self._parameters)
        arrays = tensors_of(self._parameters, params)
        write_file(path, {**arrays, **tensors}, {**metadata, **more}, keep, progress)

    def load(
        self,
        path: FilePath,
        *,
        strict: bool = True,
        rename: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
        params: bool = True,
        convert: bool = False,
    ) -> Left:
        """Load a file of `save`; all checks come before any change.

        A parameter that is a `numpy.memmap` is filled from the file directly. If that is
        interrupted, or the disk fails, then steps, `state_dict` and `save` raise StateError until
        a load succeeds.

        Parameters
        ----------
        path : str or path-like
        strict : bool
            False loads what fits, as `load_state_dict` does.
        rename : dict of str to str, optional
            From names of parameters in the file to names here.
        only : collection of str, optional
            Names (here) of the parameters to load; others are left as they are.
        params : bool
            Load the parameters too, if they are in the file.
        convert : bool
            Convert numbers that the file has in other formats, such as 8 bits.

        Returns
        -------
        Left
            What was not loaded, and why; empty with ``strict``.

        Raises
        ------
        NotReadError, DamagedFileError, CheckpointError
            The file is not there, damaged, or of a later version.
        StateError, HyperparameterError, ParameterError
            It does not fit this optimizer.
        """
        wanted = WantedFile(strict, rename, only, params, convert)
        with open_file(path) as file:
            return self._load(file, wanted, False, list)

    @alone
    def _load(
        self,
        file: FileContents,
        wanted: WantedFile,
        whole: bool,
        more: Callable[[], Sequence[Call]],
    ) -> Left:
        """Load a file that is open; ``more``, once it is found to fit, returns calls to add."""
        self._check_not_swapped()
        self._steps.streams.follow()
        self._steps.sync_counts()
        taken, given, left = match(file, self.rule, self._groups, self._parameters, wanted, whole)
        sizes = {name: numbers.size for name, numbers in given.items()}
        added = more()  # before `read` compares the checksums of what nobody has read
        direct = read(file, taken, given, self._parameters)
        calls = [*parameter_calls(self._parameters, given), *self._restore_calls(taken), *added]
        half = {**self._half_loaded, **{name: sizes[name] for name in direct}}
        if half:
            # Without `_held`, each step calls `_check_params`.
            vars(self).update(_half_loaded=half, _held=None)
            fill(file, direct, self._parameters)
            half = {name: size for name, size in half.items() if sizes.get(name, -1) < size}
            calls.append((vars(self).update, {"_half_loaded": half}))
        make(calls)
        for name in sizes:
            self._parameters[name].tell_owner()
        return left

    @property
    @explained
    def step_count(self) -> int:
        """Number of steps taken, without skipped ones; may wait for a GPU that skips some."""
        return self._steps.count

    @property
    @explained
    def last(self) -> StepResult | None:
        """The result of the last step; waits for a GPU. None before the first step.

        Returns
        -------
        StepResult or None
            (grad_norm, clip_factor, skipped). ``grad_norm`` is the norm of all unscaled gradients
            in float64, independent of threads, backend and the order of parameters; None if the
            step did not measure it. ``clip_factor`` is the factor of ``max_norm``, 1 if it changed
            nothing. ``skipped`` is True if ``skip_nonfinite`` left everything as it was.
        """
        return self._steps.last

    @property
    @explained
    def skipped_rows(self) -> int:
        """Number of gradient rows that were out of range and left out (``check="skip"``).

        Counts every occurrence since the optimizer was made; waits for the GPU.
        """
        return sum(parameter.skipped_rows for parameter in self._parameters.values())

    @property
    def params(self) -> Mapping[str, Any]:
        """The arrays that are updated, by name, as they were passed.

        A copy of the optimizer has copies of the arrays, which are found here. To keep arrays and
        optimizer together, copy or pickle both: ``copy.deepcopy((arrays, optimizer))``.
        """
        shown = self._params
        if shown is None:
            arrays = {
                name: held.user_array if held.owner is None else held.owner
                for name, held in self._parameters.items()
            }
            shown = vars(self)["_params"] = Params(arrays)
        return shown

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        return tuple(group.settings for group in self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """The state arrays themselves, by parameter and the rule's letter; read-only mappings."""
        shown = self._state
        if shown is None:
            shown = vars(self)["_state"] = States(
                {name: States(one.saved_states) for name, one in self._parameters.items()}
            )
        return shown

    @property
    def averages(self) -> Averages:
        """The averages of the parameters, by name, after the last step.

        Each is a new array of the parameter's shape and device, of float64 for float64, otherwise
        of float32. ``with optimizer.averages.swapped():`` puts them into the parameters' arrays
        for the block; see `averages.Averages.swapped`. Without ``average=...`` there is none, and
        to ask for one raises StateError.
        """
        names = self._parameters.keys() if self.rule.averaged else ()
        return Averages(names, self._average, self._swap, self._end_block)

    @in_turn
    def _average(self, name: str) -> Any:
        """A copy of the average of a parameter."""
        self._check_averaged()
        parameter = self._parameter(name)
        self._steps.streams.wait()
        parameter.flush()
        return copied(parameter.states[averaging.STATE])

    def _check_averaged(self) -> None:
        if self.rule.averaged is None:
            raise StateError(
                "this optimizer keeps no averages; make it with average=..., for example "
                "gpuadapt.averages.Exponential(0.999)"
            )

    @alone
    def _swap(self, block: Block) -> None:
        """Put the averages into the parameters' arrays."""
        self._check_averaged()
        self._check_loaded()
        parameters = self._parameters.values()
        for parameter in parameters:
            parameter.check_writable()
        self.flush()
        self._steps.streams.wait()
        kept = Swapped(weakref.ref(block), {one.name: copied(one.array) for one in parameters})
        self._overwrite({one.name: one.average for one in parameters}, kept)

    @alone
    def _end_block(self) -> None:
        """Put the parameters back at the end of a block; see `_put_back`."""
        self._put_back()

    def _put_back(self) -> None:
        """Put the parameters back into their arrays, if they are not, and the block has ended."""
        if self._swapped is not None and not self._swapped.is_open:
            self._steps.streams.wait()
            for parameter in self._parameters.values():
                parameter.check_writable()
            self._overwrite(self._swapped.parameters, None)

    def _overwrite(self, arrays: Mapping[str, Any], swapped: Swapped | None) -> None:
        """Write into all parameters' arrays."""
        parameters = self._parameters.values()
        calls = [call for one in parameters for call in copy_calls(one.array, arrays[one.name])]
        # Without `_held`, the next step calls `_check_params`.
        calls.append((vars(self).update, {"_swapped": swapped, "_held": None}))
        make(calls)
        for parameter in parameters:
            parameter.tell_owner()

    @alone
    def read(self, name: str, rows: Array | Listed[int]) -> Any:
        """Read rows of a table; exact rows catch up with the last step first.

        Parameters
        ----------
        name : str
            The parameter's name.
        rows : array of any integer type and shape, or (of a NumPy table) a list of int
            Row indices, on the table's device, in any order and number.

        Returns
        -------
        array, shape (\\*rows.shape, \\*row shape)
            New, of the table's dtype. Zeros for rows that are out of range, if the group's
            ``check`` skips them.

        Raises
        ------
        ParameterError, GradientError
            If there is no such table, or the indices are not integers on its device.
        RowIndexError
        """
        parameter = self._parameter(name)
        self._steps.streams.follow()
        check = self._groups[parameter.group].settings["check"]
        skip = skips_out_of_range(check)[parameter.backend]
        return parameter.read(row_numbers(parameter, rows), skip)

    @alone
    def write(self, name: str, values: Array) -> None:
        """Write numbers into a parameter, with all bits that its companions can hold.

        An array of 16 bits alone would round float32 numbers. Written here, the next step starts
        from the numbers themselves with ``master``, and from 16 more bits of each with
        ``rounding="kahan"``; other parameters round to the nearest. Exact rows catch up first.
        States stay as they are.

        Parameters
        ----------
        name : str
            The parameter's name.
        values : array
            NumPy or CuPy array of the parameter's shape, of any dtype that parameters can have.

        Raises
        ------
        ParameterError
            If there is no such parameter, the array does not fit, or a number overflows in the
            parameter's dtype.

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
        self._check_not_swapped()
        parameter = self._parameter(name)
        self._steps.streams.follow()
        parameter.write(numbers_of(parameter, values))

    @in_turn
    def flush(self, name: str | None = None, *, fraction: Scalar = 1.0) -> None:
        """Let exact rows catch up with the last step, states included.

        `state_dict` and `effective_lr` call it themselves. Call it before you read the
        arrays, `state` included, and before you write into a table: rows would otherwise catch up
        from the written values. Each step refreshes a few rows as well, which limits the history
        to some thousand steps.

        Parameters
        ----------
        name : str, optional
            The parameter; by default all.
        fraction : float, > 0 and <= 1
            Fraction of each table's rows, starting where the last call stopped.

        Raises
        ------
        ParameterError, HyperparameterError
        """
        share = number("fraction", fraction)
        self._steps.streams.follow()
        for parameter in self._parameters.values() if name is None else (self._parameter(name),):
            parameter.flush(share)

    @in_turn
    def effective_lr(self, name: str) -> Any:
        """The learning rate of each element, from the state after the last step.

        The factor of the gradient (for Adam, of the corrected mean of gradients):
        lr / (sqrt(.) + eps), with eps as in the rule; for Adadelta lr RMS(u) / RMS(g).

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
            If no parameter has that name.
        RuleError
            If the rule (your own) has no variable named ``rate``.
        """
        parameter = self._parameter(name)
        self._steps.streams.wait()
        parameter.flush()
        count = self._steps.sync_counts()
        return parameter.effective_rates(
            *self._groups[parameter.group].rate(parameter.update_count, max(count - 1, 0))
        )

    def _rate(self, group: int, updates: int) -> tuple[Rule, Sequence[float]] | None:
        """The rule of effective rates of a group and its coefficients, if it has one."""
        try:
            return self._groups[group].rate(updates, max(self._steps.count - 1, 0))
        except RuleError:
            return None

    def _parameter(self, name: str) -> Parameter:
        """The parameter of a name; raises `ParameterError`."""
        if name not in self._parameters:
            raise ParameterError(f"no parameter {name!r}; there are {', '.join(self._parameters)}")
        return self._parameters[name]

    def stats(self, name: str) -> Stats:
        """Statistics of the last step that collected them (``step(grads, stats=[name])``).

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        Stats
            (lost, ratio, rates): the fraction of updates that were rounded to nothing, the norm of
            the update over that of the parameter, quantiles of the effective rates.

        Raises
        ------
        ParameterError
            If no parameter has that name, or no step with its gradient collected them.
        """
        self._parameter(name)
        if name not in self._stats:
            raise ParameterError(f"no stats of {name!r}: take a step with stats=[{name!r}]")
        return self._stats[name]

    def __repr__(self) -> str:
        return representation.text(type(self), vars(self))

    def _repr_html_(self) -> str:
        return representation.table(type(self), vars(self))


class Internals(NamedTuple):
    """The parts of an optimizer, for tests and benchmarks; other versions may have others."""

    parameters: dict[str, Parameter]
    groups: list[Group]
    steps: Steps


def internals(optimizer: Optimizer) -> Internals:
    """The parts of an optimizer themselves, not copies."""
    return Internals(optimizer._parameters, optimizer._groups, optimizer._steps)
