"""Processes one after the other and side by side, their failures, and Ctrl-C."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from consistent4d_ns.sweeping import processes
from consistent4d_ns.sweeping.processes import Done, Place, Task, last_line, run_all

HERE = Place("", {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL", 0.02)


def script(folder: Path, name: str, text: str) -> Task:
    return Task(name, ["sh", "-c", text], folder / f"{name}.log")


def done(tasks: list[Task], places: list[Place]) -> list[Done]:
    return [event for event in run_all(tasks, places, lambda task, place: None) if event is not None]


def test_a_failure_stops_no_other_and_output_is_kept(tmp_path: Path):
    texts = {"a": "echo fine", "b": "echo begin; echo 'error: no room.' >&2; echo; exit 3", "c": "kill -9 $$"}
    ended = done([script(tmp_path, name, text) for name, text in texts.items()], [HERE])
    assert [(one.task.name, one.code) for one in ended] == [("a", 0), ("b", 3), ("c", -9)]
    assert last_line(tmp_path / "a.log") == "fine"
    assert last_line(tmp_path / "b.log") == "error: no room."
    assert last_line(tmp_path / "c.log") == ""


def test_one_at_a_time_in_each_place(tmp_path: Path):
    """Two places, each with its environment: the third task waits for a place, and takes the one that is free."""
    places = [Place(f"GPU {n}", {"CUDA_VISIBLE_DEVICES": str(n)}) for n in (4, 7)]
    began: list[tuple[str, str]] = []
    texts = {"a": "while [ ! -e go ]; do sleep 0.02; done", "b": "true", "c": "touch go"}
    say = 'echo "$CUDA_VISIBLE_DEVICES"; '
    tasks = [script(tmp_path, name, f"cd '{tmp_path}'; {say}{text}") for name, text in texts.items()]
    events = run_all(tasks, places, lambda task, place: began.append((task.name, place.name)))
    assert next(event.task.name for event in events if event is not None) == "b"
    assert {event.task.name for event in events if event is not None} == {"a", "c"}
    assert began == [("a", "GPU 4"), ("b", "GPU 7"), ("c", "GPU 7")]
    assert [last_line(task.log) for task in tasks] == ["4", "7", "7"]


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_after_ctrl_c_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One ends in its own way, one ignores Ctrl-C and has started another: both are gone, and no further one begins."""
    monkeypatch.setattr(processes, "PATIENCE", 0.3)
    polite = "trap 'echo saved; exit 130' INT; echo up; while true; do sleep 0.02; done"
    deaf = "trap '' INT; sleep 60 & echo $!; echo $$; wait"
    tasks = [script(tmp_path, *pair) for pair in (("polite", polite), ("deaf", deaf), ("late", "true"))]

    def interrupted() -> None:
        with closing(run_all(tasks, [HERE, Place("", {})], lambda *_: None)) as events:
            for _ in events:
                if last_line(tasks[0].log) == "up" and len(tasks[1].log.read_text().split()) == 2:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert last_line(tasks[0].log) == "saved"
    for pid in map(int, tasks[1].log.read_text().split()):
        eventually(lambda pid=pid: not is_running(pid))
    assert not tasks[2].log.exists()
