"""What is installed: the one way in which peers find their libraries."""

from __future__ import annotations

import importlib.metadata
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from ..failures import Errors, described

broken: Errors = {}
"""Why an installed module cannot be used, by its name."""


@cache
def load(name: str) -> Any:
    """A module by its name, imported once; None if it, or what it needs, is not installed.

    So it is where the import fails in another way: a library built for other versions, say.
    """
    try:
        return pkgutil.resolve_name(f"{name}:")
    except ImportError:
        return None
    except Exception as error:
        broken[name] = described(error)
        return None


def version(packages: Iterable[str]) -> str:
    """Of the first of these packages that is installed; the same library has several names."""
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
