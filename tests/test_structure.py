"""The shape of the code: what imports what, what is exported, that documentation exists."""

import ast
import inspect
import re
import runpy
import tomllib
from functools import cache
from pathlib import Path

import pytest

import gpuadapt as ga
from gpuadapt import arrays, cli, errors, hyperparameters, launch
from gpuadapt.kernels import options
from gpuadapt.optimizers import variants

ROOT = Path(__file__).parent.parent


def imports(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


ROOMS = {
    "errors": "",
    "array_types": "",
    "addresses": "",
    "user_folder": "",
    "commit": "",
    "copies": "commit",
    "host_functions": "",
    "language": "",
    "pieces": "language",
    "rules": "language host_functions pieces",
    "averaging": "language",
    "averages": "averaging language host_functions",
    "options": "averaging language",
    "formats": "language",
    "numerics": "language formats",
    "catchup": "language formats numerics",
    "cpu": "language formats numerics catchup commit copies addresses user_folder",
    "cuda": "language formats numerics catchup commit copies user_folder",
    "sources": "language formats cpu cuda",
}
"""What each part of kernels/ may import besides itself, errors and array_types; the rest of
gpuadapt may import all of it."""


def modules():
    """Every module's full name and file."""
    for folder in ("gpuadapt", "kernels"):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[:2] != ("gpuadapt", "kernels"):
                name = ".".join(("gpuadapt",) * (folder == "kernels") + parts)
                yield name.removesuffix(".__init__"), file


@cache
def graph():
    """The modules that each module imports, anywhere in it: for types, in functions, by name."""
    files = dict(modules())
    return {name: _imported(name, file, files) for name, file in files.items()}


def _imported(name, file, files):
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found, patterns = set(), []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join((*parts, *filter(None, [node.module])))
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= inner & set(files) or {module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            pieces = getattr(node.args[0], "values", [node.args[0]])
            written = (re.escape(x.value) if isinstance(x, ast.Constant) else ".*" for x in pieces)
            patterns.append("".join(written))
    found |= {module for module in files for each in patterns if re.fullmatch(each, module)}
    return found & set(files) - {name}


def test_rooms_are_imported_downwards():
    for name, imported in graph().items():
        above, room = name.split(".")[1:3] if name.count(".") > 1 else ("", "")
        if above == "kernels":
            assert room in ROOMS, f"{name}: a line in ROOMS says what it may import"
            for other in imported:
                allowed = (room, "errors", "array_types", *ROOMS[room].split())
                assert other.split(".")[1:3] in [["kernels", each] for each in allowed], (
                    f"{name} imports {other}"
                )


def test_nothing_imports_itself():
    """No circle of modules, whatever kind of import it is made of."""
    remaining = {name: set(imported) for name, imported in graph().items()}
    while free := {name for name, imported in remaining.items() if not imported}:
        remaining = {
            name: imported - free for name, imported in remaining.items() if name not in free
        }
    assert not remaining, f"a circle is in or below {sorted(remaining)}"


def test_the_reference_imports_nothing_of_the_package():
    assert list(imports(ROOT / "tests" / "reference.py")) == ["numpy"]


LONG = {
    ("kernels/cuda/generate.py", "block"),
    ("benchmarks/exact.py", "run"),
}
"""Functions that are longer, most of them because they fill in a kernel's text."""


@pytest.mark.parametrize("folder", ["gpuadapt", "kernels", "benchmarks", "docs"])
def test_functions_are_short(folder):
    """At most 60 lines after the docstring."""
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                known = (str(file.relative_to(ROOT)), node.name) in LONG
                assert lines <= 60 or known, f"{file}: {node.name} has {lines} lines"


def test_kernels_are_files():
    """Text of kernels stands in source files; shorter pieces, and the generators', are strings."""
    for file in (ROOT / "kernels").rglob("*.py"):
        assert not file.stem.endswith(("_text", "_source")), file
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and node not in docs and file.name != "generate.py":
                assert len(text.strip("\n").splitlines()) <= 10, (file, node.lineno)


def test_only_launch_dispatches():
    """Nothing else names a module of a backend, but to describe or time it, or to check text."""
    for file in (ROOT / "gpuadapt").rglob("*.py"):
        if file.name not in ("launch.py", "machine.py", "testing.py", "limits.py", "threads.py"):
            assert not any(re.search(r"kernels\.(cpu|cuda)", n) for n in imports(file)), file


def test_every_optimizer_is_exported():
    classes = {
        name
        for file in (ROOT / "gpuadapt" / "optimizers").glob("*.py")
        for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert classes == set(ga.optimizers.__all__)
    assert set(ga.__all__) <= set(dir(ga)) and classes < set(ga.__all__)


def test_every_error_is_exported_and_of_one_family():
    for name in errors.__all__:
        family = UserWarning if name.endswith("Warning") else ga.Error
        assert issubclass(getattr(ga, name), family)


def test_public_docstrings_have_their_sections():
    for name in ga.__all__:
        value = getattr(ga, name)
        if inspect.isclass(value) and issubclass(value, ga.Optimizer):
            assert "Parameters\n" in value.__doc__, name
            if value is not ga.Optimizer:
                for part in (".. math::", "State:"):
                    assert part in value.__doc__, (name, part)
    for module in (arrays, cli, errors, hyperparameters, launch, options, variants):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                assert name.startswith("_") or value.__doc__, (module, name)


def test_every_package_is_listed():
    """setuptools is told of each folder: it cannot find those of kernels/ by their names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {"gpuadapt.kernels.cuda.include"}
    for folder in ("gpuadapt", "kernels"):
        for file in (ROOT / folder).rglob("__init__.py"):
            name = ".".join(file.parent.relative_to(ROOT).parts)
            if not name.startswith("gpuadapt.kernels"):
                found.add(name.replace("kernels", "gpuadapt.kernels", 1))
    assert project["tool"]["setuptools"]["packages"] == sorted(found)


def test_ci_runs_the_command_that_the_readme_prints():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2 and commands[1].endswith("-m pytest")
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_table_of_formats_is_what_the_tests_try():
    scope = runpy.run_path(str(ROOT / "docs" / "formats.py"))
    text = scope["PAGE"].read_text(encoding="utf-8")
    assert scope["page"](text) == text


def test_the_page_of_combinations_is_what_the_code_says():
    scope = runpy.run_path(str(ROOT / "docs" / "combinations.py"))
    assert scope["PAGE"].read_text(encoding="utf-8") == scope["page"]()


def in_the_tree():
    """Paths of files and of folders without files of their own, in CONTRIBUTING's tree."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files, folders, above = set(), set(), []
    for line in page.split("```text\n")[1].split("```")[0].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*((?:[\w.]+/?,? )*[\w.]+/?)(?:\s|$)", line)[1]
        for name in re.findall(r"[\w]+(?:\.(?:py|cuh)|/)", names):
            path = "".join([*above[:level], name])
            if name.endswith("/"):
                above = [*above[:level], name]
                folders.add(path)
            else:
                files.add(path)
    return files, {folder for folder in folders if not any(f.startswith(folder) for f in files)}


def test_the_tree_of_contributing_is_the_code():
    """Every file has a line; of a folder that has a line alone, no file needs one."""
    files, folders = in_the_tree()
    found = {
        str(file.relative_to(ROOT))
        for folder in ("gpuadapt", "kernels")
        for suffix in ("py", "cuh")
        for file in (ROOT / folder).rglob(f"*.{suffix}")
        if file.name != "__init__.py" and "gpuadapt/kernels" not in str(file)
    }
    found = {name for name in found if not any(name.startswith(folder) for folder in folders)}
    assert sorted(files) == sorted(found) and len(files) > 100


def test_the_files_that_contributing_names_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:kernels|gpuadapt|tests|docs|benchmarks)/[\w/]*[\w.]*\w", page)
    assert len(named) > 50
    for name in named:
        assert (ROOT / name).exists() or "<" in page[page.index(name) :][: len(name) + 1], name


def test_the_diff_that_is_shown_is_the_code():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    added = 0
    for line in page.split("```diff\n")[1].split("```")[0].splitlines():
        if line.startswith("+++ b/"):
            text = (ROOT / line.removeprefix("+++ b/")).read_text(encoding="utf-8").splitlines()
        elif line.startswith("+"):
            assert line[1:] in text, line
            added += 1
    assert 30 < added < 45
