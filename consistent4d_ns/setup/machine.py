"""What this machine has: GPU, driver, compilers, programs, space. Every look copes with whatever it finds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from consistent4d_ns.device.compilers import find_compiler
from consistent4d_ns.device.limits import memory_limit
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.disks import free_space
from consistent4d_ns.interpolation.cache import cached_weight_file

SECONDS = 15
"""How long a program may take to answer."""
TRITON_TOOLS = {
    "a C compiler (gcc or clang)": "apt install build-essential",
    "a program without arguments in the environment variable CC": "unset CC, or let it name a C compiler that is there",
    "Python's headers (Python.h)": "apt install python3-dev",
}
"""What Triton may lack, and the remedy of each."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch can use."""

    name: str
    """Name of the model."""
    memory: float
    """Its memory in GiB."""
    free: float | None
    """How much of it is free, in GiB; None where that is unknown."""
    capability: str
    """CUDA's compute capability."""
    supported: bool = True
    """Whether PyTorch has kernels for it."""


@dataclass(frozen=True)
class Machine:
    """What was found; no paths and no names of people or machines."""

    system: str
    """Operating system and processor."""
    python: str
    """Version of Python."""
    cores: int
    """CPU cores that this process may use."""
    memory: float | None
    """RAM in GiB that this process may use: the machine's, or what a control group allows."""
    driver: str | None
    """Version of the NVIDIA driver; None where there is none."""
    gpus: tuple[Gpu, ...]
    """GPUs that PyTorch can use; it trains on the first."""
    gpu_fault: str | None
    """Why PyTorch cannot use a GPU, or not well, if it says so."""
    torch_fault: str | None
    """Why PyTorch cannot be imported, if it cannot."""
    cuda: str | None
    """CUDA version that PyTorch is built for; None for a build without CUDA."""
    c_compiler: bool
    """Whether a C compiler works, which compiles kernels for the CPU."""
    cc_is_set: bool
    """Whether the environment variable CC chooses the compiler."""
    triton_tools: str | None
    """What Triton lacks to compile its launcher of kernels, if anything: one of `TRITON_TOOLS`."""
    ns_train: bool
    """Whether `ns-train` is installed beside this Python."""
    methods: tuple[str, ...]
    """Methods of this package that are registered with Nerfstudio."""
    ffmpeg: str | None
    """Version of the FFmpeg program that imageio-ffmpeg finds."""
    tinycudann: bool
    """Whether tinycudann is installed, which is optional."""
    free_disk: Mapping[str, float | None]
    """Free GB on the disk of each folder that is written to."""


def look() -> Machine:
    """Look at this machine; takes as long as importing PyTorch."""
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        driver=_driver(),
        **_torch(),
        c_compiler=find_compiler() is not None,
        cc_is_set=bool(os.environ.get("CC")),
        triton_tools=_missing_for_triton(),
        ns_train=shutil.which("ns-train", path=str(Path(sys.executable).parent)) is not None,
        methods=tuple(sorted(_methods())),
        ffmpeg=_ffmpeg(),
        tinycudann=find_spec("tinycudann") is not None,
        free_disk=_free_disk(),
    )


def _memory() -> float | None:
    """What this process may use, in GiB."""
    limit = memory_limit()
    return None if limit is None else limit / 2**30


def _driver() -> str | None:
    """Version of the NVIDIA driver, as its own program says."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None


def _torch() -> dict[str, Any]:
    """What PyTorch says of itself and its GPUs."""
    found: dict[str, Any] = {"gpus": (), "gpu_fault": None, "torch_fault": None, "cuda": None}
    try:
        import torch
    except Exception as error:  # Libraries that do not fit together raise all kinds of exceptions.
        return found | {"torch_fault": _reason(error)}
    with warnings.catch_warnings(record=True) as caught:  # PyTorch warns where the driver or the GPU is too old.
        warnings.simplefilter("always")
        try:
            found["cuda"] = torch.version.cuda
            if torch.cuda.is_available():
                found["gpus"] = tuple(_gpu(torch, index) for index in range(torch.cuda.device_count()))
        except Exception as error:
            found["gpu_fault"] = _reason(error)
    if caught and found["gpu_fault"] is None:
        found["gpu_fault"] = _reason(caught[0].message)
    return found


def _gpu(torch: Any, index: int) -> Gpu:
    about = torch.cuda.get_device_properties(index)
    # Asking for free memory reserves some itself, so only the GPU that a training would use is asked.
    free = torch.cuda.mem_get_info(index)[0] / 2**30 if index == 0 else None
    kernels = [int(number) for arch in torch.cuda.get_arch_list() for number in re.findall(r"^sm_(\d+)", arch)]
    supported = 10 * about.major + about.minor >= min(kernels, default=0)
    return Gpu(about.name, about.total_memory / 2**30, free, f"{about.major}.{about.minor}", supported)


def _reason(error: Exception | Warning | str) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__


def _missing_for_triton() -> str | None:
    """What is missing for Triton, which compiles a launcher in C for each kernel when it first runs."""
    compiler, variable, headers = TRITON_TOOLS
    chosen = os.environ.get("CC")  # Triton takes it as it is, even if it is empty.
    if chosen is not None and not shutil.which(chosen):
        return variable
    if chosen is None and not any(map(shutil.which, ("gcc", "clang"))):
        return compiler
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # Debian's is for local additions
    if not Path(sysconfig.get_path("include", scheme), "Python.h").exists():
        return headers
    return None


def _methods() -> set[str]:
    entries = metadata.entry_points(group="nerfstudio.method_configs")
    return {entry.name for entry in entries if entry.value.startswith("consistent4d_ns.")}


def _ffmpeg() -> str | None:
    try:
        from imageio_ffmpeg import get_ffmpeg_version

        return get_ffmpeg_version()
    except Exception:  # Not installed, no program for this system, or one that does not start.
        return None


def _free_disk() -> dict[str, float | None]:
    """Free GB where weights are kept, and where the command was started."""
    folders: dict[str, Callable[[], Path]] = {
        "RIFE's cache": lambda: cached_weight_file().parent,
        "this folder": Path.cwd,
    }
    try:
        from huggingface_hub import constants

        folders = {"the hub's cache": lambda: Path(constants.HF_HUB_CACHE)} | folders
    except Exception:  # Not installed, or damaged: that is reported among the packages.
        pass
    return {name: _free(folder) for name, folder in folders.items()}


def _free(folder: Callable[[], Path]) -> float | None:
    try:
        return free_space(folder()) / 1e9
    except (OSError, InputError):  # It cannot be read, is gone, or the user has no home.
        return None
