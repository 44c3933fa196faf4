"""Functions called in processes that have imported Nerfstudio before: forked from a server, one for all tests.

An import of Nerfstudio costs more than ten seconds of CPU. The server imports it once, and never computes anything
itself, so that forking it is safe. Where pytest has workers, their controller starts it, and all of them use it;
otherwise it starts when it is first needed. Triton is imported there as its own interpreter: what is forked uses the
CPU, where nothing but the tests of the kernels calls Triton.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch.multiprocessing as mp

NETWORKS = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clip.modeling_clip",
)
"""Modules of a prior's networks, whose imports take as long as those of Nerfstudio."""
FIGURES = ("matplotlib.backends.backend_agg", "torchmetrics.functional.image", "scipy.ndimage")
"""What is imported when a training ends; Matplotlib also reads its list of fonts then, anew where caches are empty."""
COMMANDS = ("consistent4d_ns.cli.commands", "consistent4d_ns.runs", "typeguard")
"""Our own command line, and what reads the options of all."""
PRELOADED = (
    "tests.support.bytecode",
    *(f"nerfstudio.scripts.{name}" for name in ("train", "eval", "render")),
    *(*NETWORKS, *FIGURES, *COMMANDS),
    "tests.support.frozen",
)
LIMIT = 300
"""Seconds after which a process counts as hanging."""


@cache
def start_server() -> str:
    """Start this process's server, unless it is running; returns its address, for `use_server`."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    server = _server()
    with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
        server.ensure_running()
    return server._forkserver_address


def wait_for_server() -> None:
    """Wait until the server has imported everything."""
    call_forked(do_nothing)


def do_nothing() -> None:
    """Nothing."""


def use_server(address: str) -> None:
    """Use the server of another process, which outlives this one, in place of one of its own."""
    server = _server()
    server._forkserver_address = address
    server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)  # The server ends with the process that started it.
    server.ensure_running = resource_tracker.ensure_running


def _server() -> Any:
    """What `multiprocessing` knows about this process's server, of which it makes nothing public."""
    return vars(forkserver)["_forkserver"]


def call_forked(function: Callable[..., None], *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Call a function in a process of its own, to its end.

    Args:
        function: One that can be imported.
        arguments: Whatever can be pickled.

    Returns:
        The process's exit code and what it printed, as `subprocess.run` with `capture_output` gives them.

    Raises:
        subprocess.TimeoutExpired: After `LIMIT` seconds.
    """
    start_server()
    with TemporaryDirectory() as folder:
        streams = Path(folder) / "stdout", Path(folder) / "stderr"
        target = multiprocessing.get_context("forkserver").Process(target=_call, args=(streams, function, arguments))
        target.start()
        try:
            target.join(LIMIT)
            if target.exitcode is None:
                raise subprocess.TimeoutExpired(function.__name__, LIMIT)
        finally:  # Where a test is interrupted, it ends, too.
            target.kill()
            target.join()
        printed = (stream.read_text() for stream in streams)
        return subprocess.CompletedProcess(function.__name__, target.exitcode, *printed)


def _call(streams: tuple[Path, Path], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for stream, path in zip((sys.stdout, sys.stderr), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    function(*arguments)


def spawn(*arguments: Any, **options: Any) -> Any:
    """`torch.multiprocessing.spawn`, whose processes start as forks of the server."""
    start_server()
    return mp.start_processes(*arguments, **options, start_method="forkserver")
