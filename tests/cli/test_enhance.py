"""`consistent4d enhance` on a small run and a small diffusion model, and `consistent4d render --enhance`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistent4d_ns.cli.enhance import enhance
from consistent4d_ns.cli.export import RunOptions
from consistent4d_ns.cli.render import render
from consistent4d_ns.enhancing import training
from consistent4d_ns.enhancing.clips import render_clips
from consistent4d_ns.enhancing.enhancer import enhanced_clip, load_enhancer
from consistent4d_ns.enhancing.options import ClipOptions, PseudoTruthOptions, TrainingOptions
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.camera_paths import PathOptions
from consistent4d_ns.media.encoding import on_white
from consistent4d_ns.runs import load_run
from tests.enhancing.models import second_stage
from tests.support.commands import run_command
from tests.support.tiny import FRAMES, tiny_run

pytestmark = pytest.mark.slow

SIZE = 32


@dataclass(frozen=True)
class Place:
    """A run, a diffusion model, and the enhancer that the command made of them."""

    run: Path
    model: Path
    enhancer: Path


def train(place: Path, out: Path, model: Path, **options: Any) -> None:
    """The command with few steps."""
    enhance(
        place,
        out,
        PseudoTruthOptions(str(model), "a cat", diffusion_steps=6),
        TrainingOptions(SIZE, 2),
        ClipOptions(2),
        **options,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("enhancing")
    made = Place(tiny_run(folder, 60), second_stage(folder / "model"), folder / "enhancer")
    train(made.run, made.enhancer, made.model)
    return made


def frames_of(run: Path, out: Path, **options: Any) -> list[np.ndarray]:
    render(run, out, **options)
    return [np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))]


def test_what_is_written(place: Place):
    names = {"enhancer.json", "enhancer.safetensors", "before_and_after.png", "manifest.json"}
    assert {file.name for file in place.enhancer.iterdir()} == names
    about = json.loads((place.enhancer / "enhancer.json").read_text())
    assert (about["size"], about["prompt"], about["clips"], about["step"]) == (SIZE, "a cat", 2, 59)
    with Image.open(place.enhancer / "before_and_after.png") as sheet:
        assert sheet.width > 6 * SIZE
        assert sheet.height > 3 * SIZE


def test_clips_are_orbits_from_evenly_spaced_sides(place: Place):
    pipeline = load_run(place.run).pipeline
    clips = render_clips(pipeline.model, pipeline.datamanager, 2, SIZE)
    assert clips.shape == (2, FRAMES, 3, SIZE, SIZE)
    # Half an orbit on, the first clip passes where the second began; time has passed meanwhile.
    assert not torch.equal(clips[0, 0], clips[1, 0])


def test_rendered_videos_are_enhanced(place: Place, tmp_path: Path):
    """rgb from both sides is what the network makes of the plain video; the input stays as it is."""
    options: dict[str, Any] = {"outputs": ("input", "rgb", "rgb@90"), "options": PathOptions(frames=20)}
    after = frames_of(place.run, tmp_path / "after", **options, enhance=place.enhancer)
    options["options"] = PathOptions(frames=20, size=SIZE)
    before = frames_of(place.run, tmp_path / "before", **options)
    assert [frame.shape for frame in after] == [(SIZE, 3 * SIZE, 4)] * 20
    enhancer = load_enhancer(place.enhancer, "cpu")
    for column in range(3):
        tiles = slice(column * SIZE, (column + 1) * SIZE)
        shown, plain = (on_white(np.stack(frames)[:, :, tiles]) for frames in (after, before))
        if column == 0:
            assert (shown == plain).all()
            continue
        made = torch.stack(list(enhanced_clip(torch.from_numpy(plain).movedim(-1, 1), enhancer))).movedim(1, -1)
        assert np.abs(shown / 255.0 - made.numpy()).max() < 5 / 255
        assert np.abs(shown.astype(int) - plain).mean() > 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": ("input", "depth")}, "--enhance changes rgb, which --outputs lacks"),
        ({"options": PathOptions(size=4096), "outputs": ("rgb",)}, "at most 2048 pixels, not 4096 x 4096"),
        ({"enhance": Path("nowhere")}, "nowhere holds no enhancer.json"),
    ],
)
def test_render_refuses_before_it_loads_the_run(place: Place, tmp_path: Path, options: dict[str, Any], words: str):
    """The file given as the run's would be refused as soon as it is read."""
    (tmp_path / "config.yml").write_text("nothing")
    with pytest.raises(InputError, match=words):
        render(tmp_path, tmp_path / "a.mp4", **({"options": PathOptions(), "enhance": place.enhancer} | options))


def test_another_size_and_format(place: Place, tmp_path: Path):
    options = PathOptions(frames=2, size=(50, 38))
    render(place.run, tmp_path / "a.gif", options=options, outputs=("rgb",), enhance=place.enhancer)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (50, 38)


def test_nothing_is_overwritten_unasked(place: Place, tmp_path: Path):
    with pytest.raises(InputError, match="is not empty: give another folder, or --overwrite"):
        train(place.run, place.enhancer, place.model)
    (tmp_path / "theirs").write_text("theirs")
    with pytest.raises(InputError, match="not an earlier output of `consistent4d enhance`"):
        train(place.run, tmp_path, place.model, overwrite=True)


def test_an_interruption_leaves_nothing(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C during training."""

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(place.run, tmp_path / "out", place.model)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_one_line_with_its_remedy(place: Place, tmp_path: Path):
    env = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = run_command("consistent4d", "enhance", str(place.run), "out", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "hf download DeepFloyd/IF-II-L-v1.0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_it_is_rendered(place: Place):
    pipeline = load_run(place.run).pipeline
    with pytest.raises(InputError, match=f"--clips 64 of {FRAMES} frames at --size 2048 are more than 4 GB of images"):
        render_clips(pipeline.model, pipeline.datamanager, 64, 2048)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(place: Place, tmp_path: Path):
    with pytest.raises(InputError, match="finds no CUDA device"):
        train(place.run, tmp_path / "out", place.model, run=RunOptions(device="cuda"))
