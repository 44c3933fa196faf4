"""Looking at a machine copes with whatever it finds; GPUs are those of a stand-in for PyTorch."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consistent4d_ns.device.limits import cgroup_limits
from consistent4d_ns.setup import machine
from consistent4d_ns.setup.diagnosis import ALL, problems, reasons
from consistent4d_ns.setup.machine import Gpu, look

GIB = 2**30


def cuda(**functions: Any) -> SimpleNamespace:
    """A stand-in for PyTorch on a machine with two GPUs, with some of its functions replaced."""

    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(name=f"GPU {index}", total_memory=(16 + index) * GIB, major=8, minor=6)

    usual: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": properties,
        "mem_get_info": lambda index: (15 * GIB, 16 * GIB),
        "get_arch_list": lambda: ["sm_75", "sm_90a", "compute_90"],
    }
    return SimpleNamespace(cuda=SimpleNamespace(**usual | functions), version=SimpleNamespace(cuda="13.0"))


def seen(monkeypatch: pytest.MonkeyPatch, torch: Any) -> dict[str, Any]:
    """What is found of PyTorch."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    return machine._torch()


def test_gpus(monkeypatch: pytest.MonkeyPatch):
    found = seen(monkeypatch, cuda())
    assert found["gpus"] == (Gpu("GPU 0", 16.0, 15.0, "8.6", True), Gpu("GPU 1", 17.0, None, "8.6", True))
    assert (found["cuda"], found["gpu_fault"], found["torch_fault"]) == ("13.0", None, None)


def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch):
    found = seen(monkeypatch, cuda(get_arch_list=lambda: ["sm_90", "sm_100", "sm_120"]))
    assert [gpu.supported for gpu in found["gpus"]] == [False, False]


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch):
    def warn() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver\nis too old", stacklevel=1)
        return False

    found = seen(monkeypatch, cuda(is_available=warn))
    assert (found["gpus"], found["gpu_fault"]) == ((), "CUDA initialization: The NVIDIA driver")


def test_a_gpu_that_fails(monkeypatch: pytest.MonkeyPatch):
    def fail(index: int) -> Any:
        raise RuntimeError("CUDA error: out of memory\nmore")

    found = seen(monkeypatch, cuda(mem_get_info=fail))
    assert (found["gpus"], found["gpu_fault"]) == ((), "CUDA error: out of memory")


def test_headers_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    assert machine._missing_for_triton() == "Python's headers (Python.h)"
    (tmp_path / "Python.h").touch()
    assert machine._missing_for_triton() is None


def test_the_compiler_of_triton(monkeypatch: pytest.MonkeyPatch):
    """It takes CC as it is, with arguments or empty."""
    for name in ("", f"{sys.executable} -g"):
        monkeypatch.setenv("CC", name)
        assert "CC" in str(machine._missing_for_triton())
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine._missing_for_triton() == "a C compiler (gcc or clang)"


def test_looking_at_a_bare_machine(monkeypatch: pytest.MonkeyPatch):
    """No GPU, no programs, no compiler, no torch: nothing raises."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    found = look()
    assert (found.driver, found.gpus, found.ffmpeg, found.c_compiler) == (None, (), None, False)
    assert found.torch_fault is not None
    assert found.triton_tools == "a program without arguments in the environment variable CC"
    assert found.cc_is_set
    assert found.methods == tuple(sorted(ALL))
    assert all(reasons(preset, problems(found, [], [])) for preset in ALL)


V1 = "4:memory:/jobs/mine\n9:cpuset:/\n"
V2 = "0::/jobs/mine\n"


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        (
            V1,
            {"memory/jobs/mine/memory.limit_in_bytes": 4 * GIB, "memory/memory.limit_in_bytes": 2**63 - 4096},
            [4 * GIB],
        ),
        (V2, {"jobs/mine/memory.max": "max", "jobs/memory.max": 8 * GIB}, [8 * GIB]),
        (V2, {"jobs/mine/memory.max": 2 * GIB, "jobs/memory.max": 8 * GIB}, [2 * GIB, 8 * GIB]),
        ("0::/\n", {"memory.max": 3 * GIB}, [3 * GIB]),  # What a container sees of its own group.
        ("nonsense\n\n", {"memory.max": "three"}, []),
        (None, {}, []),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, groups: str | None, files: dict[str, Any], limits: list[int]):
    """The process's own group and all above it, in both versions."""
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, value in files.items():
        (file := tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    assert list(cgroup_limits(tmp_path)) == limits


def test_a_control_group_limits_what_doctor_tells(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("consistent4d_ns.device.limits.cgroup_limits", lambda root: iter([GIB // 2]))
    assert look().memory == 0.5
