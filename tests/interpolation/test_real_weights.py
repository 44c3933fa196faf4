"""With the published weights, real clips are interpolated as well as by the package the weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rife_psnr import compare
from consistent4d_ns.interpolation.cache import cached_weight_file
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.interpolation.consistency import load_interpolator


@pytest.mark.parametrize(
    ("name", "first", "last", "side", "scale", "expected"),
    [
        ("blooming_rose", 0, 8, 256, 1.0, 22.22),
        ("blooming_rose", 16, 24, 256, 1.0, 26.20),
        ("roaring_t-rex", 0, 4, 256, 1.0, 25.02),
        ("pecking_blue_jay", 0, 8, 256, 1.0, 15.55),
        ("blooming_rose", 0, 8, 64, 1.0, 22.8),
        ("blooming_rose", 0, 8, 64, 2.0, 24.2),
    ],
)
def test_psnr_is_that_of_the_package(
    shared_data: Path, name: str, first: int, last: int, side: int, scale: float, expected: float
) -> None:
    if not cached_weight_file().exists():
        pytest.skip("needs the real RIFE weights: run `consistent4d weights rife`")
    interpolator = load_interpolator(InterpolationConfig(precision="fp32", scale=scale), "cpu")
    assert interpolator
    _, rife = compare(interpolator, shared_data / "sequences" / name, first, last, side)
    assert rife == pytest.approx(expected, abs=0.3)
