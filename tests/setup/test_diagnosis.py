"""Which presets can run on a machine, why the others cannot, and what fixes it: for machines of many kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consistent4d_ns.setup.diagnosis import ALL, ON_GPU, Problem, problems, reasons
from consistent4d_ns.setup.machine import TRITON_TOOLS, Gpu, Machine
from consistent4d_ns.setup.presets import NEEDS
from consistent4d_ns.setup.software import Package
from consistent4d_ns.setup.weights import WEIGHTS, Found, State

H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, 79.0, "9.0")
GOOD = Machine(
    system="Linux",
    python="3.11.9",
    cores=16,
    memory=128.0,
    driver="580.1",
    gpus=(H100,),
    gpu_fault=None,
    torch_fault=None,
    cuda="13.0",
    c_compiler=True,
    cc_is_set=False,
    triton_tools=None,
    ns_train=True,
    methods=ALL,
    ffmpeg="7.1",
    tinycudann=False,
    free_disk={"the hub's cache": 100.0, "this folder": 100.0},
)
PACKAGES = (Package("torch", "2.11.0", ">=2.6", "2.11.0"), Package("triton", "3.6.0", None, "3.6.0"))
PRESENT = tuple(Found(weights, "present", Path("x"), weights.size) for weights in WEIGHTS)


def found(
    machine: Machine = GOOD, packages: tuple[Package, ...] = PACKAGES, weights: tuple[Found, ...] = PRESENT
) -> list[Problem]:
    result = problems(machine, packages, weights)
    assert all(problem.remedy and "\n" not in problem.what for problem in result)
    return result


def stopped(result: list[Problem]) -> tuple[str, ...]:
    """Presets that cannot run."""
    return tuple(preset for preset in ALL if reasons(preset, result))


def test_a_machine_that_has_everything():
    assert found() == []
    assert ON_GPU == ("consistent4d", "consistent4d-big", "consistent4d-image", "consistent4d-text")


NO_GPU = replace(GOOD, gpus=(), driver=None)
SMALL = replace(GOOD, gpus=(Gpu("a small one", 8.0, 7.9, "8.6"),))


@pytest.mark.parametrize(
    ("machine", "stops", "what", "remedy"),
    [
        (NO_GPU, ON_GPU, "no NVIDIA GPU", "consistent4d-mini"),
        (replace(NO_GPU, driver="470.1", cuda=None), ON_GPU, "built without CUDA", "pip install"),
        (
            replace(NO_GPU, driver="470.1", gpu_fault="The NVIDIA driver is too old"),
            ON_GPU,
            "CUDA 13.0 finds no GPU with driver 470.1 (The NVIDIA driver is too old)",
            "update the driver",
        ),
        (
            SMALL,
            ("consistent4d-big", "consistent4d-text"),
            "takes 11 GiB of GPU memory, a small one has 8.0",
            "Out of GPU memory",
        ),
        (
            replace(GOOD, gpus=(replace(H100, free=6.0),)),
            ("consistent4d-big", "consistent4d-text"),
            "consistent4d-big takes 11 GiB",
            "nvidia-smi",
        ),
        (replace(GOOD, gpus=(replace(H100, supported=False),)), ALL, "no kernels for NVIDIA H100", "install a PyTorch"),
        (replace(GOOD, gpus=(replace(H100, free=None), SMALL.gpus[0])), (), "", ""),
        (replace(GOOD, torch_fault="libcudart.so: cannot open"), ALL, "(libcudart.so: cannot open)", "reinstall torch"),
        (replace(GOOD, ns_train=False), ALL, "ns-train is not installed", "pip install ."),
        (replace(GOOD, methods=ALL[:1]), ALL[1:], "does not know consistent4d-big", "pip install ."),
        (replace(GOOD, triton_tools="a C compiler (gcc or clang)"), ALL, "Triton needs a C", "apt install build"),
        (replace(GOOD, triton_tools="Python's headers (Python.h)"), ALL, "Triton needs Python's", "python3-dev"),
        (replace(GOOD, triton_tools=list(TRITON_TOOLS)[1]), ALL, "in the environment variable CC", "unset CC"),
        (
            replace(NO_GPU, c_compiler=False, cc_is_set=True),
            ON_GPU,
            "what the environment variable CC names",
            "unset CC",
        ),
        (replace(NO_GPU, c_compiler=False), ON_GPU, "no C compiler that works", "apt install build-essential"),
        (replace(GOOD, ffmpeg=None), (), "no FFmpeg", "imageio-ffmpeg"),
    ],
)
def test_machines(machine: Machine, stops: tuple[str, ...], what: str, remedy: str):
    result = found(machine)
    assert stopped(result) == stops
    if what:
        (problem,) = (problem for problem in result if what in problem.what)
        assert remedy in problem.remedy
    else:
        assert result == []


def test_packages_that_do_not_fit():
    result = found(packages=(Package("torch", "2.1.0", ">=2.6", None), Package("av", None, ">=17", None), PACKAGES[1]))
    assert [problem.remedy for problem in result] == ["pip install 'torch>=2.6'", "pip install 'av>=17'"]
    assert stopped(result) == ALL
    (problem,) = found(packages=PACKAGES[:1])
    assert "no Triton" in problem.what
    assert problem.stops == ()


@pytest.mark.parametrize("name", ["rife", "zero123-xl", "stable-zero123", "bundled"])
@pytest.mark.parametrize("state", ["missing", "incomplete", "damaged"])
def test_weights_stop_those_that_need_them(name: str, state: State):
    weights = [replace(item, state=state, size=0) if item.weights.name == name else item for item in PRESENT]
    result = found(weights=tuple(weights))
    assert stopped(result) == tuple(needs.preset for needs in NEEDS if name in needs.weights)
    assert len(result) == (0 if name == "stable-zero123" else 1)
    if name in ("rife", "zero123-xl"):
        assert result[0].remedy == f"consistent4d weights {name}"


def test_space_for_what_is_missing():
    weights = [replace(item, state="missing", size=0) for item in PRESENT if item.weights.name == "zero123-xl"]
    machine = replace(GOOD, free_disk={"the hub's cache": 1.2})
    *_, problem = found(machine, weights=tuple(weights))
    assert "has 1.2 GB free" in problem.what
    assert "HF_HOME" in problem.remedy
    assert found(machine) == []
