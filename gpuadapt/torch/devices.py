"""The launches of a step on the devices of its parameters."""

from __future__ import annotations

from collections.abc import Sequence

from gpuadapt.kernels.array_types import HostArray

from ..measure import Launch


class Devices:
    """The devices of an optimizer's parameters."""

    def launch(self, launches: Sequence[Launch], numbers: HostArray) -> None:
        """Launch all updates of a round."""
        for update, gradient, offset in launches:
            update(gradient, offset, numbers)
