"""Reads weight files without running code they contain, and loads them into networks strictly."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.tensors import not_finite
from consistent4d_ns.files.weight_files import mistaken_for_weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file or of a torch pickle, on the CPU; those under `state_dict` if it has that entry.

    Pickles are read by torch's restricted unpickler; other objects in them become inert placeholders.

    Raises:
        InputError: The file is damaged, not a weight file, or cannot be read without running code.
    """
    try:
        if (mistake := mistaken_for_weights(path)) is not None:
            raise InputError(f"{path} {mistake}.")
        content: object = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: damaged, or holds Python code, which is never run; download it again or use a .safetensors copy."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path}: not a readable weight file ({reason}); download it again.") from error
    entries = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(entries, Mapping):
        raise InputError(f"{path}: holds no named tensors; this is no Zero123 prior.")
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    if unnamed := [name for name in tensors if not isinstance(name, str)]:
        raise InputError(f"{path}: a tensor is named {unnamed[0]!r}, which is no text; this is no Zero123 prior.")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_pickle(path: Path) -> object:
    """Memory-mapped where torch supports it: original checkpoints are several times larger than what is needed."""
    zipped = zipfile.is_zipfile(path)
    with _placeholders(path) if zipped else contextlib.nullcontext():
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


class _Inert:
    """Placeholder for an object in a checkpoint that is not a tensor, such as a trainer's callback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _placeholders(path: Path) -> contextlib.AbstractContextManager[Any]:
    """Allow the restricted unpickler the classes that `path` refers to, as placeholders of the same name.

    zero123-xl.ckpt, for example, refers to callbacks of an old pytorch-lightning. The real classes are not imported.
    """
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # torch < 2.5 refuses such files
        return contextlib.nullcontext()
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    stand_ins = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        stand_ins.append(type(attribute, (_Inert,), {"__module__": module}))
    return torch.serialization.safe_globals(stand_ins)


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Build networks with parameters on the meta device, to be loaded by `fill`; buffers are created as usual.

    Initialising network weights at random only to replace them would take longer than reading the real ones.
    """

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(cast(Any, on_meta))  # torch annotates the hook as returning None
    try:
        yield
    finally:
        hook.remove()


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors` into `network` strictly, whether or not it was built `without_weights`.

    Raises:
        InputError: A tensor is missing, unexpected, of another shape, or holds values that are not finite.
    """
    wanted = network.state_dict()
    shapes = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "not part of this network": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(shapes),
    }
    for problem, names in problems.items():
        if names:
            raise InputError(
                f"{source}: {len(names)} of {len(wanted)} tensors are {problem}, first {names[0]}; "
                "this is no prior in a known layout, or its download is incomplete."
            )
    if (name := not_finite(tensors)) is not None:
        fault = f"{name} holds values that are not finite (NaN or infinite)"
        raise InputError(f"{source}: {fault}; download it again, or use another copy.")
    network.load_state_dict(tensors, assign=True)
