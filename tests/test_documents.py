"""The documents: every block of Python runs alone, as printed; commands and links exist."""

import argparse
import ast
import doctest
import re
import shlex
import tomllib
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import GPU, installed
from packaging.requirements import Requirement
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from gpuadapt import cli
from gpuadapt.node import find

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)

MAY_BE_MISSING = {"torch", "sklearn", "matplotlib", "rich"}
"""Modules of extras that `gpuadapt[test]` includes: no block is skipped where all tests run."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])

LANGUAGES = {"python", "sh", "text", "diff"}
"""Of blocks: each is checked in a way of its own, so another one needs a test first."""


def blocks(language: str) -> list[Example]:
    """All blocks of one language."""
    return [
        example
        for page in PAGES
        for example in Document.parse(str(page), CodeBlockParser(language, PythonEvaluator()))
    ]


def called(example: Example) -> str:
    """The name of a block in the output of pytest."""
    return f"{Path(example.path).relative_to(ROOT)}:{example.line}"


def imported(source: str) -> set[str]:
    """The packages that a block imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    found = {name.split(".")[0] for name in names}
    return found | {"torch"} if "gpuadapt.torch" in names else found


def said(example: Example) -> list[str]:
    """The lines that a block prints, by its comments and by the next block, if it is text."""
    lines = re.findall(r"^\s*print\(.*\)(?:  |\n\s*)# (.*)", example.parsed, re.MULTILINE)
    after = example.document.text[example.end :].partition("```")[2]
    if after.startswith("text\n"):
        lines += after.partition("```")[0].splitlines()[1:]
    # Where there is no Node, `check_rule` says so instead.
    return [line for line in lines if line != "javascript: equal" or find()]


@pytest.mark.parametrize("example", [pytest.param(e, id=called(e)) for e in blocks("python")])
def test_a_block_runs_alone(example, tmp_path, monkeypatch, capsys):
    """In a namespace and a folder of its own; CuPy is the stand-in where there is no GPU."""
    packages = imported(example.parsed)
    for name in sorted(packages & MAY_BE_MISSING):
        pytest.importorskip(name)
    example.namespace.clear()
    monkeypatch.chdir(tmp_path)
    with installed("gpu" if GPU else "host") if "cupy" in packages else nullcontext():
        example.evaluate()
    printed = iter(capsys.readouterr().out.splitlines())
    matches = doctest.OutputChecker().check_output
    for line in said(example):
        assert any(matches(line, found, doctest.ELLIPSIS) for found in printed), line


def test_no_block_is_left_out():
    fences = [
        (page.name, language)
        for page in PAGES
        for language in re.findall(r"^\s*```(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert {language for _, language in fences} <= LANGUAGES
    written = [page for page, language in fences if language == "python"]
    assert [Path(example.path).name for example in blocks("python")] == written
    assert len(written) > 20


def options(command: str) -> set[str]:
    """The options of a command of gpuadapt."""
    parser = argparse.ArgumentParser()
    cli.COMMANDS[command].add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def inline_commands() -> list[tuple[str, str]]:
    """Pages and commands of gpuadapt that stand in their sentences."""
    return [
        (page.name, " ".join(command.split()))
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for command in re.findall(r"`gpuadapt\s+([a-z][^`]*)`", page.read_text(encoding="utf-8"))
    ]


def test_commands_of_sentences_exist():
    found = inline_commands()
    assert len(found) > 5
    for page, command in found:
        name, *rest = command.split()
        assert name in cli.COMMANDS, (page, command)
        named = set(re.findall(r"--[a-z][\w-]*", " ".join(rest)))
        assert named <= options(name), (page, command)


def shell_lines() -> list:
    """The commands of all blocks of shell, each as a parameter named by its place."""
    return [
        pytest.param(command, id=f"{called(example)} {command}")
        for example in blocks("sh")
        for line in example.parsed.splitlines()
        for command in line.split("&&")
        if command.split("#")[0].strip()
    ]


def refers(words: list[str]) -> bool:
    """Do the options, extras and files of a command exist, of one that we know how to check?"""
    match words:
        case ["gpuadapt", *arguments]:
            return cli.main(arguments) == 0
        case ["pip", "install", *targets]:
            names = [re.sub(r"^\.", "gpuadapt", name) for name in targets if name[0] != "-"]
            asked = [each for each in map(Requirement, names) if each.name == "gpuadapt"]
            return {extra for each in asked for extra in each.extras} <= EXTRAS
        case ["python" | "python3", "-m", module, *_]:
            return module == "venv" or find_spec(module) is not None
        case ["python" | "python3" | "bash", file, *_]:
            return (ROOT / file).exists() or file == "warm.py"
    return words[0] in ("export", "chmod", "git", "cd")


@pytest.mark.parametrize("command", shell_lines())
def test_a_command_of_a_block_exists(command, monkeypatch):
    """As it is written: options are parsed, extras and files are looked up, nothing is run."""
    for module in cli.COMMANDS.values():
        monkeypatch.setattr(module, "run", lambda given: 0)
    words = [word.removeprefix(".venv/bin/") for word in shlex.split(command, comments=True)]
    assert refers(words), words


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_within_the_project_resolve(page):
    code = r"```.*?```|`[^`]*`"
    text = re.sub(code, "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).resolve().is_relative_to(ROOT), target
            assert (page.parent / target).exists(), target
