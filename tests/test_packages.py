"""What is packaged, with which version and bounds; a package works wherever it is imported."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gpuadapt as ga

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_said_once():
    """By the package; what else names it agrees."""
    assert "version" in PROJECT["project"]["dynamic"]
    assert importlib.metadata.version("gpuadapt") == ga.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [ga.__version__]
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert released[0] == ga.__version__


def test_the_oldest_releases_are_the_bounds_of_the_dependencies():
    """`tests/oldest.txt`, which .ci/packages takes, pins what pyproject.toml asks for at least."""
    lines = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    asked = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert [each.name for each in pinned] == [each.name for each in asked]
    for oldest, bound in zip(pinned, asked, strict=True):
        (pin,), (least,) = oldest.specifier, bound.specifier
        assert least.operator == ">=" and pin.version in bound.specifier
        assert f"{pin.version}.".startswith(f"{least.version}."), (oldest.name, least)


def test_the_program_is_installed():
    program = Path(sys.executable).parent / "gpuadapt"
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[:2] == ["gpuadapt", ga.__version__]


def test_the_installed_package_is_tested():
    """Not a copy beside the tests, if a wheel is installed."""
    installed = Path(sysconfig.get_paths()["purelib"]) / "gpuadapt" / "__init__.py"
    assert not installed.exists() or installed.samefile(ga.__file__)


@pytest.mark.parametrize("link", ["a link", "a file", "nothing"])
def test_a_checkout_is_imported_whole(link, tmp_path):
    """By its own kernels, whatever is installed, with and without symbolic links (an sdist)."""
    source = Path(ga.__file__).parent
    shutil.copytree(source, tmp_path / "gpuadapt", ignore=shutil.ignore_patterns("kernels"))
    shutil.copytree(Path(ga.kernels.__file__).parent, tmp_path / "kernels")
    if link == "a link":
        (tmp_path / "gpuadapt" / "kernels").symlink_to("../kernels")
    elif link == "a file":  # as git writes a link where there are none
        (tmp_path / "gpuadapt" / "kernels").write_text("../kernels")
    program = (
        "import gpuadapt, gpuadapt.kernels.cuda.compile as inner, pathlib;"
        "print(*(pathlib.Path(m.__file__).resolve() for m in (gpuadapt, inner)), sep='\\n')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [
        str(tmp_path.resolve() / name)
        for name in ("gpuadapt/__init__.py", "kernels/cuda/compile.py")
    ]
