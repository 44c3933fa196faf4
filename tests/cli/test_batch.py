"""`consistent4d batch` as a whole on the CPU: jobs of a few steps, one that fails, one that died, and the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from consistent4d_ns.batching.records import read_record
from consistent4d_ns.batching.steps import Input
from consistent4d_ns.cli.batch import Batch, EngineOptions, places_for, run
from consistent4d_ns.cli.main import main
from consistent4d_ns.files.checkpoints import list_checkpoints
from consistent4d_ns.record.history import read_history
from consistent4d_ns.sweeping import processes
from tests.batching.works import PROGRAM, step, work
from tests.support.commands import StartedModule
from tests.support.tiny import toy_folder

STEPS = 6
OPTIONS = {
    "machine.device-type": "cpu",
    "max-num-iterations": STEPS,
    "steps-per-save": 3,
    "save-only-latest-checkpoint": False,
    "pipeline.guidance.kind": "none",
    "pipeline.interpolation.kind": "none",
    "pipeline.targets.imagine.steps": 0,
    "pipeline.targets.hold.steps": 0,
    "pipeline.datamanager.dataparser.image-size": 32,
    "pipeline.datamanager.plan.image-sizes": [16, 32],
    "pipeline.datamanager.plan.reference-sizes": [32],
    "pipeline.model.grid-resolutions": "8 8 8 4 16 16 16 8",
}
FILM = ("--seconds", "0.5", "--fps", "8", "--no-figures")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a toy and a file of two jobs, one of which cannot be trained: weights are missing."""
    toy_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jobs = [
        {"name": "bad one", "data": "toy", "options": {"pipeline.interpolation.kind": "rife"}, "exports": ["web"]},
        {"name": "good", "data": "toy"},
    ]
    content = {"defaults": {"method": "consistent4d-mini", "options": OPTIONS}, "jobs": jobs}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def batch(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """The command: its exit code, and what it printed."""
    code: object = 0
    try:
        main(["batch", *words])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.slow
def test_a_failure_stops_no_other_what_is_done_stays_and_what_died_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "Popen", StartedModule)
    code, out, said = batch(capsys, "jobs.yaml", "--out", "out", *FILM)
    assert code == 1, said
    assert "2 jobs in" in said
    assert "bad one: failed, train: RIFE weights are not at" in said
    assert f"all it said is in {place / 'out' / 'bad one' / 'log.txt'}; 1 of 2" in said
    assert "good: done in" in said
    assert out.splitlines()[-1] == str(place / "out" / "comparison.html")
    status = {job["job"]: job for job in json.loads((place / "out" / "status.json").read_text())}
    assert (status["bad one"]["state"], status["bad one"]["left"]) == ("failed", "train web")
    assert status["bad one"]["begun"] == {"train": 1}, "what is refused is not tried again"
    assert (status["good"]["state"], status["good"]["left"]) == ("done", "-")
    page = (place / "out" / "comparison.html").read_text()
    assert "<h1>jobs.yaml: 1 run</h1>" in page
    assert "bad one failed: train: RIFE weights are not at" in page

    run = place / "out" / "good" / "consistent4d-mini" / "run"
    before = {file: file.stat().st_mtime_ns for file in (place / "out").rglob("*") if file.is_file()}
    code, out, said = batch(capsys, "jobs.yaml", "--out", "out", "--only", "good", *FILM)
    assert code == 0, said
    assert "1 of them done; doing 0" in said
    assert "comparison.html stays as it is, as no job was left to do" in said
    changed = {file.name for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed == {"status.json"}

    # As if it had been killed after its first checkpoint.
    first, last = sorted(list_checkpoints(run / "nerfstudio_models").items())
    last[1].unlink()
    record = json.loads((place / "out" / "good" / "job.json").read_text())
    record["state"], record["steps"]["train"]["done"] = "running", False
    (place / "out" / "good" / "job.json").write_text(json.dumps(record))
    losses = read_history(run / "losses.jsonl")
    code, out, said = batch(capsys, "jobs.yaml", "--out", "out", "--only", "good", "--no-page")
    assert code == 0, said
    assert read_history(run / "losses.jsonl")[: first[0] + 1] == losses[: first[0] + 1]
    assert [row["step"] for row in read_history(run / "losses.jsonl")] == list(range(STEPS))
    assert STEPS - 1 in list_checkpoints(run / "nerfstudio_models")
    assert f"step-{first[0]:09d}.ckpt" in (place / "out" / "good" / "log.txt").read_text()
    found = read_record(place / "out" / "good")
    assert found is not None
    assert (found.state, found.steps["train"].begun) == ("done", 2)

    changed_options = (place / "jobs.yaml").read_text().replace(f"max-num-iterations: {STEPS}", "max-num-iterations: 9")
    (place / "jobs.yaml").write_text(changed_options)
    code, _, said = batch(capsys, "jobs.yaml", "--out", "out", "--only", "good")
    assert code == 2
    assert f"train of good was done with other options or data (max-num-iterations: {STEPS}, now 9): give " in said


@pytest.mark.slow
def test_data_that_have_changed_since_a_step_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In the job's line and in the summary; here the step after the training changes them."""
    folder, frame = tmp_path / "job", tmp_path / "0.png"
    frame.write_text("first")
    changing = f"{PROGRAM}\nPath({str(frame)!r}).write_text('second')"
    train = dataclasses.replace(step("train", folder), inputs=(Input(str(frame)),))
    job = work(folder, train, step("web", folder, program=changing))
    whole = Batch("jobs.yaml", tmp_path, [], [job])
    reasons = run(whole, whole, [job], EngineOptions())
    reason = f"{folder}: train of job was done before {frame} was changed: give another --out, or --overwrite"
    assert f"job: failed, {reason}" in capsys.readouterr().err
    assert reasons["job"].startswith(reason)
    (status,) = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["reason"].startswith(reason)


def test_what_would_be_done_is_shown_and_nothing_is_written(place: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(place.rglob("*"))
    code, out, _ = batch(capsys, "jobs.yaml", "--dry-run")
    assert code == 0
    titles, bad, good = (line.split() for line in out.splitlines())
    assert titles == ["job", "state", "done", "left", "min"]
    assert bad == ["bad", "one", "waiting", "-", "train", "web", "0.0"]
    assert good == ["good", "waiting", "-", "train", "0.0"]
    assert sorted(place.rglob("*")) == before


def test_a_script_for_slurm(place: Path, capsys: pytest.CaptureFixture[str]):
    words = ("jobs.yaml", "--out", "out", "--slurm", "jobs.sh", "--at-once", "2", "--no-figures", "--fps", "8.0")
    code, out, said = batch(capsys, *words, "--sbatch", "partition=gpu")
    assert code == 0, said
    assert out.startswith("jobs.sh: 2 tasks")
    text = (place / "jobs.sh").read_text()
    assert "#SBATCH --array=0-1%2\n" in text
    assert "  'bad one'\n  good\n" in text
    command = f"batch {place}/jobs.yaml --out {place}/out --attempts 2 --fps 8.0 --no-figures --only"
    assert f"-m consistent4d_ns.cli.main {command}" in text
    code, _, said = batch(capsys, *words)
    assert code == 2
    assert "jobs.sh exists: give another name, or remove it." in said
    code, _, said = batch(capsys, *words, "--overwrite")  # It is for what the tasks do.
    assert code == 2
    assert "jobs.sh exists" in said


def test_missing_packages_are_said_before_any_job_begins(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    with (place / "jobs.yaml").open("a") as file:
        file.write("  exports: {usd: {}}\n")
    monkeypatch.setattr("consistent4d_ns.cli.export.find_spec", lambda name: None)
    code, _, said = batch(capsys, "jobs.yaml", "--out", "out", "--dry-run")
    assert code == 2
    assert "good: usd cannot be written, because the package usd-core is not installed" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("gone.yaml",), "gone.yaml does not exist: give a YAML file of jobs, or a folder of videos."),
        (("jobs.yaml", "--only", "goot"), "--only: goot is unknown; did you mean good?"),
        (("jobs.yaml", "--method", "consistent4d"), "--method is for a folder: write it into jobs.yaml"),
        (("jobs.yaml", "--set", "a=1"), "--set is for a folder"),
        ((".",), "say with --method how"),
        ((".", "--method", "consistent4d-mini", "--set", "machine.seed"), "--set machine.seed: give PATH=VALUE"),
        (("jobs.yaml", "--at-once", "0"), "--at-once is 0"),
        (("jobs.yaml", "--attempts", "11"), "--attempts is 11"),
        (("jobs.yaml", "--sbatch", "partition=gpu"), "--sbatch is for --slurm"),
        (("jobs.yaml", "--slurm", "a.sh", "--address", "auto"), "--address and --slurm name different places"),
        (("jobs.yaml", "--size", "3"), "--size is 3"),
        (("jobs.yaml", "--out", "toy/input/0.png"), "is a file: give a folder"),
        (("jobs.yaml", "--out", "taken"), "holds mine.txt, which no job has written"),
        (("jobs.yaml", "--out", "paged"), "comparison.html is not a page of an earlier batch"),
    ],
)
def test_what_is_refused(place: Path, words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]):
    for name in ("taken/good/mine.txt", "paged/comparison.html"):
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("mine")
    before = sorted(place.rglob("*"))
    code, _, said = batch(capsys, *words)
    assert code == 2
    assert reason in said.splitlines()[-1]
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--slurm", "jobs.yaml"), "jobs.yaml exists: give another name, or remove it."),
        (("--slurm", "a.sh", "--sbatch", "array=3"), "--sbatch array=3: the script sets array itself"),
        (("--devices", "-1"), "--devices -1: this machine has no such GPU"),
        (("--devices", "99"), "--devices 99: this machine has no such GPU"),
        (("--out", "paged"), "comparison.html is not a page of an earlier batch"),
    ],
)
def test_what_is_refused_is_refused_before_it_is_run(
    place: Path, words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
):
    (place / "paged").mkdir()
    (place / "paged" / "comparison.html").write_text("mine")
    before = sorted(place.rglob("*"))
    for dry in ("--dry-run", "--no-dry-run"):
        code, _, said = batch(capsys, "jobs.yaml", *words, dry)
        assert code == 2
        assert reason in said.splitlines()[-1]
        assert sorted(place.rglob("*")) == before


def test_places(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert [dict(one.env) for one in places_for(EngineOptions())] == [{}]
    assert [dict(one.env) for one in places_for(EngineOptions(at_once=3))] == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [one.name for one in places_for(EngineOptions())] == ["GPU 0", "GPU 1"]
    assert [one.name for one in places_for(EngineOptions(devices=(1,)))] == ["GPU 1"]
    shared = places_for(EngineOptions(at_once=3))
    assert [one.name for one in shared] == ["GPU 0", "GPU 1", "GPU 0"]
    assert len(set(shared)) == 3, "each holds a job of its own"
