"""Suggest names in error messages: by spelling, and by the names of other libraries."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable

HERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("learning_rate", "learn_rate", "step_size", "eta", "initial_lr"), ("lr",)),
    "alpha": ("rho", "lr"),
    **dict.fromkeys(("epsilon", "eps_hat", "delta"), ("eps",)),
    **dict.fromkeys(("beta_1", "b1"), ("beta1",)),
    **dict.fromkeys(("beta_2", "b2"), ("beta2",)),
    "momentum": ("beta1", "momentum"),
    "rho": ("beta2", "rho"),
    "beta1": ("momentum",),
    "beta2": ("rho",),
    "smoothing": ("rho",),
    **dict.fromkeys(
        ("weight_decay_rate", "weightdecay", "wd", "l2", "lambd", "l2_regularization"),
        ("weight_decay",),
    ),
    "l1_regularization_strength": ("l1",),
    "l2_regularization_strength": ("l2",),
    "decoupled_weight_decay": ("decay",),
    **dict.fromkeys(
        ("initial_accumulator_value", "initial_scale"), ("initial_accumulator", "initial_square")
    ),
    "use_nesterov": ("nesterov",),
    "ascend": ("maximize",),
}
"""From the name of a setting in other libraries to its names here."""

ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(
        ("max_norm", "clipnorm", "clip_norm", "global_clipnorm", "max_grad_norm", "grad_clip"),
        "optimizer.step(grads, max_norm=...)",
    ),
    **dict.fromkeys(("clipvalue", "clip_value"), "optimizer.step(grads, clip_value=...)"),
    **dict.fromkeys(
        ("grad_scale", "loss_scale", "loss_scale_factor"), "optimizer.step(grads, grad_scale=...)"
    ),
    "skip_nonfinite": "optimizer.step(grads, skip_nonfinite=True)",
    "amsgrad": "amsgrad=True of the constructor of Adam or AdamW",
    "nesterov": "nesterov=True of the constructor of SGD, or NAdam",
    "momentum": "momentum=... of the constructor of SGD or RMSprop",
    "centered": "centered=True of the constructor of RMSprop",
    **dict.fromkeys(
        ("schedule", "scheduler", "lr_schedule", "lr_scheduler", "learning_rate_schedule"),
        "lr=schedules.Cosine(start, end, steps) or another of gpuadapt.schedules",
    ),
    **dict.fromkeys(
        ("warmup", "warmup_steps", "num_warmup_steps", "warmup_ratio"),
        "lr=schedules.WarmUp(steps, then) of gpuadapt.schedules",
    ),
    **dict.fromkeys(
        ("ema", "use_ema", "ema_decay", "ema_momentum", "moving_average", "use_averages"),
        "average=averages.Exponential(decay) of gpuadapt.averages",
    ),
    **dict.fromkeys(
        ("swa", "use_swa", "swa_start"), "average=averages.Equal(start) of gpuadapt.averages"
    ),
    "lookahead": "average=averages.Lookahead(alpha, every=k) of gpuadapt.averages",
    **dict.fromkeys(
        ("lr_lambda", "lr_lambdas"), "lr=function, which gets the step and returns the rate"
    ),
}
"""From the name of a setting to where it is given instead."""

METHODS: dict[str, str] = {
    "momentum": "SGD(params, momentum=0.9)",
    "momentumsgd": "SGD(params, momentum=0.9)",
    "nesterovag": "SGD(params, momentum=0.9, nesterov=True)",
    "nesterov": "SGD(params, momentum=0.9, nesterov=True)",
    "sparseadam": 'Adam, whose step takes RowGrad ("table": RowGrad(rows, values))',
    "amsgrad": "Adam(params, amsgrad=True)",
    "rmspropgraves": "RMSprop(params, centered=True, momentum=0.9)",
    "gradscaler": "LossScale",
    "gradientdescent": "SGD",
    "lookahead": "Adam(params, average=averages.Lookahead())",
    **dict.fromkeys(
        ("ema", "exponentialmovingaverage", "movingaverage"),
        "Adam(params, average=averages.Exponential(decay))",
    ),
    **dict.fromkeys(("averagedmodel", "swa"), "Adam(params, average=averages.Equal(start))"),
}
"""From a method's name in lower case to the constructor that has it here."""


