"""What `help`, `inspect.signature` and `dir` show, and the types of options, against what is so."""

import importlib
import inspect
import pickle
import re
import types
import typing
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
import torch
from cases import CASES

import gpuadapt as ga
import gpuadapt.torch
from gpuadapt import choices, optimizers, presets, suggest
from gpuadapt.hyperparameters import DEFAULTS
from gpuadapt.kernels import formats
from gpuadapt.signatures import own_names

pytestmark = pytest.mark.usefixtures("by_numpy")

TORCH = gpuadapt.torch


def members(module):
    return {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}


NAMED = members(optimizers)
PRESETS = {
    name: make for each in presets.__all__ for name, make in members(getattr(presets, each)).items()
}
OF_TORCH = {
    name: make
    for name, make in members(TORCH).items()
    if issubclass(make, torch.optim.Optimizer) and make is not TORCH.Optimizer
}


@ga.rule
def own(p, g, m, h):
    m = h.mu * m + g
    return p - h.lr * m, m


def of_an_own_rule(make):
    """The constructor for an own rule, and the signature without the rule."""

    def made(params, **given):
        return make(own, params, **{"lr": 0.1, "mu": 0.9} | given)

    signature = inspect.signature(make)
    kept = [p for p in signature.parameters.values() if p.name not in ("rule", "hyperparameters")]
    made.__signature__ = signature.replace(parameters=kept)
    return made


OWN = {make.__module__: of_an_own_rule(make) for make in (ga.Optimizer, TORCH.Optimizer)}
CONSTRUCTORS = NAMED | PRESETS | OF_TORCH | OWN
EVERY_NAME = {
    name for make in CONSTRUCTORS.values() for name in inspect.signature(make).parameters
} | {*DEFAULTS, *suggest.HERE, *suggest.ELSEWHERE, "options", "self", "hyperparameters"}
NEEDED = {"learning_rate": 0.1, "momentum": 0.9}
"""Of what has no default, and of optax's adadelta, whose default is refused."""


def params_for(name):
    return [torch.nn.Parameter(torch.ones(3))] if ".torch" in name and "presets" not in name else (
        np.ones(3, np.float32))  # fmt: skip


def made(name, **given):
    return CONSTRUCTORS[name](params_for(name), **given)


def described(optimizer):
    """All settings, and the rule."""
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return repr((groups, getattr(optimizer, "rule", None), optimizer.state_dict()["state"]))


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_signature_is_all_that_is_accepted(name):
    """Every name with its default, which changes nothing; no other name."""
    first, *parameters = inspect.signature(CONSTRUCTORS[name]).parameters.values()
    assert first.name == "params"
    needed = {p.name: NEEDED[p.name] for p in parameters if p.default is p.empty}
    if name.endswith("optax.adadelta"):
        needed = {"learning_rate": 0.1}
    plain = described(made(name, **needed))
    for parameter in parameters:
        assert parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if parameter.name in needed:
            continue
        default = parameter.default
        if parameter.name == "betas":
            default = tuple(default)
        assert described(made(name, **needed, **{parameter.name: default})) == plain, parameter
    for other in EVERY_NAME - {p.name for p in parameters} - {"params"}:
        if name in OWN and other in ("lr", "mu", "betas", "beta1", "beta2"):
            continue  # hyperparameters of the rule
        with pytest.raises(TypeError):
            made(name, **needed, **{other: (0.5, 0.5) if other == "betas" else 0.5})


@pytest.mark.parametrize("name", [*NAMED, *PRESETS, *OF_TORCH])
def test_help_shows_the_same(name):
    make = CONSTRUCTORS[name]
    text = str(inspect.signature(make.__init__ if isinstance(make, type) else make))
    assert "**" not in text and "rounding: 'Rounding' = 'nearest'" in text
    assert make.__doc__


def test_adamw_shows_all_of_adam():
    ours = {name: inspect.signature(getattr(ga, name)).parameters for name in ("Adam", "AdamW")}
    assert ours["Adam"].keys() == ours["AdamW"].keys()
    differ = {k for k, p in ours["Adam"].items() if p.default != ours["AdamW"][k].default}
    assert differ == {"weight_decay", "decay"}


# Choices ------------------------------------------------------------------------------------


def choices_of(annotation):
    """The values of the Literals that an annotation names."""
    kinds = {getattr(choices, word, None) for word in re.findall(r"\w+", annotation)}
    literals = [kind for kind in kinds if typing.get_origin(kind) is typing.Literal]
    return [value for kind in literals for value in typing.get_args(kind)]


