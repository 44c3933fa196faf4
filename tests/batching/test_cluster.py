"""Jobs on a cluster of Ray of two nodes on this machine, one of which is killed while it works."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from consistent4d_ns.batching import cluster
from consistent4d_ns.batching.cluster import check_ray, connected, handlers_kept, resources, run_on_cluster
from consistent4d_ns.batching.records import read_record
from consistent4d_ns.batching.steps import Work
from consistent4d_ns.errors import InputError
from consistent4d_ns.sweeping.processes import Done
from tests.batching.works import HELD, notes, step, task, work


def node(alive: bool = True, **amounts: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": amounts}


def test_what_a_job_gets():
    cpus, gpus = [node(CPU=8.0), node(CPU=4.0), node(False, CPU=1.0)], [node(CPU=2.0), node(CPU=26.0, GPU=4.0)]
    assert resources(cpus, None) == {"num_gpus": 0, "num_cpus": 4}
    assert resources(cpus, 4) == {"num_gpus": 0, "num_cpus": 2}
    assert resources(cpus, 100) == {"num_gpus": 0, "num_cpus": 1}
    assert resources(gpus, None) == {"num_gpus": 1, "num_cpus": 6}
    assert resources([], 3) == {"num_gpus": 0, "num_cpus": 1}


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'run `pip install "consistent4d_ns\[ray\]"`'):
        check_ray()


PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
"""Of a node; where they are given, it does not wait for all of its agents, which on a busy machine may be too slow."""


def node_options() -> dict[str, Any]:
    """A node of one processor that listens on 127.0.0.1 alone."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {name: one.getsockname()[1] for name, one in zip(PORTS, sockets, strict=True)}
    for one in sockets:
        one.close()
    less = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    return {"num_cpus": 1, "node_ip_address": "127.0.0.1", **less, **ports}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(cluster.LOOPBACK, "0")
        pytest.importorskip("ray", reason="needs Ray (extra ray)")
        from ray.cluster_utils import Cluster

        made = Cluster()
        try:
            with handlers_kept():  # A node in this process has one of its own for SIGTERM.
                for _ in range(2):
                    made.add_node(**node_options())
        except Exception as error:  # Ray gives its agents 15 seconds to start, and raises nothing narrower.
            made.shutdown()
            pytest.skip(f"needs a machine on which Ray starts in its time: {error}")
        yield made
        made.shutdown()


@pytest.mark.slow
def test_stopping_ends_what_runs(nodes: Any, tmp_path: Path):
    jobs = [work(tmp_path / name, step("train", tmp_path / name, 60.0)) for name in ("a", "b", "c")]
    with connected(nodes.address), closing(run_on_cluster([task(job) for job in jobs], None, lambda _: None)) as events:
        end = time.monotonic() + 60
        while sum(len(notes(job)) > 1 for job in jobs) < 2:
            next(events)
            assert time.monotonic() < end
    states = [found.state if (found := read_record(job.place)) else None for job in jobs]
    assert sorted(map(str, states)) == ["None", "stopped", "stopped"]


def is_at_work(job: Work) -> bool:
    """Whether the step of a job that is held has done all of its units, and its process lives."""
    if "train unit 9" not in notes(job):
        return False
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int((job.place / "train.pid").read_text())).status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(events: Iterator[Done | None], condition: Callable[[], bool]) -> None:
    """Let jobs go on until a condition holds; none of them ends before."""
    end = time.monotonic() + 60
    while not condition():
        assert next(events) is None
        assert time.monotonic() < end


@pytest.mark.slow
def test_a_node_dies_and_nothing_is_lost_or_done_twice(nodes: Any, tmp_path: Path):
    """Four jobs of two steps; a node is killed when both nodes are at work, and nothing can end before it is dead."""
    jobs = []
    for name in ("a", "b", "c", "d"):
        folder = tmp_path / name
        jobs.append(work(folder, step("train", folder, HELD, feeds=True), step("web", folder)))
    codes: dict[str, int] = {}
    with connected(nodes.address), closing(run_on_cluster([task(job) for job in jobs], None, lambda _: None)) as events:
        wait_for(events, lambda: sum(is_at_work(job) for job in jobs) == 2)
        nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
        wait_for(events, lambda: sum(is_at_work(job) for job in jobs) == 1)
        for job in jobs:
            (job.place / "go").touch()
        for event in events:
            if event is not None:
                codes[event.task.name] = event.code
    assert codes == {"a": 0, "b": 0, "c": 0, "d": 0}
    begun = 0
    for job in jobs:
        found = read_record(job.place)
        assert found is not None
        assert found.state == "done"
        lines = notes(job)
        assert [line for line in lines if line.endswith("ends")] == ["train ends", "web ends"]
        for name in ("train", "web"):
            units = [line for line in lines if line.startswith(f"{name} unit")]
            # The unit that was under way may be begun again.
            assert list(dict.fromkeys(units)) == [f"{name} unit {number}" for number in range(10)]
            assert len(units) <= 11
        begun += found.steps["train"].begun
    assert begun == 5, "one job was begun a second time, and no other"


@pytest.mark.slow
def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ray", reason="needs Ray (extra ray)")
    monkeypatch.setenv(cluster.LOOPBACK, "0")  # Which the connection sets.
    monkeypatch.setattr("ray.init", lambda *_, **__: open_nothing())
    words = r"--address 127\.0\.0\.1:1: no Ray cluster answers there .*it is not there"
    with pytest.raises(InputError, match=words), connected("127.0.0.1:1"):
        pass
    with pytest.raises(InputError, match=r"--address local: Ray does not start"), connected("local"):
        pass
    assert capsys.readouterr().out.count("Ray has not started (it is not there): trying again.") == cluster.STARTS - 1


@pytest.mark.slow
def test_ray_is_started_again_where_it_was_too_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("ray", reason="needs Ray (extra ray)")
    monkeypatch.setenv(cluster.LOOPBACK, "0")  # Which the connection sets.
    answers = iter([open_nothing, lambda: None])
    monkeypatch.setattr("ray.init", lambda *_, **__: next(answers)())
    with connected("local"):
        assert "trying again" in capsys.readouterr().out
    assert not list(answers), "and no more often"


def open_nothing() -> None:
    raise ConnectionError("it is\nnot there.")
