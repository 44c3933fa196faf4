"""The benchmark of one image to a static object: what it renders, and its runs on a box of a few steps."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from benchmarks import image_to_3d
from benchmarks.image_to_3d import REPEATS, VIEWS, Options, held_out_models, views_of, write_sequence
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig
from consistent4d_ns.data.dataset import shared_frames
from consistent4d_ns.errors import InputError
from training.meshes import MeshLibrary, load_meshes, pack, read_models

FEW = (
    "max_num_iterations=3",
    "pipeline.model.samples_per_ray=24",
    "pipeline.datamanager.dataparser.image_size=32",
    "pipeline.datamanager.plan.reference_rays=64",
    "pipeline.guidance.kind=none",
    "pipeline.targets.hold.steps=0",
)
"""Changes that make a run a matter of seconds."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> MeshLibrary:
    """A red box, as if it were held out."""
    folder = tmp_path_factory.mktemp("meshes")
    box = trimesh.creation.box(extents=(1.0, 0.5, 0.8))
    box.visual.vertex_colors = [255, 0, 0, 255]  # type: ignore[union-attr]
    box.export(folder / "box.glb")
    (folder / "library.xz").write_bytes(pack(read_models([folder])[0]))
    loaded = load_meshes(folder / "library.xz", "cpu")
    return dataclasses.replace(loaded, held_out=torch.ones_like(loaded.held_out))


def test_a_sequence_shows_one_object_from_known_cameras(library: MeshLibrary, tmp_path: Path) -> None:
    (model,) = held_out_models(library)
    views = views_of(library, model)
    assert torch.equal(views, views_of(library, model))
    sequence = FrameSequenceDataParserConfig(data=write_sequence(tmp_path / "box", views, 2), image_size=128).setup()
    assert len(sequence.frame_times) == 2
    assert [(float(v.camera.elevation[0]), float(v.camera.azimuth[0])) for v in sequence.unseen_views] == list(VIEWS)
    frames = shared_frames((sequence.input_view.frames,), 128).float()
    assert torch.equal(frames[0], frames[1])
    # Opposite level cameras see mirrored silhouettes of a box.
    left, right = (views[1 + VIEWS.index((0.0, azimuth)), 3] > 0.5 for azimuth in (90.0, 270.0))
    assert left.sum() > 500
    assert (left != right.flip(1)).float().mean() < 0.01


@pytest.mark.slow
def test_variants_are_trained_and_judged(
    library: MeshLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_to_3d, "load_meshes", lambda *_: library)
    monkeypatch.setattr(image_to_3d, "VIEWS", VIEWS[:2])
    monkeypatch.setattr(image_to_3d, "SIZE", 32)
    options = Options(
        tmp_path / "a.json", Path("library.xz"), 1, variants=("image", "4d"), overrides=(FEW,), device="cpu"
    )
    image_to_3d.main(options)
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert (first["label"], second["label"]) == ("image", "4d")
    for name in ("psnr", "ssim", "iou", "input_psnr", "train_seconds"):
        assert np.isfinite(first["scores"][name])
        assert np.isfinite(second["scores"][name])
    assert len(list(tmp_path.glob("a_*.png"))) == 1
    assert "silhouette IoU" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists; name a new file"):
        image_to_3d.main(options)
    with pytest.raises(InputError, match="there is no such variant"):
        image_to_3d.main(dataclasses.replace(options, out=tmp_path / "b.json", variants=("5d",)))
    assert REPEATS > 1
