"""Finished runs: a config.yml and its checkpoints, opened without any prior, to be rendered or exported."""

from __future__ import annotations

import enum
import pickle
import re
from dataclasses import dataclass, is_dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch
import yaml

from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from consistent4d_ns.method_configs import Consistent4DTrainerConfig
    from consistent4d_ns.pipeline import Consistent4DPipeline

CHECKPOINT = re.compile(r"step-(\d+)\.ckpt")
"""How Nerfstudio names checkpoints."""
TRUSTED = ("consistent4d_ns.", "nerfstudio.", "pathlib", "torch.optim.")
"""Modules whose classes a configuration may name."""


@dataclass(frozen=True)
class Run:
    """A trained object, ready to be looked at."""

    config: Consistent4DTrainerConfig
    """What it was trained with."""
    pipeline: Consistent4DPipeline
    """Data and model in evaluation mode; no prior is loaded."""
    step: int
    """Training step of the checkpoint."""


class ConfigLoader(yaml.FullLoader):
    """Reads the configurations that Nerfstudio writes, and creates nothing but configurations, paths and enumerations.

    Nerfstudio's own commands use a loader that would call anything a file names.
    """

    def find_python_name(self, name: str, mark: Any, unsafe: bool = False) -> Any:
        """A class by its full name, out of the modules that configurations are made of."""
        if not name.startswith(TRUSTED) and "." in name:
            raise yaml.constructor.ConstructorError(None, None, f"it names {name}, which no configuration needs", mark)
        return super().find_python_name(name, mark, unsafe=True)

    def construct_configuration(self, suffix: str, node: yaml.Node) -> Any:
        """`!!python/object:...`: a dataclass with its fields."""
        kind = self.find_python_name(suffix, node.start_mark)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise yaml.constructor.ConstructorError(None, None, f"{suffix} is no configuration", node.start_mark)
        made = object.__new__(kind)
        yield made
        fields: Any = self.construct_mapping(node, deep=True)  # pyright: ignore[reportArgumentType]
        vars(made).update(fields)

    def construct_value(self, suffix: str, node: yaml.Node) -> Any:
        """`!!python/object/apply:...`: a path or a member of an enumeration."""
        kind = self.find_python_name(suffix, node.start_mark)
        if not (isinstance(kind, type) and issubclass(kind, (PurePath, enum.Enum))):
            raise yaml.constructor.ConstructorError(None, None, f"it calls {suffix}", node.start_mark)
        return kind(*self.construct_sequence(node, deep=True))  # pyright: ignore[reportArgumentType]


_TAG = "tag:yaml.org,2002:python/"
ConfigLoader.add_multi_constructor(f"{_TAG}object/apply:", ConfigLoader.construct_value)
ConfigLoader.add_multi_constructor(f"{_TAG}object:", ConfigLoader.construct_configuration)


def read_config(path: Path) -> Consistent4DTrainerConfig:
    """The configuration in a run's `config.yml`.

    Raises:
        InputError: no such file, not a configuration, or that of another method.
    """
    from consistent4d_ns.method_configs import Consistent4DTrainerConfig

    remedy = "give the config.yml that ns-train saved in the run's folder"
    if not path.is_file():
        raise InputError(f"{path} does not exist: {remedy}.")
    if CHECKPOINT.fullmatch(path.name):
        raise InputError(f"{path} is a checkpoint: {remedy} (two folders above it).")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), ConfigLoader)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a configuration ({reason}): {remedy}.") from error
    if not isinstance(config, Consistent4DTrainerConfig):
        method = getattr(config, "method_name", None)
        told = f"is a configuration of {method}, not of consistent4d" if method else "is not a configuration of a run"
        raise InputError(f"{path} {told}: {remedy}.")
    return config


def find_checkpoint(config_path: Path, config: Consistent4DTrainerConfig, step: int | None = None) -> Path:
    """The checkpoint of a step (default: the latest), beside the configuration or where the configuration says.

    Raises:
        InputError: there is none.
    """
    folders = (config_path.parent / config.relative_model_dir, config.get_checkpoint_dir())
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    steps = {int(match[1]): path for path in folder.glob("*.ckpt") if (match := CHECKPOINT.fullmatch(path.name))}
    if not steps:
        raise InputError(f"{folder} holds no checkpoint (step-*.ckpt): train until one is saved, or copy it there.")
    if step is not None and step not in steps:
        known = ", ".join(map(str, sorted(steps)))
        raise InputError(f"{folder} holds no checkpoint of step {step}: choose from {known}.")
    return steps[max(steps) if step is None else step]


def load_run(path: Path, step: int | None = None, data: Path | None = None, device: str | None = None) -> Run:
    """Open a finished run.

    Args:
        path: Its `config.yml`, or its folder.
        step: Training step of the checkpoint; default: the latest.
        data: Where its frames are now, if they were moved.
        device: Where to; default: CUDA if there is one, else the CPU.

    Raises:
        InputError: configuration, checkpoint or frames cannot be used.
    """
    path = path / "config.yml" if path.is_dir() else path
    config = read_config(path)
    checkpoint = find_checkpoint(path, config, step)
    if data is not None:
        config.data = config.pipeline.datamanager.data = config.pipeline.datamanager.dataparser.data = data
    state = read_checkpoint(checkpoint)
    pipeline: Any = config.pipeline.setup(
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"), test_mode="test"
    )
    pipeline.load_pipeline(state["pipeline"], state["step"])
    pipeline.eval()
    return Run(config, pipeline, state["step"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, tensors and plain values only.

    Raises:
        InputError: the file is damaged, or not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, LookupError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is damaged or no checkpoint: copy it again, or use an earlier one.") from error
    if not (isinstance(state, dict) and {"pipeline", "step"} <= state.keys()):
        raise InputError(f"{path} is not a checkpoint of a training run: give one that ns-train saved.")
    return state
