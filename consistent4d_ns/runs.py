"""Finished runs: a config.yml and its checkpoints, opened without any prior, to be rendered or exported."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from consistent4d_ns.checks.config import check_config, parts_of
from consistent4d_ns.device.cuda import usable_device
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import choose_checkpoint, read_checkpoint
from consistent4d_ns.files.config_files import REMEDY, config_file
from consistent4d_ns.messages import warn

if TYPE_CHECKING:
    from consistent4d_ns.pipeline import Consistent4DPipeline
    from consistent4d_ns.trainer_config import Consistent4DTrainerConfig

PYTHON_TAG = "tag:yaml.org,2002:python/"
"""Beginning of the YAML tags that stand for Python objects."""
PATHS = ("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath")
"""Names of paths in configurations that were written on any system and by any version of Python."""


@dataclass(frozen=True)
class Run:
    """A trained object, ready to be looked at."""

    config: Consistent4DTrainerConfig
    """What it was trained with."""
    pipeline: Consistent4DPipeline
    """Data and model in evaluation mode; no prior is loaded."""
    step: int
    """Training step of the checkpoint."""

    @property
    def source_name(self) -> str:
        """Name of the folder of the frames, or of their file without its suffix; without frames the prompt."""
        if not self.config.has_frames and self.config.prompt:
            return self.config.prompt
        frames = self.config.frames_path or Path("frames")
        return frames.stem if frames.is_file() else frames.name


class ConfigLoader(yaml.SafeLoader):
    """Reads the configurations of this method, and builds nothing but their own classes and paths.

    No name in a file is imported: those that a configuration can hold are known beforehand (`known_classes`). A class
    or function is never taken from a file either; a field that holds one (`_target`, `collate_fn`) gets its default.
    Nerfstudio's own commands use a loader that would call anything a file names.
    """

    def construct_config(self, name: str, node: yaml.Node) -> Any:
        """`!!python/object:...`: a configuration with its fields."""
        kind = self._known(name, node)
        if not (isinstance(kind, type) and is_dataclass(kind) and isinstance(node, yaml.MappingNode)):
            raise self._refusal(f"{name} is not a configuration", node)
        fields = {key.value: value for key, value in node.value if not value.tag.startswith(f"{PYTHON_TAG}name:")}
        declared = {field.name for field in dataclasses.fields(kind)}
        for unknown in fields.keys() - declared:
            warn(f"{unknown} in the configuration is unknown to this version and is ignored.")
        return kind(**{key: self.construct_object(fields[key], deep=True) for key in fields.keys() & declared})

    def construct_call(self, name: str, node: yaml.Node) -> Any:
        """`!!python/object/apply:...`: a path, or a member of an enumeration."""
        kind = Path if name in PATHS else self._known(name, node)
        if not (issubclass(kind, (PurePath, enum.Enum)) and isinstance(node, yaml.SequenceNode)):
            raise self._refusal(f"it calls {name}", node)
        if issubclass(kind, enum.Enum) and len(node.value) != 1:
            raise self._refusal(f"it calls {name} with {len(node.value)} values, not with that of a member", node)
        return kind(*self.construct_sequence(node, deep=True))

    def construct_tuple(self, node: yaml.Node) -> tuple[Any, ...]:
        """`!!python/tuple`."""
        return tuple(self.construct_sequence(node, deep=True))  # pyright: ignore[reportArgumentType]

    def _known(self, name: str, node: yaml.Node) -> Any:
        if name not in known_classes():
            raise self._refusal(f"it names {name}, which no configuration of consistent4d holds", node)
        return known_classes()[name]

    @staticmethod
    def _refusal(reason: str, node: yaml.Node) -> yaml.YAMLError:
        return yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


ConfigLoader.add_multi_constructor(f"{PYTHON_TAG}object/apply:", ConfigLoader.construct_call)
ConfigLoader.add_multi_constructor(f"{PYTHON_TAG}object:", ConfigLoader.construct_config)
ConfigLoader.add_constructor(f"{PYTHON_TAG}tuple", ConfigLoader.construct_tuple)


@cache
def known_classes() -> dict[str, type]:
    """Everything a configuration of this method can be built of, by full name: what is in the presets, and all of
    Nerfstudio's settings of optimisers, schedulers and camera optimisers."""
    from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
    from nerfstudio.engine import optimizers, schedulers

    from consistent4d_ns.method_configs import PRESETS

    settings = {
        kind
        for module, base in ((optimizers, optimizers.OptimizerConfig), (schedulers, schedulers.SchedulerConfig))
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base)
    }
    found = {type(part) for specification in PRESETS for part in _parts(specification.config)}
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (*found, *settings, CameraOptimizerConfig)}


