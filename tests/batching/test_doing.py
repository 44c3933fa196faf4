"""One job: each step once, failures, a second process at the same time, Ctrl-C, and what is done again and what not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from consistent4d_ns.batching.doing import LOCK, renew
from consistent4d_ns.batching.records import Record, StepRecord, read_record, write_record
from consistent4d_ns.batching.steps import LOG, Input, Step, Work, difference, rest_of
from consistent4d_ns.batching.summary import records_of, table, write_status
from consistent4d_ns.cli.tables import aligned
from consistent4d_ns.errors import FAILED, REFUSED, InputError
from consistent4d_ns.files import fingerprints
from consistent4d_ns.files.locks import FileLock
from tests.batching.works import PROGRAM, notes, step, task, work
from tests.support.disks import file_limit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks and signals of a POSIX system")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Work], subprocess.Popen[bytes]]]:
    """Starts the process of a job; whatever is left at the end is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(job: Work) -> subprocess.Popen[bytes]:
        with (job.place / LOG).open("ab") as log:
            processes.append(subprocess.Popen(task(job).command, stdout=log, stderr=log, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finished(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=60)


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_free(job: Work) -> bool:
    with suppress(InputError):
        FileLock(job.place / LOCK, "held").release()
        return True
    return False


def record(job: Work) -> Record:
    found = read_record(job.place)
    assert found is not None
    return found


def test_steps_are_done_once_and_in_order(tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]):
    folder = tmp_path / "a job"
    job = work(folder, step("train", folder, feeds=True), step("web", folder))
    assert finished(started(job)) == 0
    began = ["train begins anew", "train ends", "web begins anew", "web ends"]
    assert [note for note in notes(job) if "unit" not in note] == began
    assert (record(job).state, record(job).step) == ("done", "web")
    assert {name: entry.done for name, entry in record(job).steps.items()} == {"train": True, "web": True}
    assert finished(started(job)) == 0
    more = dataclasses.replace(job, steps=(*job.steps, step("mesh", folder)))
    assert finished(started(more)) == 0
    assert [note for note in notes(job) if "unit" not in note] == [*began, "mesh begins anew", "mesh ends"]
    (folder / "web.done").unlink()
    assert finished(started(more)) == 0
    assert [note for note in notes(job) if note.endswith("ends")] == ["train ends", "web ends", "mesh ends", "web ends"]


def test_a_step_that_dies_is_tried_again_and_one_that_is_refused_is_not(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    dying = "import os, sys; print(sys.argv[4:]); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    refused = "import sys; print('error: no such video.'); sys.exit(2)"
    silent = "pass"
    for name, program, begun, reason in (
        ("dying", dying, 3, "['again'] (signal 9)"),
        ("refused", refused, 1, "no such video (exit code 2)"),
        ("silent", silent, 3, "has written no"),
    ):
        folder = tmp_path / name
        job = work(folder, step("train", folder, program=program, feeds=True), step("web", folder), attempts=3)
        assert finished(started(job)) == 1
        assert record(job).state == "failed"
        assert record(job).steps["train"].begun == begun
        assert not record(job).steps["train"].done
        assert reason in record(job).reason
        assert notes(job) == [], "nothing is made of what is not there"


def test_a_second_process_waits_for_the_first_and_then_has_nothing_to_do(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    folder = tmp_path / "job"
    job = work(folder, step("train", folder, 1.0))
    both = started(job), started(job)
    assert [finished(process) for process in both] == [0, 0]
    assert [note for note in notes(job) if "unit" not in note] == ["train begins anew", "train ends"]
    assert "Waiting for it" in (folder / LOG).read_text()


def test_a_second_process_with_other_options_replaces_nothing(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    """It was planned before the first one had recorded anything."""
    folder = tmp_path / "job"
    assert finished(started(work(folder, step("train", folder)))) == 0
    other = work(folder, step("train", folder, 0.5))
    assert finished(started(other)) == REFUSED
    assert "train of job was done with other options" in (folder / LOG).read_text()
    assert finished(started(dataclasses.replace(other, overwrite=True))) == 0


def test_what_was_refused_and_wrote_nothing_may_be_corrected(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    folder = tmp_path / "job"
    refused = work(folder, step("train", folder, program=f"raise SystemExit({REFUSED})"))
    assert finished(started(refused)) == FAILED
    corrected = work(folder, step("train", folder))
    assert records_of([corrected], overwrite=False)["job"].state == "failed"
    assert finished(started(corrected)) == 0


def test_after_ctrl_c_it_goes_on(tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]):
    folder = tmp_path / "job"
    job = work(folder, step("train", folder, 2.0))
    process = started(job)
    eventually(lambda: len(notes(job)) > 3)
    process.send_signal(signal.SIGTERM)
    assert finished(process) == 128 + signal.SIGTERM
    assert record(job).state == "stopped"
    quick = work(folder, dataclasses.replace(job.steps[0]))
    assert finished(started(quick)) == 0
    assert [note for note in notes(job) if note.startswith("train begins")] == [
        "train begins anew",
        "train begins again",
    ]
    assert "train unit 0" in notes(job)[1]
    assert notes(job).count("train unit 0") == 1, "what was done before is not done again"


def test_while_a_step_lives_its_job_is_not_done_by_another(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    """The process of the job is killed, but its step will not end."""
    folder = tmp_path / "job"
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PROGRAM}"
    job = work(folder, step("train", folder, 2.0, program=deaf))
    process = started(job)
    eventually(lambda: len(notes(job)) > 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert finished(started(job)) == 0
    began = [index for index, note in enumerate(notes(job)) if note.startswith("train begins")]
    assert len(began) == 2
    assert notes(job)[began[1] - 1] == "train ends", "the second begins after the first has ended"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells processes that their parent has died")
def test_a_step_ends_where_its_job_is_killed(tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]):
    folder = tmp_path / "job"
    job = work(folder, step("train", folder, 60.0))
    process = started(job)
    eventually(lambda: len(notes(job)) > 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    eventually(lambda: is_free(job))
    assert len(notes(job)) == 2


def test_it_ends_when_whoever_began_it_dies(tmp_path: Path):
    """As when a node leaves a cluster: the step ends in its own way, and its job is free."""
    folder = tmp_path / "job"
    job = work(folder, step("train", folder, 30.0))
    program = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], start_new_session=True); time.sleep(60)"
    with (folder / LOG).open("ab") as log:
        command = task(job).command
        parent = subprocess.Popen([command[0], "-c", program, *command], stdout=log, stderr=log)
    try:
        eventually(lambda: len(notes(job)) > 1)
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: record(job).state == "stopped")
    assert "has died" in (folder / LOG).read_text()


def words(job: Work, *steps: StepRecord | None) -> list[str]:
    """What would be done, and how, after steps that were begun so."""
    known = {one.name: was for one, was in zip(job.steps, steps, strict=True) if was is not None}
    rest = rest_of(job, Record(steps=known))
    return [f"{one.name} {' '.join(rest.words(one))}" for one in rest.left]


def test_what_is_left(tmp_path: Path):
    folder = tmp_path / "job"
    names = ("prepare", "train", "web")
    job = work(folder, *(step(name, folder, feeds=name != "web") for name in names))
    done = [StepRecord(one.identity(folder), done=True) for one in job.steps]
    begun = [dataclasses.replace(one, done=False) for one in done]
    other = dataclasses.replace(done[0], arguments=("other",))
    for one in job.steps:
        (folder / one.output).write_text("")
    everything = ["prepare anew", "train anew", "web anew"]
    assert words(job, None, None, None) == everything
    assert words(job, *done) == []
    assert words(job, done[0], begun[1], None) == ["train again", "web anew"]
    assert words(job, other, done[1], done[2]) == everything
    assert words(job, begun[0], done[1], None) == ["prepare again", "train anew", "web anew"]
    (folder / "web.done").unlink()
    assert words(job, *done) == ["web anew"]
    (folder / "prepare.done").unlink()
    assert words(job, *done) == everything


def test_the_folder_may_be_moved_and_what_changed_is_refused(tmp_path: Path):
    folder = tmp_path / "job"
    job = work(folder, step("train", folder))
    moved = tmp_path / "elsewhere" / "job"
    assert step("train", moved).identity(moved) == job.steps[0].identity(folder)
    training = Step("train", ("-m", "train", f'{{"out": "{folder.parent}", "data": "{folder}-b/frames"}}'), "run")
    assert training.identity(folder)[-1] == '{"out": "..", "data": "../job-b/frames"}'
    (folder / "job.json").write_text(
        '{"state": "done", "step": "", "where": "", "reason": "", "steps": {"train": '
        '{"arguments": ["other"], "done": true, "seconds": 1.0, "begun": 1}}}'
    )
    with pytest.raises(InputError, match="train of job was done with other options"):
        records_of([job], overwrite=False)
    assert records_of([job], overwrite=True)["job"].steps["train"].done
    (folder / "job.json").write_text('{"state": "asleep"')
    with pytest.raises(InputError, match=r"job\.json is damaged .* remove"):
        records_of([job], overwrite=True)
    (folder / "job.json").unlink()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds mine\.txt, which no job has written"):
        records_of([job], overwrite=True)


def with_inputs(job: Work, *paths: Path) -> Work:
    """The job with frames of the user that all of its steps read."""
    inputs = tuple(Input(str(path), "frames") for path in paths)
    steps = (dataclasses.replace(one, inputs=inputs, kinds=(".png",)) for one in job.steps)
    return dataclasses.replace(job, steps=tuple(steps))


def test_changed_data_is_refused_and_what_was_touched_is_not(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    folder, frames = tmp_path / "job", tmp_path / "frames"
    frames.mkdir()
    (frames / "0.PNG").write_text("first")
    job = with_inputs(work(folder, step("train", folder, feeds=True)), frames)
    assert finished(started(job)) == 0
    os.utime(frames / "0.PNG", (1e9, 1e9))
    for name in ("notes.txt", ".hidden.png"):
        (frames / name).write_text("not read")
    assert not rest_of(job, records_of([job], overwrite=False)["job"]).left
    (frames / "0.PNG").write_text("other")
    refusal = f"train of job was done before {frames}/0.PNG was changed: give another --out, or --overwrite"
    with pytest.raises(InputError, match=refusal):
        records_of([job], overwrite=False)
    assert finished(started(job)) == REFUSED
    assert refusal in (folder / LOG).read_text()
    assert finished(started(dataclasses.replace(job, overwrite=True))) == 0
    assert [note for note in notes(job) if note.startswith("train begins")] == ["train begins anew"] * 2
    (frames / "0.PNG").unlink()
    assert [one.name for one in rest_of(job, record(job)).left] == ["train"]


def test_what_lies_beside_the_frames_is_none_of_them(tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]):
    """A picture that the data parser would take for a frame is one, and is named."""
    folder, frames = tmp_path / "job", tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        (frames / f"{number:04}.png").write_text(str(number))
    job = with_inputs(work(folder, step("train", folder)), frames)
    assert finished(started(job)) == 0
    (frames / "contact.png").write_text("all of them")
    assert not rest_of(job, records_of([job], overwrite=False)["job"]).left
    (frames / "0003.png").write_text("one more")
    with pytest.raises(InputError, match=rf"done before {frames}/0003\.png was added: give"):
        records_of([job], overwrite=False)
    (frames / "0003.png").unlink()
    (frames / "0000.png").unlink()
    (frames / "0001.png").write_text("another")
    with pytest.raises(InputError, match=rf"done before {frames}/0000\.png was removed, like 1 more: give"):
        records_of([job], overwrite=False)


def test_data_that_change_while_they_are_used_are_said_at_once(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
):
    folder, frame = tmp_path / "job", tmp_path / "0.png"
    frame.write_text("first")
    program = f"{PROGRAM}\nPath({str(frame)!r}).write_text('second')"
    job = with_inputs(work(folder, step("train", folder, program=program, feeds=True), step("web", folder)), frame)
    assert finished(started(job)) == FAILED
    reason = f"train: {frame} was changed meanwhile: repeat the command with --overwrite, or give another --out."
    assert (record(job).state, record(job).reason) == ("failed", reason)
    assert not any(note.startswith("web") for note in notes(job)), "nothing is made of it"
    with pytest.raises(InputError, match=f"done before {frame} was changed"):
        records_of([job], overwrite=False)


def test_what_was_touched_is_read_once_more_and_not_again(
    tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
):
    folder, frame = tmp_path / "job", tmp_path / "0.png"
    frame.write_text("first")
    job = with_inputs(work(folder, step("train", folder)), frame)
    assert finished(started(job)) == 0
    before = record(job)
    os.utime(frame, (1e9, 1e9))
    held = FileLock(folder / LOCK, "held")
    renew(job, record(job))
    assert record(job) == before, "somebody does the job"
    held.release()
    with file_limit(0):
        renew(job, record(job))
    assert record(job) == before, "its folder cannot be written"
    renew(job, record(job))
    monkeypatch.setattr(fingerprints, "_digests", None)
    assert not rest_of(job, records_of([job], overwrite=False)["job"]).left
    monkeypatch.undo()
    frame.write_text("second")
    before = record(job)
    renew(job, before)
    assert record(job) == before


def test_what_a_record_says_is_printed_on_one_line_without_escapes(tmp_path: Path):
    folder = tmp_path / "job"
    job = work(folder, step("train", folder))
    said = "died\n\x1b[2Jfine"
    write_record(folder, Record("failed", "train", "here", said))
    read = read_record(folder)
    assert read is not None
    lines = aligned(table([job], {job.name: read}, {}))
    assert len(lines) == 2
    assert lines[1].endswith("died\\n\\x1b[2Jfine")
    write_status(tmp_path, [job], {job.name: read}, {})
    assert json.loads((tmp_path / "status.json").read_text())[0]["reason"] == said


@pytest.mark.parametrize(("name", "value"), [("seconds", -1), ("seconds", 1e300), ("begun", -1), ("begun", 1e10)])
def test_absurd_numbers_of_a_record_are_damage(tmp_path: Path, name: str, value: float):
    write_record(tmp_path, Record(steps={"train": StepRecord((), done=True)}))
    values = json.loads((tmp_path / "job.json").read_text())
    values["steps"]["train"][name] = value
    (tmp_path / "job.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"job\.json is damaged \(ValueError: {name} is .*, and not from 0 to 1e\+09"):
        read_record(tmp_path)


def test_a_record_without_data_is_of_an_earlier_version(tmp_path: Path):
    folder = tmp_path / "job"
    job = with_inputs(work(folder, step("train", folder)), tmp_path)
    (folder / "train.done").touch()
    assert words(job, StepRecord(job.steps[0].identity(folder), done=True)) == []


def test_a_job_survives_its_way_to_another_machine(tmp_path: Path):
    step = Step("train", ("-c", "é\n"), "out", inputs=(Input("a", "views"),), kinds=(".png",))
    job = work(tmp_path / "naïve 'job'", step)
    assert Work.from_json(job.to_json()) == job


def training_step(*assignments: str) -> Step:
    return Step("train", ("-m", "training", json.dumps({"method": "m", "assignments": assignments})), "run")


def test_what_changed_is_named_whatever_the_order(tmp_path: Path):
    step = training_step("steps=9", "seed=1")
    assert not difference(step, StepRecord(training_step("seed=1", "steps=9").arguments, done=True), tmp_path)
    told = difference(step, StepRecord(training_step("seed=1", "steps=7").arguments, done=True), tmp_path)
    assert told == "done with other options or data (steps: 7, now 9)"


@pytest.mark.parametrize("strange", ['{"assignments": 5}', "null", "[" * 100_000, "--\x1b\n" * 100, '{"a": 1}'])
def test_what_cannot_be_compared_differs_in_one_short_line(tmp_path: Path, strange: str):
    told = difference(training_step("seed=1"), StepRecord((strange,), done=True), tmp_path)
    assert 0 < len(told) < 600
    assert told.isprintable()
