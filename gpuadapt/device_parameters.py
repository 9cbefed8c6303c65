"""A place: the parameters of one device, and the tables that its kernels read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.overflow import KINDS, Measured
from gpuadapt.kernels.numerics.scalar_layout import FIRST, SCALE

from . import launch
from .arrays import (
    address,
    bits_of,
    contiguous,
    dtype_name,
    merged_bounds,
    numpy_dtype,
    on_device,
    overlaps_any,
    owner,
    plain,
)
from .errors import CaptureError
from .gradients import check_apart, check_gradient
from .group import Group, coefficients
from .hyperparameters import check_fits
from .pages import has_pages
from .parameter import Parameter, prepare_rows
from .rowgrad import RowGrad
from .step_plan import Bucket, CoefficientLayout, Launch, StepGradients, StepPlan
from .sums import added


class DeviceParameters:
    """The parameters of one device."""

    def __init__(
        self, backend: str, parameters: Sequence[Parameter], every: Sequence[Parameter]
    ) -> None:
        self.backend = backend
        self.parameters = parameters
        self.every = every
        """The parameters of all devices: gradients share no memory with any."""
        self.device = on_device(parameters[0].array if parameters else None)
        with self.device:
            self.control = launch.step_scalars(backend)
        arrays = [array for parameter in parameters for array in parameter.arrays]
        self._owners = {owner(array) for array in arrays}
        self._places = merged_bounds(arrays)
        self._orders = [_order(parameter) for parameter in parameters]
        self._paged = [k for k, p in enumerate(parameters) if has_pages(p.saved_arrays.values())]
        """Those with large states whose pages depend on what is touched."""
        self._exact = [k for k, parameter in enumerate(parameters) if parameter.exact]
        elements = tuple(parameter.dtype_name for parameter in parameters)
        nothing = CoefficientLayout((), (), FIRST, (), ())
        self.arrangement = StepPlan(nothing, [], elements, self._expected(elements), [])
        self._updates: dict[tuple[Rule, Formats, bytes], launch.Update] = {}
        """Those of tables so far, by what they update: options of a step may come and go."""

    @property
    def layout(self) -> CoefficientLayout:
        """Where in the numbers the coefficients of each parameter are."""
        return self.arrangement.layout

    def _expected(self, elements: Sequence[str]) -> Any:
        """What looks at NumPy's gradients of these element types; None for a GPU's."""
        if self.backend != "cpu":
            return None
        wanted = [
            (np.broadcast_to(np.zeros((), numpy_dtype(element, "cpu")), parameter.shape), order)
            if order
            else None
            for parameter, order, element in zip(
                self.parameters, self._orders, elements, strict=True
            )
        ]
        updated = [parameter.user_array for parameter in self.parameters]
        return launch.array_headers(updated, wanted, [place[1:] for place in self._places])

    def gather(self, given: list[Any], groups: Sequence[Group]) -> StepGradients:
        """Look at gradients; nothing of this place changes.

        Raises
        ------
        GradientError
        ParameterError
            A parameter has been made read-only.
        """
        if self.arrangement.headers is not None:
            found, missing = self.arrangement.headers.addresses(given)
        else:
            found, missing = np.zeros(len(given), np.int64), len(given)
        others: dict[int, Any] = {}
        elements = list(self.arrangement.elements) if missing else []
        sums: dict[int, Any] = {}
        for k in np.flatnonzero(found == 0).tolist() if missing else ():
            parameter, grad = self.parameters[k], given[k]
            if isinstance(grad, (list, tuple)):
                grad = sums[k] = added(parameter, grad)
            if grad is None:
                continue
            check_gradient(parameter, grad)
            parameter.check_writable()
            by_table = not isinstance(grad, (RowGrad, np.generic))
            grad = grad if isinstance(grad, RowGrad) else plain(grad)
            for array in grad.arrays if isinstance(grad, RowGrad) else (grad,):
                self._check_apart(parameter.name, array)
            if by_table and self._orders[k] and contiguous(grad, self._orders[k]):
                elements[k] = dtype_name(grad) or ""
                found[k] = address(grad)
                missing -= 1
            else:
                others[k] = grad
        if sums:
            given = [sums.get(k, grad) for k, grad in enumerate(given)]
        for number, group in enumerate(groups):
            if group.by_rows:
                for k in np.flatnonzero(found).tolist():
                    if self.parameters[k].group == number:
                        found[k], others[k] = 0, plain(given[k])
                        missing += 1
        for k in self._exact:
            # Once rows have missed steps, a dense gradient is one of all rows.
            if self.parameters[k].history is not None and found[k]:
                found[k], others[k] = 0, plain(given[k])
                missing += 1
        kinds = tuple(elements) or self.arrangement.elements
        return StepGradients(found, others, missing == 0, kinds, sums)

    def check_values(self, values: Mapping[str, float], gathered: StepGradients) -> None:
        """Raise `HyperparameterError` for values of a step that its gradients cannot be scaled by.

        Gradients of float64 are scaled and clipped in float64, whatever their parameters are.
        """
        for k, parameter in enumerate(self.parameters):
            grad = gathered.others.get(k)
            if grad is None and not gathered.addresses[k]:
                continue
            values_of = grad.values if isinstance(grad, RowGrad) else grad
            element = gathered.elements[k] if grad is None else dtype_name(values_of)
            dtype = np.dtype(np.float64) if element == "float64" else parameter.compute_dtype
            for name, value in values.items():
                check_fits(name, value, dtype)
                if parameter.exact and value < 1:
                    # Missed steps are remembered in the arithmetic's type: it must not be 0 there.
                    check_fits(name, value, parameter.compute_dtype)

    def starts(self, gathered: StepGradients, groups: Sequence[Group]) -> bool:
        """Whether steps of a table are to be remembered from now on, or by another rule."""
        return any(
            isinstance(gathered.others.get(k), RowGrad)
            and self.parameters[k].needs_history(groups[self.parameters[k].group].rule)
            for k in self._exact
        )

    def _by_rows(self, k: int, grad: Any, groups: Sequence[Group]) -> bool:
        parameter = self.parameters[k]
        by_rows = isinstance(grad, RowGrad) or parameter.history is not None
        return by_rows or groups[parameter.group].by_rows

    def addresses(self, given: list[Any]) -> np.ndarray | None:
        """Those of NumPy arrays that tables work on, all of them; None if one is something else."""
        found, missing = self.arrangement.headers.addresses(given)
        return None if missing else found

    def repeat(self, addresses: np.ndarray) -> None:
        """Update by gradients at these addresses, the tables of the last step."""
        now = self.arrangement
        for table, update in zip(now.tables, now.launches, strict=True):
            of = addresses if table.whole else addresses[table.members]
            update(of, table.firsts, self.control.numbers)

    def _check_apart(self, name: str, array: Any) -> None:
        held = owner(array)
        elsewhere = held is not None and held not in self._owners and None not in self._owners
        if not elsewhere and overlaps_any(array, self._places):
            check_apart(name, array, self.every)

    def arranged(
        self,
        groups: Sequence[Group],
        active: np.ndarray,
        missed: np.ndarray,
        elements: tuple[str, ...],
    ) -> StepPlan:
        """Tables and layout for parameters that have gradients, by the groups' rules.

        They are this place's when `arrangement` is set to them.

        Parameters
        ----------
        active : ndarray of bool
            Which of the parameters have gradients.
        missed : ndarray of int64
            In how many steps each had none.
        elements : tuple of str
            The element types of their gradients.
        """
        rules = tuple(group.rule for group in groups)
        classes: dict[tuple[int, int], int] = {}
        width = FIRST
        firsts, scales, factors = np.zeros(len(self.parameters), np.int64), [SCALE], []
        for k in np.flatnonzero(active).tolist():
            key = self.parameters[k].group, int(missed[k])
            if key not in classes:
                classes[key] = width
                names = [*rules[key[0]].coefficients, "t"]
                scales += [width + n for n, name in enumerate(names) if name == "h_grad_scale"]
                factors += [width + n for n, name in enumerate(names) if name == "h_clip_factor"]
                width += len(names) + groups[key[0]].remembers
            firsts[k] = classes[key]
        listed = tuple((*key, first) for key, first in classes.items())
        layout = CoefficientLayout(
            listed, tuple(firsts.tolist()), width, tuple(scales), tuple(factors)
        )
        members: dict[tuple[Rule, Formats], list[int]] = {}
        for k, parameter in enumerate(self.parameters):
            if self._orders[k]:
                key_ = rules[parameter.group], parameter.formats_for(elements[k])
                members.setdefault(key_, []).append(k)
        every = len(self.parameters)
        tables = [
            Bucket(*of, np.array(found), len(found) == every, firsts[found])
            for of, found in members.items()
        ]
        headers = self.arrangement.headers
        if elements != self.arrangement.elements:
            headers = self._expected(elements)
        return StepPlan(layout, tables, elements, headers, [])

    def described(self, gathered: StepGradients, groups: Sequence[Group]) -> list[Any]:
        """What launches depend on besides addresses; for steps that are captured.

        Raises
        ------
        CaptureError
            The step waits for the GPU.
        """
        found: list[Any] = []
        for k in gathered.sums:
            raise CaptureError(
                f"gradient of {self.parameters[k].name!r}: several are added up in new memory, "
                "which cannot be captured: add them up in an array of yours"
            )
        for k, grad in gathered.others.items():
            group = groups[self.parameters[k].group]
            if self._by_rows(k, grad, groups):
                if not group.skips(self.backend):
                    raise CaptureError('check="raise" waits for the GPU: it cannot be captured')
                launch.check_sort()
                values = grad.values if isinstance(grad, RowGrad) else grad
                if not values.flags.c_contiguous:
                    raise CaptureError("rows of gradients with gaps are copied: write them without")
                if isinstance(grad, RowGrad) and not grad.captured:
                    raise CaptureError(
                        "row numbers with gaps, or of other types than int32 and int64, are copied"
                    )
            arrays = grad.arrays if isinstance(grad, RowGrad) else (grad,)
            found.append((k, [(a.data.ptr, a.shape, a.strides) for a in arrays]))
        return found

    def works(self, gathered: StepGradients, groups: Sequence[Group]) -> list[Launch]:
        """The launches of a step; kernels are compiled, and rows checked, but nothing is written.

        Raises
        ------
        RowIndexError
        """
        works = []
        with self.device:
            now = self.arrangement
            if gathered.complete and not now.launches:
                now.launches[:] = [self._update(table) for table in now.tables]
            for table in now.tables:
                addresses = gathered.addresses
                addresses = addresses if table.whole else addresses[table.members]
                if gathered.complete or addresses.any():
                    works.append(Launch(self._update(table), addresses, table.firsts))
            for k, grad in gathered.others.items():
                parameter, first = self.parameters[k], self.layout.firsts[k]
                group = groups[parameter.group]
                if self._by_rows(k, grad, groups):
                    given = group.rule, grad, group.skips(self.backend), group.most
                    works.append(Launch(*prepare_rows(parameter, *given), first))
                else:
                    update = parameter.strided_update(group.rule, dtype_name(grad) or "")
                    works.append(Launch(update, bits_of(grad), first))
            self._paged = [k for k in self._paged if self._touch(k, gathered)]
        return works

    def _touch(self, k: int, gathered: StepGradients) -> bool:
        """Say what a step is about to touch; whether later ones have to."""
        grad = gathered.others.get(k)
        if grad is None and not gathered.addresses[k]:
            return True
        return self.parameters[k].touch(grad)

    def _update(self, table: Bucket) -> launch.Update:
        """The update of a table, made when it is first needed."""
        key = table.rule, table.formats, table.members.tobytes()
        if key not in self._updates:
            operands = [self.parameters[k].operand for k in table.members]
            self._updates[key] = launch.bind_multi_tensor(
                table.rule, self.backend, table.formats, operands
            )
        return self._updates[key]

    def row(
        self, step: int, groups: Sequence[Group], values: Sequence[Mapping[str, float]]
    ) -> list[float]:
        """The numbers of a step (from 0), by the groups' values.

        Raises
        ------
        HyperparameterError
        """
        numbers = [0.0, values[0].get("grad_scale", 1.0)]
        for number, missed, _ in self.layout.classes:
            group = groups[number]
            updates = step + 1 - missed
            numbers += coefficients(group.rule, values[number], updates, group.largest)
            numbers.append(float(updates))
            numbers += group.remembered(values[number], updates)
        return numbers

    def measure(self, works: Sequence[Launch]) -> Measured:
        """Sums of squares and largest magnitudes of all gradients, divided by their scale."""
        # The sums have the same total in any order.
        works = sorted(works, key=lambda work: work.update.kind)
        counts = [work.update.partials(work.gradient) for work in works]
        every, start = sum(counts), 0
        ends = [0] * KINDS
        with self.device:
            room = self.control.partial(2 * every)
            for work, count in zip(works, counts, strict=True):
                stop = start + count
                parts = room[start:stop], room[every + start : every + stop]
                work.update.squares(work.gradient, self.control.numbers, *parts)
                ends[work.update.kind :] = [stop] * (KINDS - work.update.kind)
                start = stop
        return Measured(room, tuple(ends))

    def update(self, works: Sequence[Launch]) -> None:
        """Write."""
        with self.device:
            for work in works:
                work.update(work.gradient, work.first, self.control.numbers)


def _order(parameter: Parameter) -> str:
    """In which order of memory ("C" or "F") all arrays of a parameter lie without gaps, or ""."""
    orders = "C" if parameter.needs_c_order else "CF"
    whole = [
        order for order in orders if all(contiguous(array, order) for array in parameter.arrays)
    ]
    return whole[0] if whole and parameter.array.size else ""


def places(parameters: Sequence[Parameter]) -> list[tuple[DeviceParameters, np.ndarray]]:
    """The places of parameters and the positions of their parameters, GPUs first.

    After all checks only a launch can fail, such as one of arrays with gaps, which CuPy compiles
    then: nothing of the CPU's has been touched by that time. Without parameters there is one
    place, a CPU's.
    """
    if not parameters:
        return [(DeviceParameters("cpu", (), ()), np.zeros(0, np.int64))]
    found: dict[tuple[bool, int], list[int]] = {}
    for k, parameter in enumerate(parameters):
        cpu = parameter.backend == "cpu"
        found.setdefault((cpu, 0 if cpu else parameter.array.device.id), []).append(k)
    return [
        (
            DeviceParameters(
                "cpu" if cpu else "cuda", [parameters[k] for k in members], parameters
            ),
            np.array(members),
        )
        for (cpu, _), members in sorted(found.items())
    ]
