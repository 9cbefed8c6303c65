"""What a place works with: the gradients of a step, tables, launches, where numbers are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule

from . import launch


class StepGradients(NamedTuple):
    """The gradients of a step, checked."""

    addresses: np.ndarray
    """Of those that tables work on; 0 for others and those that are missing."""
    others: dict[int, Any]
    """The others, by the positions of their parameters."""
    complete: bool
    """Whether all have an address."""
    elements: tuple[str, ...]
    """The element types of the gradients that tables work on; those of before for others."""
    sums: dict[int, Any]
    """Of several gradients of one parameter the sums, which live as long as the step."""


class Bucket(NamedTuple):
    """Parameters that one launch updates."""

    rule: Rule
    formats: Formats
    members: np.ndarray
    """The positions of their parameters."""
    whole: bool
    """Whether these are all there are."""
    firsts: np.ndarray
    """Where in the numbers their coefficients begin."""


class Launch(NamedTuple):
    """One launch of a step."""

    update: launch.Update
    gradient: Any
    first: Any


class CoefficientLayout(NamedTuple):
    """Where in a place's numbers the coefficients of its parameters are.

    Parameters of one group that have missed as many steps share them.
    """

    classes: tuple[tuple[int, int, int], ...]
    """A group's number, how many steps it has missed, the place of its first coefficient."""
    firsts: tuple[int, ...]
    """For each parameter, the place of its first coefficient."""
    width: int
    scales: tuple[int, ...]
    factors: tuple[int, ...]
    """The places of gradients' scales and clip factors."""


class StepPlan(NamedTuple):
    """What a place works by, from one step to the next, until gradients or rules are others."""

    layout: CoefficientLayout
    tables: list[Bucket]
    elements: tuple[str, ...]
    """The element types of dense gradients, for each parameter."""
    headers: Any
    """What looks at NumPy's gradients of these types; None for a GPU's."""
    launches: list[launch.Update]
    """The updates of the tables, once all of them are needed in one step."""
