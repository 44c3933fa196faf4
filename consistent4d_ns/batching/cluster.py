"""Jobs as tasks of Ray: on a running cluster, or on this machine. Needs the extra `ray`."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from consistent4d_ns.errors import FAILED, InputError
from consistent4d_ns.messages import say
from consistent4d_ns.sweeping.processes import PATIENCE, POLL, Done, Place, Task, start, stop

if TYPE_CHECKING:
    import ray

LOCAL = "local"
"""The address that stands for a cluster on this machine alone, which ends with the command."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable with which, at 0, Ray takes 127.0.0.1 for this machine's address on Linux, too, as it does on
other systems; `_node_ip_address` would be replaced by the address in the network."""
STARTS = 3
"""How often it is tried to start Ray on this machine. Ray 2.60 gives two helpers of its own 15 seconds, which no option
and no environment variable changes; a second time, their files are in memory."""
NODE_DEATHS = 3
"""How often a job is begun again because its node has died; Ray's own default."""


def check_ray() -> None:
    """Raises: InputError: Ray is not installed."""
    if not find_spec("ray"):
        raise InputError('--address needs Ray, which is not installed: run `pip install "consistent4d_ns[ray]"`.')


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster.

    Nothing is reported to anyone, and a cluster on this machine listens on 127.0.0.1 alone, without a dashboard.

    Raises:
        InputError: there is no such cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL:
        os.environ[LOOPBACK] = "0"  # Read when Ray is imported.
    import ray

    with handlers_kept():
        for left in reversed(range(STARTS if address == LOCAL else 1)):
            try:
                _connect(address)
                break
            except Exception as error:  # Ray raises no narrower class where a process of its own does not start.
                reason = " ".join(str(error).split())[:200].rstrip(".")
                if not left:
                    raise InputError(f"--address {address}: {_remedy(address, reason)}") from error
                ray.shutdown()
                say(f"Ray has not started ({reason}): trying again.")
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a cluster, or start one; raises whatever Ray does."""
    import ray

    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)


def _remedy(address: str, reason: str) -> str:
    """What to say where there is no connection."""
    if address == LOCAL:
        return f"Ray does not start ({reason}): try again where less is running, or leave out --address."
    return (
        f"no Ray cluster answers there ({reason}): start one with `ray start --head`, or give --address {LOCAL}, or "
        "leave it out."
    )


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Leave handlers of signals as they are, for which Ray installs its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def resources(nodes: Sequence[Mapping[str, Any]], at_once: int | None) -> dict[str, float]:
    """What a job gets: a GPU and its share of the processors, or where there are no GPUs all processors of a node.

    Args:
        nodes: The nodes of a cluster, as `ray.nodes` describes them.
        at_once: How many jobs are to run at once; None: as many as there is room for.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    with_gpus = [node for node in alive if node.get("GPU", 0) >= 1]
    if with_gpus:
        return {"num_gpus": 1, "num_cpus": max(1, min(node["CPU"] // node["GPU"] for node in with_gpus))}
    per_node = -(-at_once // len(alive)) if at_once and alive else 1
    return {"num_gpus": 0, "num_cpus": max(1, min((node["CPU"] for node in alive), default=1) // per_node)}


def run_on_cluster(
    tasks: Sequence[Task], at_once: int | None, began: Callable[[Task], object]
) -> Generator[Done | None, None, None]:
    """Run tasks on the cluster that is connected, as `sweeping.processes.run_all` does on this machine.

    A task whose node dies is begun again on another one. However this ends, no task is left running.

    Args:
        tasks: What to run; the first word of each command, the Python interpreter, is that of the node. Their files
            are the same on all nodes.
        at_once: How many at once; None: as many as there is room for.
        began: Called when a task is handed to the cluster.

    Yields:
        What has ended; and None now and then.
    """
    import ray

    remote = ray.remote(perform).options(max_retries=NODE_DEATHS, **resources(ray.nodes(), at_once))
    waiting, running = deque(tasks), dict["ray.ObjectRef[int]", tuple[Task, float]]()
    try:
        while waiting or running:
            while waiting and (at_once is None or len(running) < at_once):
                task = waiting.popleft()
                reference = remote.remote(task)
                running[reference] = task, time.monotonic()
                began(task)
            ready, _ = ray.wait(list(running), timeout=POLL)
            yield None
            for reference in ready:
                task, begin = running.pop(reference)
                yield Done(task, _code(reference), time.monotonic() - begin)
    finally:
        _cancel(list(running))


def perform(task: Task) -> int:
    """Run a task on the node that it was given to; returns its exit code."""
    command = [sys.executable, *task.command[1:]]
    running = start(dataclasses.replace(task, command=command), Place("", {}))
    try:
        while running.process.poll() is None:
            time.sleep(POLL)
    finally:
        stop([running.process])
    return running.process.returncode


def _code(reference: Any) -> int:
    """The exit code of a task; `FAILED` where Ray could not run it to its end."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference)
    except RayError:
        return FAILED


def _cancel(references: Sequence[Any]) -> None:
    """End tasks as Ctrl-C does, and wait until they have."""
    import ray
    from ray.exceptions import RayError

    for reference in references:
        with suppress(RayError, ValueError):
            ray.cancel(reference)
    if references:
        ray.wait(list(references), num_returns=len(references), timeout=PATIENCE + 5)
