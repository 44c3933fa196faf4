"""The benchmark of prompts with a prior that is known exactly: what it measures, and runs of a few steps."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import text_to_3d
from benchmarks.text_to_3d import Options, measure, moved_colours, true_views, views_around
from consistent4d_ns.data.cameras import OrbitViews, orbit_views
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.errors import InputError

SIZE = 24
FRONT = orbit_views(15.0, 0.0, 2.0, 49.1)
NO_MODEL = cast(Any, None)


def seen(turn: int) -> dict[str, Tensor]:
    """What a model would render that shows the toy as it is, but turned by so many of the views around it."""
    images, silhouettes = (views.roll(turn, dims=0) for views in true_views(FRONT, SIZE))
    return {"rgb": images, "depth": torch.full_like(silhouettes, 2.0), "accumulation": silhouettes}


@pytest.mark.parametrize(("turn", "own_kind"), [(0, 1.0), (text_to_3d.AROUND // 2, 0.5)])
def test_figures_of_the_true_toy_and_of_one_that_faces_away(
    turn: int, own_kind: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From behind, fronts are backs; sides, as many as both together, are those of the other side."""
    monkeypatch.setattr(text_to_3d, "rendered", lambda *_: seen(turn))
    monkeypatch.setattr(text_to_3d, "neighbours_psnr", lambda *_: 0.0)
    figures, images = measure(NO_MODEL, FRONT, SIZE)
    assert images.shape == (text_to_3d.AROUND, SIZE, SIZE, 3)
    assert figures["own_kind"] == pytest.approx(own_kind, abs=0.1)
    assert math.isinf(figures["psnr"]) == math.isinf(figures["psnr_front"]) == (turn == 0)
    assert (figures["iou"] == pytest.approx(1.0)) == (turn == 0)


def sphere(view: OrbitViews, radius: float = 0.7) -> tuple[Tensor, Tensor]:
    """Colours, which are places, and depth of a ball at the origin; where there is none, the depth is 0."""
    rays = view_rays(view, torch.zeros(1), 96)
    along = -(rays.origins * rays.directions).sum(dim=-1, keepdim=True)
    inside = along.square() - rays.origins.square().sum(dim=-1, keepdim=True) + radius**2
    depth = torch.where(inside > 0, along - inside.clamp(min=0).sqrt(), 0.0)
    places = torch.where(inside > 0, rays.origins + depth * rays.directions, 0.0)
    return places.view(96, 96, 3), depth.view(96, 96, 1)


def test_colours_are_moved_to_where_the_depth_says() -> None:
    view, other = FRONT, replace(FRONT, azimuth=FRONT.azimuth + 10.0)
    (here, depth), (there, other_depth) = sphere(view), sphere(other)
    moved, same = moved_colours(view, depth, other, there, other_depth)
    both = same & (depth[..., 0] > 0)
    assert 0.8 < both.sum() / (depth > 0).sum() < 1.0, "the rim of the ball turns out of view"
    assert (moved - here)[both].norm(dim=-1).median() < 0.005
    assert (there - here)[both].norm(dim=-1).median() > 0.05


@pytest.mark.slow
def test_variants_are_trained_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text_to_3d, "AROUND", 8)
    monkeypatch.setattr(text_to_3d, "ELEVATIONS", (15.0,))
    monkeypatch.setattr(text_to_3d, "NEIGHBOURS", 2)
    monkeypatch.setattr(text_to_3d, "SHOWN", 4)
    options = Options(tmp_path / "text.json", steps=2, size=SIZE, variants=("plain", "one prompt"), device="cpu")
    text_to_3d.main(options)
    plain, one = json.loads(options.out.read_text())
    assert (plain["variant"], one["variant"]) == ("plain", "one prompt")
    for figures in (plain["figures"], one["figures"]):
        assert all(math.isfinite(figures[name]) for name in ("psnr", "psnr_front", "psnr_side", "psnr_back", "iou"))
        assert 0.0 <= figures["own_kind"] <= 1.0
    with Image.open(tmp_path / "text.png") as sheet:
        assert sheet.height >= 3 * SIZE
    assert "| one prompt | 0 |" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists; name a new file"):
        text_to_3d.main(options)
    with pytest.raises(InputError, match=r"--variants two: there is no such variant; choose from plain"):
        text_to_3d.main(dataclasses.replace(options, out=tmp_path / "b.json", variants=("two",)))


def test_views_around_begin_with_the_front() -> None:
    views = views_around(FRONT, 4)
    assert [float(view.azimuth) % 360.0 for view in views] == [0.0, 90.0, 180.0, 270.0]
