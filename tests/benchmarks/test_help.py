"""Every benchmark and every stage of training says what it does and which options it has."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    f"{file.parent.name}.{file.stem}"
    for folder in ("benchmarks", "training")
    for file in (ROOT / folder).glob("*.py")
    if "__main__" in file.read_text()
)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [program, "-h"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    assert stopped.value.code == 0
    described = capsys.readouterr().out
    assert program.startswith("training") or f"-m {program}" in described
    assert "--help" in described
