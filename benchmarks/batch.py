"""How many jobs a batch does in an hour on one GPU and on several, and what becomes of them when a node is killed.

    python -m benchmarks.batch --jobs 8 --gpus 1 2
    python -m benchmarks.batch --jobs 4 --gpus --node-killed-after 60

Each job trains the mini preset with the bundled prior on the toy, each with a seed of its own; nothing is downloaded.
For every number of GPUs the batch begins anew, after one job that compiles what all of them need. With
`--node-killed-after`, the jobs run on a cluster of Ray of two nodes on this machine, without GPUs, one of which is
killed after so many seconds of the first training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
import yaml

from consistent4d_ns.batching.cluster import LOOPBACK
from consistent4d_ns.batching.records import read_record
from consistent4d_ns.batching.summary import STATUS
from consistent4d_ns.toy import write_sequence

METHOD = "consistent4d-mini"
"""The preset."""


@dataclass
class Options:
    """Options of the benchmark."""

    jobs: int = 8
    """Number of jobs."""
    gpus: tuple[int, ...] = (1, 2)
    """Numbers of GPUs, one after the other; 0 stands for the processors."""
    steps: int | None = None
    """Training steps of a job; default: those of the preset."""
    size: int = 128
    """Side of the toy's images in pixels."""
    frames: int = 32
    """Frames of the toy."""
    settings: tuple[str, ...] = ()
    """Further options of the trainings, PATH=VALUE."""
    exports: tuple[str, ...] = ()
    """What each job exports."""
    warm_up: bool = True
    """Whether one job is done first, which compiles what is then found."""
    node_killed_after: float | None = None
    """Seconds from the first step of the first training to the death of a node; needs Ray."""
    out: Path | None = None
    """JSON file for the results."""


@dataclass
class Result:
    """One batch."""

    where: str
    """What it ran on."""
    jobs: int
    """How many jobs there were."""
    done: int
    """How many of them are done."""
    seconds: float
    """From the start of the command to its end."""
    begun: list[int] = field(default_factory=list)
    """How often the training of each job was begun."""

    @property
    def per_hour(self) -> float:
        """Jobs in an hour."""
        return self.done * 3600 / self.seconds


def write_jobs(folder: Path, count: int, options: Options) -> Path:
    """The file of jobs."""
    settings = dict(setting.split("=", 1) for setting in options.settings)
    if options.steps is not None:
        settings["max-num-iterations"] = str(options.steps)
    jobs: list[dict[str, Any]] = [
        {"name": f"job-{seed}", "data": "toy", "options": {"machine.seed": seed}} for seed in range(count)
    ]
    defaults = {"method": METHOD, "options": settings, "exports": list(options.exports)}
    file = folder / f"jobs-{count}.yaml"
    file.write_text(yaml.safe_dump({"defaults": defaults, "jobs": jobs}))
    return file


def command(jobs: Path, out: Path, *words: str) -> list[str]:
    """The command that does the jobs."""
    module = "consistent4d_ns.cli.main"
    return [sys.executable, "-m", module, "batch", str(jobs), "--out", str(out), "--no-page", *words]


def result(where: str, out: Path, seconds: float) -> Result:
    """What became of a batch."""
    status = json.loads((out / STATUS).read_text())
    records = [read_record(out / job["job"]) for job in status]
    begun = [record.steps["train"].begun for record in records if record is not None and "train" in record.steps]
    return Result(where, len(status), sum(job["state"] == "done" for job in status), seconds, begun)


def timed(folder: Path, jobs: Path, gpus: int, name: str) -> Result:
    """Do a batch on so many GPUs."""
    begin = time.perf_counter()
    devices = ["--devices", *map(str, range(gpus))] if gpus else []
    subprocess.run(command(jobs, folder / name, *devices), check=False)
    where = f"{gpus} {'GPU' if gpus == 1 else 'GPUs'}" if gpus else "processors"
    return result(where, folder / name, time.perf_counter() - begin)


def with_a_node_killed(folder: Path, jobs: Path, seconds: float) -> Result:
    """Do a batch on two nodes, one of which is killed."""
    os.environ |= {LOOPBACK: "0", "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
    from ray.cluster_utils import Cluster

    cores = max(1, (os.cpu_count() or 2) // 2)
    less = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    node: dict[str, Any] = {"num_cpus": cores, "node_ip_address": "127.0.0.1", **less}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**node)
    out = folder / "killed"
    begin = time.perf_counter()
    process = subprocess.Popen(command(jobs, out, "--address", str(cluster.address)))
    try:
        while process.poll() is None and not list(out.glob("*/*/run/losses.jsonl")):
            time.sleep(0.5)
        time.sleep(seconds)
        if process.poll() is None:
            cluster.remove_node(second, allow_graceful=False)
            print(f"a node was killed after {time.perf_counter() - begin:.0f} s", flush=True)
        process.wait()
    finally:
        process.terminate()
        process.wait()
        cluster.shutdown()
    return result("2 nodes, one of them killed", out, time.perf_counter() - begin)


def main(options: Options) -> None:
    """Run the benchmark and print its table."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sequence(folder / "toy", size=options.size, frames=options.frames)
        jobs = write_jobs(folder, options.jobs, options)
        if options.warm_up and any(options.gpus):
            timed(folder, write_jobs(folder, 1, options), 1, "warm-up")
        results += [timed(folder, jobs, gpus, f"{gpus}-gpus") for gpus in options.gpus]
        if options.node_killed_after is not None:
            results.append(with_a_node_killed(folder, jobs, options.node_killed_after))
    print(f"\n| on | jobs done | seconds | jobs per hour | of {results[0].where} | begun |\n|---|---|---|---|---|---|")
    for one in results:
        print(
            f"| {one.where} | {one.done} of {one.jobs} | {one.seconds:.1f} | {one.per_hour:.1f} | "
            f"{one.per_hour / max(results[0].per_hour, 1e-9):.2f} | {' '.join(map(str, one.begun))} |"
        )
    if options.out is not None:
        described = [asdict(one) | {"per_hour": one.per_hour} for one in results]
        options.out.write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
