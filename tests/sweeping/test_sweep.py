"""`consistent4d sweep` as a whole on the CPU: runs of a few steps, repeated, with failures, and its page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consistent4d_ns.cli.main import main
from consistent4d_ns.cli.sweep import places_of
from consistent4d_ns.errors import InputError
from consistent4d_ns.record.history import read_history
from consistent4d_ns.runs import read_config
from consistent4d_ns.sweeping import processes
from tests.support.commands import StartedModule
from tests.support.tiny import toy_folder

pytestmark = pytest.mark.slow

STEPS = 5
SMALL = (
    *("machine.device_type=cpu", f"max_num_iterations={STEPS}", "pipeline.guidance.kind=none"),
    *("pipeline.targets.hold.steps=0", "pipeline.datamanager.dataparser.image_size=32"),
    *("pipeline.datamanager.plan.image_sizes=16 32", "pipeline.datamanager.plan.reference_sizes=32"),
    *("pipeline.model.grid_resolutions=8 8 8 4 16 16 16 8",),
)
FILM = ("--seconds", "0.5", "--fps", "8", "--no-figures")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a toy, where no prior's weights are found and processes start quickly."""
    toy_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(processes, "Popen", StartedModule)
    return tmp_path


def swept(capsys: pytest.CaptureFixture[str], *values: str) -> tuple[object, str, str]:
    """A sweep over these values of an option: its exit code, and what it printed."""
    settings = [*SMALL, f"pipeline.interpolation.kind={','.join(values)}"]
    try:
        main(["sweep", "consistent4d-mini", "--data", "toy", "--out", "out", "--seeds", "3", "--set", *settings, *FILM])
        code: object = 0
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_failure_stops_no_other_and_what_is_done_is_not_done_again(place: Path, capsys: pytest.CaptureFixture[str]):
    """One of the two runs cannot be trained, because weights are missing."""
    folder = place / "out" / "toy" / "consistent4d-mini"
    fine, failing = (f"interpolation.kind-{kind}_seed-3" for kind in ("none", "rife"))
    code, out, said = swept(capsys, "rife", "none")
    assert code == 1, said
    assert out.splitlines()[-1] == str(folder / "sweep.html")
    assert "2 runs in" in said
    assert f"{failing}: failed, RIFE weights are not at" in said
    assert f"all it said is in {folder / failing}.log" in said
    assert f"{fine}: finished in" in said
    assert f"1 of 2 runs failed: {failing}. Repeat the command" in said
    assert {f"{failing}.log", fine, f"{fine}.log", "sweep.html"} <= {file.name for file in folder.iterdir()}
    config = read_config(folder / fine)
    assert (config.machine.seed, config.pipeline.guidance.kind, config.overwrite) == (3, "none", False)
    assert [row["step"] for row in read_history(folder / fine / "losses.jsonl")] == list(range(STEPS))
    page = (folder / "sweep.html").read_text()
    assert "<h1>consistent4d-mini on toy: 1 run</h1>" in page
    assert f"{failing} failed: RIFE weights are not at" in page

    written = (folder / fine / "config.yml").stat().st_mtime_ns
    code, _, said = swept(capsys, "rife", "none")
    assert code == 1
    assert "1 of them finished; training 1" in said
    assert (folder / fine / "config.yml").stat().st_mtime_ns == written

    # One that was ended before its last checkpoint begins anew.
    for file in (folder / fine / "nerfstudio_models").iterdir():
        file.unlink()
    _, _, said = swept(capsys, "rife", "none")
    assert "0 of them finished; training 2" in said
    assert (folder / fine / "config.yml").stat().st_mtime_ns > written


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", "0", "1", "--data", "gone"), "gone does not exist: give --data"),
        (("--seeds", "0", "1", "--size", "3"), "--size is 3"),
        (("--seeds", "0", "1", "--devices", "0", "99"), "this machine has no such GPU"),
        (("--seeds", "0", "1", "--data", "empty"), "empty"),
        (("--seeds", "0", "1", "--out", "taken"), "sweep.html is not a page of an earlier sweep"),
        ((), "nothing to vary"),
    ],
)
def test_what_cannot_be_swept(place: Path, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]):
    (place / "empty").mkdir()
    theirs = place / "taken" / "toy" / "consistent4d-mini" / "sweep.html"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(["sweep", "consistent4d-mini", "--data", "toy", "--set", "machine.device_type=cpu", *options])
    assert end.value.code in (1, 2)
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert sorted(place.rglob("*")) == before
    assert theirs.read_text() == "theirs"


def test_places_of_gpus(monkeypatch: pytest.MonkeyPatch):
    """Numbers count within what the environment leaves visible."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [dict(place.env) for place in places_of((1, 0))] == [
        {"CUDA_VISIBLE_DEVICES": "1"},
        {"CUDA_VISIBLE_DEVICES": "0"},
    ]
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert [dict(place.env) for place in places_of((0, 1))] == [
        {"CUDA_VISIBLE_DEVICES": "5"},
        {"CUDA_VISIBLE_DEVICES": "GPU-abc"},
    ]
    for wrong in ((0, 0), (2,), (-1,)):
        with pytest.raises(InputError):
            places_of(wrong)
    assert [dict(place.env) for place in places_of(())] == [{}]