CHOICES = [
    (name, parameter.name, values)
    for name, make in (CONSTRUCTORS | {"gpuadapt.RowGrad": ga.RowGrad}).items()
    for parameter in inspect.signature(make).parameters.values()
    if (values := choices_of(parameter.annotation))
    # Presets pass what they do not name on to a class that is in the table.
    and (name not in PRESETS or parameter.name in own_names(make))
]


def test_choices_are_the_formats_names():
    """Written in kernels/ too, which does not import gpuadapt."""
    for literal, known in (
        (choices.StateDtype, formats.STATES),
        (choices.ParameterDtype, formats.PLAIN),
        (choices.Master, formats.MASTERS),
        (choices.Rounding, formats.ROUNDINGS),
    ):
        assert typing.get_args(literal) == tuple(known)
    assert len({option for _, option, _ in CHOICES}) >= 11


@pytest.mark.parametrize(("name", "option", "values"), CHOICES, ids=lambda value: str(value)[:40])
def test_choices_are_what_is_accepted(name, option, values):
    """The message about another value lists these, and None, True or False where they are known."""
    needed = {"learning_rate": 0.1, "momentum": 0.9}
    known = inspect.signature(CONSTRUCTORS.get(name, ga.RowGrad)).parameters
    needed = {k: v for k, v in needed.items() if k in known and known[k].default is known[k].empty}
    if name == "gpuadapt.RowGrad":
        call = partial(ga.RowGrad, np.array([0]), np.ones((1, 2)))
    elif option == "check":  # looked at when there are rows
        call = lambda check: made(name, **needed, check=check).step(np.ones(3, np.float32))  # noqa: E731
    else:
        call = partial(made, name, **needed)
    with pytest.raises(ga.Error) as error:
        call(**{option: "other"})
    listed = str(error.value).partition("expected one of ")[2].split(", ")
    assert {*listed} - {"None", "True", "False"} == {*map(repr, values)}


# Groups -------------------------------------------------------------------------------------

KEYS = defaultdict(set)
"""All settings of a group, by method, over its variants."""
for case in CASES:
    KEYS[case.make.__name__] |= {*case.optimizer(np.ones(3)).param_groups[0]}


@pytest.mark.parametrize("name", optimizers.__all__)
def test_the_type_of_a_group_has_the_keys_of_a_group(name):
    parameters = inspect.signature(getattr(ga, name)).parameters
    kind = parameters["params"].annotation.removeprefix("ParamsOrGroups[").removesuffix("]")
    found = {k: a.__forward_arg__ for k, a in getattr(ga.typing, kind).__annotations__.items()}
    betas = {"betas"} if "beta1" in KEYS[name] else set()
    averages = {"average_decay", "average_alpha"}  # of an optimizer with such an average
    assert found.keys() == KEYS[name] | betas | averages
    for key in found.keys() - {"params"} - averages:
        assert found[key] == parameters[key].annotation, key


# Names --------------------------------------------------------------------------------------

PUBLIC = {
    module.__name__: module
    for each in (ga, presets, TORCH)
    for module in (each, *(getattr(each, name) for name in each.__all__))
    if isinstance(module, types.ModuleType)
}


@pytest.mark.parametrize("name", PUBLIC)
def test_dir_shows_public_names_alone(name):
    module = PUBLIC[name]
    shown = dir(module)
    assert shown == sorted({*shown}) and not any(each.startswith("__main") for each in shown)
    if hasattr(module, "__all__"):
        assert {*shown} - {"__version__"} == {*module.__all__}
    for each in shown:
        value = getattr(module, each)
        assert isinstance(value, types.ModuleType) or not each.startswith("_") or name == "gpuadapt"
    assert len(PUBLIC) >= 14


def test_what_dir_does_not_show_is_there():
    assert "launch" not in dir(ga) and "partial" not in dir(ga.language)
    assert importlib.import_module("gpuadapt.launch").bind_rows
    assert ga.optimizers.Adam is ga.Adam and ga.schedules.Function
    for each in (ga.Adam, ga.rule, ga.schedules.Linear, ga.presets.torch.Adam, TORCH.Adam):
        assert pickle.loads(pickle.dumps(each)) is each
    with pytest.raises(AttributeError, match="did you mean Adagrad"):
        _ = ga.AdaGrad
    assert not hasattr(ga, "partial_")


def test_every_type_of_a_keyword_can_be_imported():
    """Names in annotations that a user sees, such as in `help`."""
    words = {
        word
        for make in CONSTRUCTORS.values()
        for parameter in inspect.signature(make).parameters.values()
        for word in re.findall(r"\w+", parameter.annotation)
    }
    words -= {
        "bool",
        "int",
        "float",
        "str",
        "None",
        "Mapping",
        "object",
        "Tensor",
        "ParamsT",
        "tuple",
    }
    assert words <= {*ga.typing.__all__, *ga.averages.__all__, "TorchParams"}
