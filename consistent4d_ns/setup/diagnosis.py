"""What stands in the way of each preset on this machine, and the commands that fix it. Nothing is looked at here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from consistent4d_ns.setup.machine import TRITON_TOOLS, Machine
from consistent4d_ns.setup.presets import NEEDS, Needs
from consistent4d_ns.setup.software import Package
from consistent4d_ns.setup.weights import Found

ALL = tuple(needs.preset for needs in NEEDS)
"""Names of all presets."""
ON_GPU = tuple(needs.preset for needs in NEEDS if needs.gpu_memory is not None)
"""Names of the presets that need a GPU."""
SMALL = "train consistent4d-mini or, on one image, consistent4d-image-mini, which need none"
"""What works without a GPU."""


@dataclass(frozen=True)
class Problem:
    """Something that is missing or wrong."""

    what: str
    """What it is, as a sentence without its full stop."""
    remedy: str
    """The command that fixes it, or what else to do."""
    stops: tuple[str, ...] = ()
    """Presets that cannot run because of it; none where it only costs time or an extra."""


def problems(machine: Machine, packages: Sequence[Package], weights: Sequence[Found]) -> list[Problem]:
    """Everything that is missing or wrong, first what concerns all presets."""
    return [
        *_of_packages(packages),
        *_of_registration(machine),
        *_of_torch(machine),
        *_of_gpu(machine),
        *_of_weights(weights),
        *_of_space(machine, weights),
        *_of_programs(machine, {package.name for package in packages if package.installed}),
    ]


def reasons(preset: str, found: Sequence[Problem]) -> list[str]:
    """Why a preset cannot run; empty if it can."""
    return [problem.what for problem in found if preset in problem.stops]


def _of_packages(packages: Sequence[Package]) -> Iterator[Problem]:
    for package in packages:
        if not package.fits:
            state = f"{package.installed} is installed" if package.installed else "is not installed"
            what = f"{package.name} {state}, {package.required or 'any version'} is required"
            yield Problem(what, f"pip install '{package.name}{package.required}'", () if package.extra else ALL)


def _of_registration(machine: Machine) -> Iterator[Problem]:
    if not machine.ns_train:
        yield Problem("ns-train is not installed beside this Python", "pip install .  (in a clone)", ALL)
    missing = [name for name in ALL if name not in machine.methods]
    if missing:
        what = f"Nerfstudio of this Python does not know {', '.join(missing)}"
        yield Problem(what, "pip install .  (in a clone)", tuple(missing))


def _of_torch(machine: Machine) -> Iterator[Problem]:
    if machine.torch_fault is not None:
        yield Problem(f"PyTorch cannot be imported ({machine.torch_fault})", "pip install --force-reinstall torch", ALL)


def _of_gpu(machine: Machine) -> Iterator[Problem]:
    if machine.torch_fault is not None:
        return
    if not machine.gpus:
        yield _no_gpu(machine)
        return
    gpu = machine.gpus[0]
    if not gpu.supported:
        what = f"this PyTorch has no kernels for {gpu.name} (compute capability {gpu.capability})"
        yield Problem(what, "install a PyTorch for this GPU, or give a mini preset --machine.device-type cpu", ALL)
    for needs in NEEDS:
        if needs.gpu_memory is None:
            continue
        figures, least = f"{needs.preset} takes {shown_memory(needs)} of GPU memory, {gpu.name}", needs.gpu_memory[0]
        if gpu.memory < least:
            remedy = "fewer pixels or views: docs/troubleshooting.md, Out of GPU memory"
            yield Problem(f"{figures} has {gpu.memory:.1f}", remedy, (needs.preset,))
        elif gpu.free is not None and gpu.free < least:
            remedy = "end the programs that use it: nvidia-smi lists them"
            yield Problem(f"{figures} has {gpu.free:.1f} free of {gpu.memory:.1f}", remedy, (needs.preset,))


def _no_gpu(machine: Machine) -> Problem:
    fault = f" ({machine.gpu_fault})" if machine.gpu_fault else ""
    if machine.driver is None:
        return Problem(f"there is no NVIDIA GPU with a driver{fault}", f"use a machine with one, or {SMALL}", ON_GPU)
    if machine.cuda is None:
        remedy = "pip install --force-reinstall torch  (a build with CUDA)"
        return Problem("this PyTorch is built without CUDA", remedy, ON_GPU)
    remedy = "update the driver, install a PyTorch for it, or look at CUDA_VISIBLE_DEVICES"
    what = f"PyTorch for CUDA {machine.cuda} finds no GPU with driver {machine.driver}{fault}"
    return Problem(what, remedy, ON_GPU)


def _of_weights(weights: Sequence[Found]) -> Iterator[Problem]:
    for found in weights:
        users = tuple(needs.preset for needs in NEEDS if found.weights.name in needs.weights)
        if users and found.state != "present":
            fault = f": {found.fault}" if found.fault else ""
            state = "in an unknown state" if found.state == "unknown" else found.state
            yield Problem(f"the weights {found.weights.name} are {state}{fault}", found.command, users)


def _of_space(machine: Machine, weights: Sequence[Found]) -> Iterator[Problem]:
    """Too little space for what is still to be downloaded into the hub's cache."""
    free = machine.free_disk.get("the hub's cache")
    for found in weights:
        needed = (found.weights.size - found.size) / 1e9
        wanted = found.weights.name == "zero123-xl" and found.state != "present"
        if wanted and free is not None and free < needed:
            what = f"the hub's cache has {free:.1f} GB free, {found.weights.name} takes {needed:.1f} more"
            yield Problem(what, "make room, or set HF_HOME to a folder with room")


def _of_programs(machine: Machine, installed: Collection[str]) -> Iterator[Problem]:
    if machine.gpus and "triton" not in installed:
        yield Problem("there is no Triton: a GPU takes more time and memory", "pip install triton  (Linux)")
    elif machine.gpus and machine.triton_tools is not None:
        yield Problem(f"Triton needs {machine.triton_tools}", TRITON_TOOLS[machine.triton_tools], ALL)
    if not machine.c_compiler:
        yield _no_compiler(machine)
    if machine.ffmpeg is None:
        what = "there is no FFmpeg program: ns-render and videos in HEVC with alpha do not work"
        yield Problem(what, "pip install --force-reinstall imageio-ffmpeg")


def _no_compiler(machine: Machine) -> Problem:
    cost = "a CPU takes two to three times as long"
    if machine.cc_is_set:
        what = f"what the environment variable CC names is no C compiler that works: {cost}"
        return Problem(what, "unset CC, or let it name a C compiler that works")
    return Problem(f"there is no C compiler that works: {cost}", "apt install build-essential")


def shown_time(needs: Needs) -> str:
    """How long a preset took where it was measured."""
    return "not measured yet" if needs.minutes is None else f"{_span(needs.minutes)} min on {needs.measured_on}"


def shown_memory(needs: Needs) -> str:
    """How much GPU memory a preset took where it was measured."""
    return "none needed" if needs.gpu_memory is None else f"{_span(needs.gpu_memory)} GiB"


def _span(limits: tuple[int, int]) -> str:
    low, high = limits
    return str(low) if low == high else f"{low} to {high}"