def _parts(config: Any) -> Iterator[Any]:
    """A configuration, and all configurations and members of enumerations that are in it."""
    yield config
    for field in dataclasses.fields(config):
        for _, part in parts_of(getattr(config, field.name)):
            yield from [part] if isinstance(part, enum.Enum) else _parts(part)


def read_config(path: Path, data: Path | None = None) -> Consistent4DTrainerConfig:
    """The configuration of a run, by its `config.yml` or its folder, set to use what lies beside it.

    Args:
        path: The file or folder.
        data: Frames to use in place of those that the configuration names.

    Raises:
        InputError: no such file, not a configuration, or that of another method.
    """
    from consistent4d_ns.method_configs import Consistent4DTrainerConfig

    path = config_file(path)
    try:
        loader = ConfigLoader(path.read_text(encoding="utf-8"))
        node: Any = loader.get_single_node()
        own = f"{PYTHON_TAG}object:{Consistent4DTrainerConfig.__module__}.{Consistent4DTrainerConfig.__qualname__}"
        if node is None or node.tag != own:
            raise InputError(f"{path} {_what_it_is(node)}.")
        config = loader.construct_document(node)
        check_config(config)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a configuration ({reason}): {REMEDY}.") from error
    config.open_in(path.parent, data)
    return config


def _what_it_is(node: Any) -> str:
    """Describes a YAML file that is not a configuration of this version of this method, and says what to do."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    method = next((value.value for key, value in pairs if key.value == "method_name"), None)
    own = node is not None and node.tag.startswith(f"{PYTHON_TAG}object:{__package__}.")
    if own or str(method).partition("-")[0] == "consistent4d":
        return "is a configuration of another version of consistent4d: open the run with the version that trained it"
    description = (
        f"is a configuration of {method}, not of consistent4d" if method else "is not a configuration of a run"
    )
    return f"{description}: {REMEDY}"


def load_run(path: Path, step: int | None = None, data: Path | None = None, device: str | None = None) -> Run:
    """Open a finished run.

    Args:
        path: Its `config.yml`, or its folder.
        step: Training step of the checkpoint; default: the newest that is whole.
        data: Where its frames are now, if they were moved.
        device: Where to; default: CUDA if there is one, else the CPU.

    Raises:
        InputError: configuration, checkpoint, frames or device cannot be used.
    """
    device = usable_device(device)
    config = read_config(path, data)
    frames = config.frames_path
    if data is None and frames is not None and not frames.exists():
        raise InputError(f"the frames of this run are no longer at {frames}: say with --data where they are.")
    return open_run(config, step, device)


def open_run(config: Consistent4DTrainerConfig, step: int | None = None, device: str | None = None) -> Run:
    """Open the run of a configuration that `read_config` gave; step, device and errors are those of `load_run`."""
    state = read_checkpoint(choose_checkpoint(config.get_checkpoint_dir(), step))
    pipeline: Any = config.pipeline.setup(device=usable_device(device), test_mode="test")
    pipeline.load_pipeline(state["pipeline"], state["step"])
    pipeline.eval()
    return Run(config, pipeline, state["step"])
