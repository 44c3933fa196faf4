"""`consistent4d doctor`: one screen, an exit code, and JSON that names nobody."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from consistent4d_ns.cli import doctor as command
from consistent4d_ns.cli.doctor import Report, as_json, as_text, doctor, without_folders
from consistent4d_ns.setup.diagnosis import problems
from consistent4d_ns.setup.machine import Machine
from consistent4d_ns.setup.weights import Found
from tests.setup.test_diagnosis import GOOD, NO_GPU, PACKAGES, PRESENT

LINES = 54
"""Lines of a screen."""


def report(machine: Machine = GOOD, weights: Sequence[Found] = PRESENT) -> Report:
    return Report(machine, PACKAGES, weights, problems(machine, PACKAGES, weights))


def test_a_machine_that_has_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(command, "examine", report)
    doctor()
    printed = capsys.readouterr().out
    for part in ("NVIDIA H100 80GB HBM3, 79.6 GiB, 79.0 free", "580.1", "13.0", "2.11.0", "Nothing is missing."):
        assert part in printed
    assert "cannot run" not in printed
    assert "6 to 8 GiB" in printed


def test_where_the_default_preset_cannot_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The exit code says so, and the reason is told; in JSON too."""
    monkeypatch.setattr(command, "examine", lambda: report(NO_GPU))
    for as_data in (False, True):
        with pytest.raises(SystemExit) as end:
            doctor(json=as_data)
        assert end.value.code == 1
        assert "there is no NVIDIA GPU with a driver" in capsys.readouterr().out
    text = as_text(report(NO_GPU))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("consistent4d")}
    assert "cannot run" in rows["consistent4d"]
    assert "can run " in rows["consistent4d-mini"]


def test_json():
    content = json.loads(as_json(report(NO_GPU)))
    assert content["presets"]["consistent4d-mini"]["reasons"] == []
    assert content["presets"]["consistent4d"]["reasons"]
    assert content["weights"]["rife"]["state"] == "present"
    assert content["machine"]["driver"] is None
    assert content["packages"]["torch"]["fits"] is True


def test_folders_are_not_told():
    said: Any = {"a": ["/home/someone/env/lib/libcudart.so.12: cannot open", 3, None], "b": "see docs/x.md or ~/a/b.pt"}
    assert without_folders(said) == {"a": ["libcudart.so.12: cannot open", 3, None], "b": "see docs/x.md or b.pt"}
    assert without_folders("https://a.b/c/d") == "https://a.b/c/d"


@pytest.mark.slow
def test_the_command_without_a_network_or_programs(tmp_path: Path):
    """In a process of its own: quick, complete, and private."""
    home = tmp_path / "home of nobody"
    env = {"HOME": str(home), "PATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    env |= {name: os.environ[name] for name in ("PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    done, data = (
        subprocess.run(
            [sys.executable, "-m", "consistent4d_ns.cli.main", "doctor", *options],
            **{"env": env, "cwd": tmp_path, "capture_output": True, "text": True},
        )
        for options in ((), ("--json",))
    )
    assert done.returncode == data.returncode == 1, done.stderr
    assert done.stderr == "Looking at this machine ...\n"
    assert len(done.stdout.splitlines()) <= LINES
    for part in ("consistent4d weights rife", "consistent4d weights zero123-xl", "apt install build-essential"):
        assert part in done.stdout
    content = json.loads(data.stdout)
    assert content["presets"]["consistent4d-mini"]["reasons"] == []
    for private in (str(tmp_path), str(home), str(Path.home()) + "/", os.uname().nodename, f"/{getpass.getuser()}/"):
        assert private not in data.stdout
    assert list(tmp_path.iterdir()) == []
