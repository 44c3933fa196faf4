"""Checkpoint files: written atomically, verified before use, and read without executing code from them."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.config_files import CONFIG_FILE
from consistent4d_ns.files.outputs import PARTIAL, flush_to_disk, scratch_prefix
from consistent4d_ns.files.tensors import not_finite
from consistent4d_ns.messages import warn

FOLDER = "nerfstudio_models"
"""Nerfstudio's name for the folder of checkpoints in a run's folder."""
NAME = re.compile(r"step-(\d+)\.ckpt")
"""How Nerfstudio names checkpoints."""
FULL_DISK = "PytorchStreamWriter|inline_container"
"""Pattern in PyTorch's errors about files that cannot be written."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """File of the checkpoint that was saved after training step `step`."""
    return folder / f"step-{step:09d}.ckpt"


def step_of(path: Path) -> int:
    """The training step of a checkpoint's file, named as by `checkpoint_path`."""
    return int(path.stem.partition("-")[2])


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder by training step, whole or not; none if there is no such folder."""
    return {int(match[1]): path for path in folder.glob("*.ckpt") if (match := NAME.fullmatch(path.name))}


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is a regular file, a complete archive that holds something, and every checksum is right."""
    try:
        if not path.is_file():  # Opening a named pipe would block.
            return False
        with zipfile.ZipFile(path) as archive:
            # PyTorch compresses nothing: what is compressed may unpack to any size.
            plain = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            return plain and bool(archive.namelist()) and archive.testzip() is None
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def newest_whole(folder: Path, after: int = -1) -> Path | None:
    """The checkpoint of the latest step after one that is whole, if there is one; earlier ones are not read."""
    later = sorted((item for item in list_checkpoints(folder).items() if item[0] > after), reverse=True)
    return next((path for _, path in later if is_whole(path)), None)


def choose_checkpoint(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of a step, or by default the newest that is whole; newer ones that are damaged are named.

    Raises:
        InputError: there is none, or none that is whole.
    """
    found = list_checkpoints(folder)
    if not found:
        raise InputError(f"{folder} holds no checkpoint (step-*.ckpt): train until one is saved, or copy it there.")
    if step is not None and step not in found:
        known = ", ".join(map(str, sorted(found)))
        raise InputError(f"{folder} holds no checkpoint of step {step}: choose from {known}.")
    candidates = sorted(found, reverse=True) if step is None else [step]
    whole = next((candidate for candidate in candidates if is_whole(found[candidate])), None)
    if whole is None:
        names = ", ".join(found[candidate].name for candidate in candidates)
        raise InputError(f"{folder}: {names} damaged (cut off or altered): copy it again, or use another step.")
    if whole != candidates[0]:
        names = ", ".join(found[candidate].name for candidate in candidates if candidate > whole)
        warn(f"{folder}: {names} damaged (cut off or altered); using {found[whole].name}.")
    return found[whole]


def checkpoint_folder(path: Path) -> Path:
    """The folder of checkpoints that is meant by a run's folder, its config.yml, or that folder itself.

    Raises:
        InputError: it is nothing of the kind.
    """
    remedy = f"give a run's folder, its {FOLDER} folder, or one of the step-*.ckpt files in it"
    if not path.exists():
        raise InputError(f"{path} does not exist: {remedy}.")
    folder = path.parent if path.name == CONFIG_FILE else path
    for candidate in (folder, folder / FOLDER):
        if list_checkpoints(candidate):
            return candidate
    raise InputError(f"{path} holds no checkpoint (step-*.ckpt): {remedy}.")


def resumed_checkpoint(load_dir: Path | None, load_step: int | None, load_checkpoint: Path | None) -> Path | None:
    """The checkpoint to resume from; None to train from scratch.

    Args:
        load_dir: A run's folder, its folder of checkpoints, or a checkpoint.
        load_step: Training step of the checkpoint; default: the newest whole one.
        load_checkpoint: A checkpoint, if `load_dir` is None.

    Raises:
        InputError: there is no such checkpoint, or it is damaged.
    """
    if load_dir is not None and (load_dir.name == CONFIG_FILE or not load_dir.is_file()):
        return choose_checkpoint(checkpoint_folder(load_dir), load_step)
    file = load_checkpoint if load_dir is None else load_dir
    if file is None:
        return None
    if not file.is_file():
        raise InputError(f"{file} is not a file: give a step-*.ckpt file of a run.")
    if not is_whole(file):
        raise InputError(f"{file} is damaged or not a checkpoint: give another step-*.ckpt file of a run.")
    return file


def is_last(step: int, total: int) -> bool:
    """Whether a training of `total` steps, counted from 0, is at its end with this one."""
    return step + 1 >= total


def check_steps_left(file: Path, step: int, total: int) -> None:
    """Check that there is something left to train after a checkpoint.

    Args:
        file: The checkpoint.
        step: Its training step.
        total: Number of steps of the whole training.

    Raises:
        InputError: all steps are done.
    """
    if is_last(step, total):
        raise InputError(
            f"{file} is complete: {step + 1} of {total} steps are trained; to go on, give a larger total with "
            f"--max-num-iterations."
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents: tensors and plain values only, no code is run.

    Raises:
        InputError: the file is damaged, not a checkpoint, or holds NaN or infinite values.
    """
    damaged = f"{path} is damaged or not a checkpoint: copy it again, or use an earlier one."
    if not is_whole(path):
        raise InputError(damaged)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, LookupError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(damaged) from error
    if not _is_state_of_a_run(state):
        raise InputError(f"{path} is not a checkpoint of a training run: give one that ns-train saved.")
    if (name := not_finite(state["pipeline"])) is not None:
        raise InputError(f"{path} holds values in {name} that are not finite: use an earlier one, or train anew.")
    return state


def _is_stored(value: Any) -> bool:
    """Whether a value is a tensor that is as large as it says: a few bytes can be stretched to a trillion numbers."""
    return isinstance(value, Tensor) and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _is_state_of_a_run(state: Any) -> bool:
    """Whether a file's contents have a step and the named tensors of a pipeline."""
    if not (isinstance(state, dict) and {"pipeline", "step"} <= state.keys()):
        return False
    step, weights = state["step"], state["pipeline"]
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    return type(step) is int and step >= 0 and named and all(map(_is_stored, weights.values()))


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, flush it to the disk, then give it its name: there is never half a file at `path`.

    Until then the file is in the folder above: Nerfstudio reads every name in `path`'s own folder as that of a step.

    Raises:
        InputError: it cannot be written, or the pipeline's values are not all finite; what was at `path` stays.
    """
    if (name := not_finite(state.get("pipeline", {}))) is not None:
        raise InputError(f"{path} is not written, because {name} holds values that are not finite.")
    folder = path.parent.resolve()  # A link to another disk is followed, so that the file can be renamed.
    partial = partial_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        flush_to_disk(partial)
        partial.replace(folder / path.name)
        flush_to_disk(folder)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search(FULL_DISK, str(error)):
            raise
        reason = getattr(error, "strerror", None) or _why_not(folder)
        raise InputError(f"cannot write {path}: {reason}; make room on that disk.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(folder: Path) -> Path:
    """Where a checkpoint for `folder` is written first: a new name each time, so that no two writers share it."""
    return folder.parent / f"{scratch_prefix(folder)}{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"


def _why_not(folder: Path) -> str:
    """Why PyTorch could not write a file, which its own errors do not tell."""
    try:
        free = os.statvfs(folder)
    except (AttributeError, OSError):
        return "the system refused to write"
    return f"{free.f_bavail * free.f_frsize / 2**20:.0f} MiB are left there"
