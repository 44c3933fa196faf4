"""`consistent4d doctor`: whether the presets can run here, what is missing, and the commands that fix it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from consistent4d_ns import __version__
from consistent4d_ns.cli.progress import announce
from consistent4d_ns.cli.tables import aligned, shown_size
from consistent4d_ns.errors import FAILED

if TYPE_CHECKING:
    from consistent4d_ns.setup.diagnosis import Problem
    from consistent4d_ns.setup.machine import Machine
    from consistent4d_ns.setup.software import Package
    from consistent4d_ns.setup.weights import Found


@dataclass(frozen=True)
class Report:
    """What was found."""

    machine: Machine
    """The machine."""
    packages: Sequence[Package]
    """Python packages."""
    weights: Sequence[Found]
    """Weights that presets need."""
    problems: Sequence[Problem]
    """What is missing or wrong."""


def doctor(json: bool = False) -> None:
    """Say which presets can run on this machine, what is missing, and the commands that fix it.

    Ends with exit code 1 if the preset consistent4d cannot run. Nothing is downloaded or changed.

    Args:
        json: Print everything as JSON, for a bug report; it names no folders, users or machines.
    """
    from consistent4d_ns.setup.diagnosis import reasons
    from consistent4d_ns.setup.presets import DEFAULT

    announce("Looking at this machine")
    report = examine()
    print(as_json(report) if json else as_text(report))
    if reasons(DEFAULT, report.problems):
        raise SystemExit(FAILED)


def examine() -> Report:
    """Look at everything."""
    from consistent4d_ns.setup.diagnosis import problems
    from consistent4d_ns.setup.machine import look
    from consistent4d_ns.setup.software import packages
    from consistent4d_ns.setup.weights import find_all

    machine, installed = look(), packages()
    try:
        weights = find_all()
    except ImportError:  # One of the packages is missing or damaged.
        weights = []
    return Report(machine, installed, weights, problems(machine, installed, weights))


def as_text(report: Report) -> str:
    """The report as one screen."""
    machine = report.machine
    parts = [
        [f"consistent4d_ns {__version__}, Python {machine.python}, {machine.system}", *aligned(machine_rows(machine))],
        aligned([("package", "installed", "known to work"), *package_rows(report.packages)]),
        aligned([("weights", "state", "size"), *weight_rows(report.weights)]),
        aligned([("preset", "here", "GPU memory", "measured time"), *preset_rows(report.problems)]),
        problem_lines(report.problems),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def machine_rows(machine: Machine) -> list[tuple[str, str]]:
    """What the machine has, with names."""
    memory = "" if machine.memory is None else f", {machine.memory:.0f} GiB of memory"
    free = [f"{'unknown' if size is None else f'{size:.0f} GB'} in {name}" for name, size in machine.free_disk.items()]
    return [
        *(("GPU", gpu_line(machine, index)) for index in range(max(1, len(machine.gpus)))),
        ("driver", machine.driver or "none"),
        ("CUDA of PyTorch", machine.cuda or "none"),
        ("CPU", f"{machine.cores} cores{memory}"),
        ("free disk", ", ".join(free)),
        ("C compiler", "works" if machine.c_compiler else "none that works"),
        ("FFmpeg", machine.ffmpeg or "none"),
        ("tinycudann", "installed" if machine.tinycudann else "not installed (optional)"),
    ]


def gpu_line(machine: Machine, index: int) -> str:
    """A GPU in words."""
    if not machine.gpus:
        return "none that PyTorch can use"
    gpu = machine.gpus[index]
    free = "" if gpu.free is None else f", {gpu.free:.1f} free"
    return f"{gpu.name}, {gpu.memory:.1f} GiB{free}, compute capability {gpu.capability}"


def package_rows(packages: Sequence[Package]) -> list[tuple[str, str, str]]:
    """Packages that matter most, those of extras, and those that do not fit."""
    from consistent4d_ns.setup.software import SHOWN

    shown = [package for package in packages if package.name in SHOWN or package.extra or not package.fits]
    return [(package.name, package.installed or _none(package), package.known or "") for package in shown]


def _none(package: Package) -> str:
    """What to say of a package that is not installed."""
    return f"none (extra {package.extra})" if package.extra else "none"


def weight_rows(weights: Sequence[Found]) -> list[tuple[str, str, str]]:
    """Weights and whether they are here."""
    return [(found.weights.name, found.state, shown_size(found.size or found.weights.size)) for found in weights]


def preset_rows(problems: Sequence[Problem]) -> list[tuple[str, str, str, str]]:
    """Whether each preset can run here, what it takes, and how long it took where it was measured."""
    from consistent4d_ns.setup.diagnosis import reasons, shown_memory, shown_time
    from consistent4d_ns.setup.presets import NEEDS

    return [
        (
            needs.preset,
            "cannot run" if reasons(needs.preset, problems) else "can run",
            shown_memory(needs),
            shown_time(needs),
        )
        for needs in NEEDS
    ]


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """What is missing or wrong, and what fixes it."""
    if not problems:
        return ["Nothing is missing."]
    lines = []
    for problem in problems:
        stops = f" (stops {', '.join(problem.stops)})" if problem.stops else ""
        lines += [f"- {problem.what}{stops}", f"    {problem.remedy}"]
    return lines


def as_json(report: Report) -> str:
    """The report for a program, without folders."""
    from consistent4d_ns.setup.diagnosis import reasons
    from consistent4d_ns.setup.presets import NEEDS

    content = {
        "version": __version__,
        "machine": asdict(report.machine),
        "packages": {package.name: asdict(package) | {"fits": package.fits} for package in report.packages},
        "weights": {found.weights.name: {"state": found.state, "size": found.size} for found in report.weights},
        "presets": {
            needs.preset: asdict(needs) | {"reasons": reasons(needs.preset, report.problems)} for needs in NEEDS
        },
        "problems": [asdict(problem) for problem in report.problems],
    }
    return json.dumps(without_folders(content), indent=1)


def without_folders(content: Any) -> Any:
    """Plain values in which every absolute path of a text is shortened to its last part."""
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_folders(value) for value in content]
    return re.sub(r"(?<![\w./:])~?/(?:[^/\s'\":;,]+/)+", "", content) if isinstance(content, str) else content
