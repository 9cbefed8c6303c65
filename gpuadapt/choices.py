"""The values of options that are chosen by name, as types. Checks at run time read them too."""

from __future__ import annotations

from typing import Literal

Decay = Literal["l2", "decoupled", "absolute", "after"]
"""Where weight decay acts; each is an option of `gpuadapt.kernels.options`."""

Check = Literal["raise", "skip"]
"""What to do with rows that are out of range."""

Sparse = Literal["lazy", "exact"]
"""What happens to rows that a gradient does not have."""

Exactness = Literal["close", "bits"]
"""How exact rows catch up."""

StateDtype = Literal["float64", "float32", "bfloat16", "float16", "8bit"]
"""Storage types of states: the keys of `STATES` in `gpuadapt.kernels.formats`."""

Master = Literal["float32", "split"]
"""What is kept beside a parameter of 16 bits: the keys of `MASTERS`."""

Rounding = Literal["nearest", "stochastic", "kahan"]
"""How parameters of 16 bits are rounded: the keys of `ROUNDINGS`."""

Duplicates = Literal["sum", "mean"]
"""How duplicate rows of a `RowGrad` are merged."""

TorchSparse = Literal["raise", "lazy", "exact"]
"""What `gpuadapt.torch` does with sparse gradients."""

Backend = Literal["cpu", "cuda"]

ParameterDtype = Literal["float64", "float32", "float16", "bfloat16"]
"""Types of parameters and gradients: the keys of `PLAIN`."""

MomentumForm = Literal["heavy_ball", "velocity"]
"""The learning rate outside or inside the momentum buffer."""

AdagradEps = Literal["inside", "outside", "none"]
RMSpropEps = Literal["inside", "outside"]
AdamEps = Literal["outside", "inside", "uncorrected"]
AdamaxEps = Literal["add", "max"]
"""Where eps stands."""

AMSGrad = Literal["raw", "corrected"]
"""Of which second moment amsgrad keeps the maximum."""
