"""What the programs named in the documentation accept: each command is parsed by the parser of its program, unrun."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tyro

from consistent4d_ns import method_configs
from consistent4d_ns.cli import (
    batch,
    camera_path,
    compare,
    demo,
    doctor,
    enhance,
    eval,
    export,
    export_web,
    finetune,
    prepare,
    render,
    splats,
    sweep,
    toy,
    view,
    weights,
)
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from tests.docs.pages import ROOT

PRESETS: dict[str, Consistent4DTrainerConfig] = {
    str(specification.config.method_name): method_configs.preset(specification)
    for specification in method_configs.PRESETS
}
COMMANDS: dict[str, Callable[..., Any]] = {
    "batch": batch.batch,
    "camera-path": camera_path.camera_path_command,
    "compare": compare.compare,
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "enhance": enhance.enhance,
    "eval": eval.evaluate,
    "export mesh": export.mesh,
    "export points": export.points,
    "export splats": splats.splats,
    "export usd": export.usd,
    "export web": export_web.web,
    "finetune": finetune.finetune,
    "prepare": prepare.prepare,
    "render": render.render,
    "sweep": sweep.sweep,
    "toy": toy.toy,
    "view": view.view,
    "weights": weights.weights,
    "weights convert": weights.weights,
    "weights metrics": weights.weights,
}
"""Functions behind `consistent4d`, by the words that lead to them."""
NERFSTUDIO = {
    "ns-eval": ["scripts/eval.py"],
    "ns-render": ["scripts/render.py"],
    "ns-viewer": ["scripts/viewer/run_viewer.py", "configs/base_config.py"],
}
"""Nerfstudio's programs, and where their options are declared. Importing them would take many seconds."""


def ns_train(method: str, args: list[str]) -> Consistent4DTrainerConfig:
    """The configuration that `ns-train METHOD` makes of arguments."""
    marks = (tyro.conf.FlagConversionOff, tyro.conf.SuppressFixed)
    return tyro.cli(Consistent4DTrainerConfig, default=PRESETS[method], args=args, config=marks)


def consistent4d(words: list[str]) -> None:
    """Parse a `consistent4d` command; nothing is run."""
    length = 2 if words[0] == "export" else 1
    command = COMMANDS[" ".join(words[:length])]
    tyro.cli(functools.wraps(command)(lambda *args, **kwargs: None), args=words[length:])


def refusal(parse: Callable[[], Any]) -> str:
    """Why a parser refuses arguments; empty if it does not."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parse()
    except SystemExit as exit_:
        return said.getvalue() if exit_.code else ""
    except KeyError as error:
        return f"no command {error}"
    return ""


def help_options(parse: Callable[[list[str]], Any]) -> set[str]:
    """Options in a help text."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        parse(["--help"])
    return set(re.findall(r"--[a-z][\w.-]*[a-z0-9]", said.getvalue()))


def undeclared(words: Iterable[str], sources: Iterable[Path]) -> list[str]:
    """Options that are the name of no field or parameter in source files; for programs that are slow to import."""
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    names = {word: re.split(r"[.=]", word.removeprefix("--"))[-1] for word in words if word.startswith("--")}
    return [
        word
        for word, name in names.items()
        if not re.search(rf"\b{name.removeprefix('no-').replace('-', '_')}\b\s*:|[\"'](--)?{name}[\"']", text)
    ]


def module_faults(words: list[str]) -> list[str]:
    """What is wrong with `python -m MODULE ...` or `python FILE ...`."""
    file = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
    if words[1] == "-m" and words[2].split(".")[0] not in ("benchmarks", "training", "tests"):
        return []
    if not (ROOT / file).is_file():
        return [f"no {file}"]
    return undeclared(words[2:], [ROOT / file])


def faults(words: list[str]) -> list[str]:
    """What is wrong with one command of the documentation; `ns-train` is checked apart, as its parser is slow."""
    program = words[0]
    if program == "consistent4d":
        said = refusal(lambda: consistent4d(words[1:]))
        return [f"{' '.join(words)}: {said}"] if said else []
    if program == "python":
        return module_faults(words)
    if program in NERFSTUDIO:
        package = importlib.util.find_spec("nerfstudio")
        assert package is not None
        folder = Path(str(package.origin)).parent
        return undeclared(words[1:], [folder / name for name in NERFSTUDIO[program]])
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return [f"make {word}" for word in words[1:] if "=" not in word and word not in targets]
    return []
