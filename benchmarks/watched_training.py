"""A training with its viewer in a process of its own, whose steps, memory and descriptors can be looked at."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from consistent4d_ns.cli.ports import free_port
from consistent4d_ns.toy import write_sequence

PATIENCE = 600.0
"""Seconds to wait for the first training step."""
ENDLESS = 10**9
"""Training steps; the training is ended when everything is measured."""


@dataclass(frozen=True)
class Training:
    """A training that goes on."""

    process: psutil.Popen
    port: int
    """Of its viewer, on localhost."""
    folder: Path
    """What it writes to."""

    def steps(self) -> int:
        """Training steps so far, as far as their losses are written; at most a second is missing."""
        written = next(self.folder.rglob("losses.jsonl"), None)
        return 0 if written is None else written.read_bytes().count(b"\n")

    def memory(self) -> float:
        """MB of memory that are its own and no file's; pages of files come and go as the system likes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1e6

    def descriptors(self) -> int:
        """Open files and sockets."""
        return self.process.num_fds()

    def threads(self) -> int:
        """Its threads."""
        return self.process.num_threads()

    def console(self) -> int:
        """Lines on its console that are about the viewer."""
        log = (self.folder / "console.txt").read_text(errors="replace")
        return sum("viewer" in line or "handshake" in line or "Traceback" in line for line in log.splitlines())

    def is_alive(self) -> bool:
        """Whether it goes on, and its viewer answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30):
            return self.process.poll() is None


@contextmanager
def training(
    preset: str = "consistent4d-mini", steps: int = ENDLESS, options: tuple[str, ...] = ()
) -> Iterator[Training]:
    """Train on a small toy with the viewer open, until the block ends; begins after the first steps.

    Args:
        preset: The method.
        steps: Of the training.
        options: Further options of `ns-train`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sequence(folder / "toy", size=64, frames=8, samples_per_side=1)
        port = free_port("127.0.0.1", 0)
        words = ["--data", str(folder / "toy"), "--output-dir", str(folder / "out"), *options]
        words += ["--max-num-iterations", str(steps), "--viewer.websocket-port", str(port)]
        words += ["--pipeline.interpolation.kind", "none", "--logging.local-writer.enable", "False"]
        # Target views would be made for minutes before the first step.
        words += ["--pipeline.targets.imagine.steps", "0", "--pipeline.targets.hold.steps", "0"]
        command = [sys.executable, "-m", "nerfstudio.scripts.train", preset, *words]
        with (folder / "console.txt").open("wb") as console:
            process = psutil.Popen(command, stdout=console, stderr=subprocess.STDOUT)
            try:
                started = Training(process, port, folder)
                _await_steps(started)
                yield started
            finally:
                process.terminate()
                process.wait(60)


def _await_steps(started: Training) -> None:
    end = time.monotonic() + PATIENCE
    while started.steps() < 20:
        if started.process.poll() is not None or time.monotonic() > end:
            raise SystemExit((started.folder / "console.txt").read_text(errors="replace")[-3000:])
        time.sleep(0.5)
