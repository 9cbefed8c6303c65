"""What type checkers are tried on, at run time: the right script runs, wrong lines raise."""

import runpy
from pathlib import Path

import pytest

import gpuadapt as ga

SCRIPTS = Path(__file__).parent / "typing"
"""`python tests/typing/check.py` runs type checkers on them."""


def test_the_right_script_runs(capsys):
    runpy.run_path(str(SCRIPTS / "right.py"))
    assert len(capsys.readouterr().out.splitlines()) > 9


LINES = (SCRIPTS / "wrong.py").read_text(encoding="utf-8").splitlines()
WRONG = [line for line in LINES if "# wrong: " in line]


@pytest.mark.usefixtures("by_numpy")
@pytest.mark.parametrize("line", WRONG)
def test_what_type_checkers_refuse_is_refused(line):
    scope = {}
    exec("\n".join(line for line in LINES if line not in WRONG), scope)
    with pytest.raises((ga.Error, TypeError, AttributeError)):
        exec(line, scope)
