"""The documents' code: every block of Python runs alone, as printed."""

import ast
import doctest
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import GPU, installed
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)

MAY_BE_MISSING = {"torch", "sklearn", "matplotlib", "rich"}
"""Modules of extras that `gpuadapt[test]` includes: no block is skipped where all tests run."""

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
    """The lines that a block prints, by its comments and by the block of text that follows it."""
    lines = re.findall(r"^\s*print\(.*\)(?:  |\n\s*)# (.*)", example.parsed, re.MULTILINE)
    after = re.match(r"\s*```text\n(.*?)```", example.document.text[example.end :], re.DOTALL)
    return lines + (after[1].splitlines() if after else [])


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