SCHEDULES: dict[str, str] = {
    **dict.fromkeys(("constant", "constantschedule"), "schedules.Constant(value)"),
    **dict.fromkeys(
        ("linear", "linearlr", "linearschedule"), "schedules.Linear(start, end, steps)"
    ),
    **dict.fromkeys(
        ("cosine", "cosinedecay", "cosineannealing", "cosineannealinglr", "cosinedecayschedule"),
        "schedules.Cosine(start, end, steps)",
    ),
    **dict.fromkeys(
        ("polynomial", "polynomiallr", "polynomialdecay", "polynomialschedule"),
        "schedules.Polynomial(start, end, steps, power)",
    ),
    **dict.fromkeys(
        ("exponential", "exponentiallr", "exponentialdecay"),
        "schedules.Exponential(start, rate, steps)",
    ),
    "steplr": "schedules.Exponential(start, rate, steps, staircase=True)",
    **dict.fromkeys(
        ("constantlr", "multisteplr", "piecewise", "piecewiseconstant", "piecewiseconstantdecay",
         "piecewiseconstantschedule"),
        "schedules.Piecewise(values, boundaries)",
    ),
    **dict.fromkeys(
        ("onecycle", "onecyclelr", "cosineonecycleschedule", "linearonecycleschedule"),
        "schedules.OneCycle(peak, steps)",
    ),
    **dict.fromkeys(
        ("warmup", "warmupconstantschedule", "warmupcosinedecayschedule",
         "warmupexponentialdecayschedule"),
        "schedules.WarmUp(steps, then)",
    ),
    **dict.fromkeys(
        ("join", "joinschedules", "sequentiallr", "sgdrschedule", "cosinedecayrestarts",
         "cosineannealingwarmrestarts", "piecewiseinterpolateschedule"),
        "schedules.Join(schedules, boundaries)",
    ),
    **dict.fromkeys(("lambdalr", "multiplicativelr"), "lr=function, which gets the step"),
    **dict.fromkeys(("schedule", "scheduler", "lrscheduler", "learningrateschedule"), "schedules"),
}  # fmt: skip
"""From a schedule's name in lower case to its name here."""


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name with the most similar spelling, or None."""
    names = {"".join(filter(str.isalnum, each)).lower(): each for each in known}
    plain = "".join(filter(str.isalnum, name)).lower()
    found = difflib.get_close_matches(plain, names, 1, 0.7)
    return names[found[0]] if found else None


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return the phrase that a message suggests for the name of a setting, or None."""
    names = list(known)
    found = [each for each in HERE.get(name, ()) if each in names]
    if found:
        return " or ".join(found)
    return ELSEWHERE.get(name) or near(name, names)


def asked(what: str | None) -> str:
    """Return the question at the start of a message; "" for None."""
    return f"did you mean {what}? " if what else ""


def unknown(name: str, known: Iterable[str], others: Iterable[str] = ()) -> str:
    """Write the message about an unknown setting; suggests from ``others`` too, lists ``known``."""
    names = list(known)
    question = asked(meant(name, [*names, *others]))
    return f"{question}unknown hyperparameter {name!r}; this optimizer has {', '.join(names)}"


def missing(module: str, known: Iterable[str]) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a module, which suggests a known name."""
    names = tuple(known)

    def __getattr__(name: str) -> object:
        instead = None
        if not name.startswith("_"):
            plain = name.lower().replace("_", "")
            instead = {**METHODS, **SCHEDULES}.get(plain) or near(name, names)
        raise AttributeError(
            f"{asked(instead)}module {module!r} has no attribute {name!r}", name=name
        )

    return __getattr__


READ_ONLY: dict[str, str] = {
    "param_groups": 'optimizer.param_groups[0]["lr"] = ..., or `add` for more parameters',
    "params": "params[name][...] = ..., or `add` and `grow` for more parameters and rows",
    "state": "optimizer.state[name][letter][...] = ..., or `load_state_dict`",
    "step_count": "`load_state_dict`",
}
"""From a read-only attribute to what to write instead."""


def options(kind: type) -> list[str]:
    """List the keywords of the constructors of a class and its bases."""
    names = [
        name
        for base in kind.__mro__[:-1]
        for name, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return [name for name in dict.fromkeys(names) if name not in ("self", "rule", "params")]


def setting(name: str, settings: Iterable[str]) -> str | None:
    """Return the statement that changes a setting of a group, or None for other names."""
    known = list(settings)
    if name == "betas" and "beta1" in known:
        return "optimizer.param_groups[0].update(beta1=..., beta2=...)"
    found = [each for each in (name, *HERE.get(name, ())) if each in known]
    return f'optimizer.param_groups[0]["{found[0]}"] = ...' if found else None


def attribute(kind: type, name: str, settings: Iterable[str]) -> str:
    """Write the message about an attribute that cannot be set."""
    known = [each for each in settings if each != "params"]
    there = [each for each in dir(kind) if not each.startswith("_")]
    instead = READ_ONLY.get(name) or setting(name, known) or ELSEWHERE.get(name)
    instead = instead or near(name, there) or setting(near(name, known) or "", known)
    return (
        f"{asked(instead)}attribute {name!r} of {kind.__name__} cannot be set; settings are in "
        "optimizer.param_groups"
    )
