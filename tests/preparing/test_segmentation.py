"""Networks of rembg, which this package does not require: a stand-in with its interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing import segmentation
from consistent4d_ns.preparing.segmentation import load_segmenter


def stand_in(monkeypatch: pytest.MonkeyPatch, new_session: Callable[[str], Any], remove: Callable[..., Any]) -> None:
    """Let rembg be installed, with these two functions; their signatures are those of rembg 2.0.86."""
    module = ModuleType("rembg")
    module.new_session, module.remove = new_session, remove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rembg", module)
    monkeypatch.setattr(segmentation, "distribution", lambda name: name)


def test_a_network_of_rembg_gives_masks_from_0_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(data: np.ndarray, session: str, only_mask: bool) -> np.ndarray:
        assert (session, only_mask) == ("session of isnet-general-use", True)
        return data[..., 0]  # For an array rembg gives an array.

    stand_in(monkeypatch, lambda name: f"session of {name}", remove)
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    rgb[0, 0], rgb[0, 1] = 0, 255
    sure = load_segmenter("isnet-general-use")(rgb)
    assert sure.dtype == np.float32
    assert sure == pytest.approx(rgb[..., 0] / 255)


def test_a_network_that_rembg_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_session(name: str) -> None:
        raise ValueError(f"No session class found for model '{name}'")

    stand_in(monkeypatch, new_session, print)
    with pytest.raises(InputError, match=r"rembg cannot load cat .No session class .* leave out --segmenter"):
        load_segmenter("cat")


def test_rembg_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        stand_in(broken, print, print)
        broken.setitem(sys.modules, "rembg", None)
        with pytest.raises(InputError, match="rembg cannot be imported"):
            load_segmenter("cat")

    def missing(name: str) -> None:
        raise segmentation.PackageNotFoundError(name)

    monkeypatch.setattr(segmentation, "distribution", missing)
    with pytest.raises(InputError, match=r'--segmenter cat needs rembg: pip install "rembg\[cpu\]"'):
        load_segmenter("cat")
