"""`consistent4d finetune` on a small run: what becomes sharper, what stays, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from PIL import Image

from consistent4d_ns.cli.demo import train
from consistent4d_ns.cli.finetune import finetune
from consistent4d_ns.errors import InputError
from consistent4d_ns.finetuning import (
    REFERENCE_RAYS,
    RGB_FACTOR,
    SDS_FACTOR,
    FinetuneOptions,
    finetune_config,
    measured,
)
from consistent4d_ns.loss_weights import LossWeights
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.runs import load_run, read_config
from consistent4d_ns.schedules import Anneal
from consistent4d_ns.toy import write_sequence
from consistent4d_ns.trainer_config import ConfigDumper
from tests.support.stored_run import FOLDER as STORED
from tests.support.tiny import FRAMES, SIZE, tiny_config, toy_folder

pytestmark = pytest.mark.slow

STEPS = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of a few steps, whose held views are few and small."""
    parent = tmp_path_factory.mktemp("runs")
    config = tiny_config(toy_folder(parent))
    config.max_num_iterations, config.output_dir, config.vis = STEPS, parent / "out", "tensorboard"
    hold = config.pipeline.targets.hold
    hold.views, hold.image_size, hold.rays = 12, 16, 256
    config.pipeline.datamanager.plan.reference_rays = 1024
    config.pipeline.model.loss_weights = LossWeights(orientation=Anneal(0.0), normal_smoothness_3d=0.0)  # no normals
    config.set_timestamp()
    with mock.patch.object(TrainingReport, "draw_losses"):
        train(config)
    return config.get_base_dir()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finetuned(run: Path, **named: Any) -> Path:
    """The new run's folder; the old one is checked to be what it was."""
    before, siblings = contents(run), set(run.parent.iterdir())
    with mock.patch.object(TrainingReport, "draw_losses"):
        finetune(run, **named)
    assert contents(run) == before
    if "out" in named:
        (config,) = named["out"].rglob("config.yml")
        return config.parent
    (made,) = set(run.parent.iterdir()) - siblings
    return made


def refusal(run: Path, **named: Any) -> str:
    """The message; nothing is written beside the run."""
    before = sorted(run.parents[3].rglob("*"))
    with pytest.raises(InputError) as raised:
        finetune(run, **named)
    assert "\n" not in str(raised.value)
    assert sorted(run.parents[3].rglob("*")) == before
    return str(raised.value)


def test_the_input_view_is_sharper_and_other_views_stay(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    steps = 80
    made = finetuned(run, steps=steps, out=tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("input-", "novel-", "new run"))]
    assert [line.split(" (dB)")[0].split("  ")[0] for line in lines[:4]] == [
        "input-view PSNR",
        "novel-view PSNR",
        "novel-view SSIM",
        "novel-view silhouette IoU",
    ]
    assert lines[4] == f"new run: {made}"
    shown = {line[:25].strip(): [float(word) for word in line[25:].split()] for line in lines[:4]}
    before, after = shown["input-view PSNR (dB)"]
    assert after > before + 0.5
    before, after = shown["novel-view PSNR (dB)"]
    assert after > before - 0.5
    opened = load_run(made)
    assert opened.step == STEPS + steps - 1
    for name, value in measured(opened.pipeline).items():  # What was printed is what the saved run shows.
        assert value == pytest.approx(shown[name][1], abs=0.011)


def test_frames_of_a_higher_resolution(run: Path, tmp_path: Path):
    """They are fitted at their size, with the camera of the run, whatever their own meta.json says."""
    write_sequence(tmp_path / "large", size=2 * SIZE, frames=FRAMES)
    made = finetuned(run, steps=2, data=tmp_path / "large", image_size=2 * SIZE, out=tmp_path / "out")
    config = read_config(made)
    assert config.frames_path == tmp_path / "large"
    data = load_run(made).pipeline.datamanager
    assert data.frames.shape[-1] == 2 * SIZE
    assert data.config.plan.reference_size(STEPS) == 2 * SIZE
    assert data.input_view.fovy.item() == pytest.approx(49.1)
    assert len(data.dataparser.unseen_views) > 0


def test_beside_the_run_by_default_also_twice(run: Path):
    first, second = finetuned(run, steps=1), finetuned(run, steps=1)
    assert first.parent == second.parent == run.parent
    shutil.rmtree(first)
    third = finetuned(second, steps=2)  # A new run is a run.
    assert load_run(third).step == STEPS + 2
    for folder in (second, third):
        shutil.rmtree(folder)


def test_reweighting_distils_on(run: Path, tmp_path: Path):
    assert "trained without one" in refusal(run, method="reweight")
    copy = tmp_path / "with prior"
    shutil.copytree(run, copy)
    config = yaml.load((run / "config.yml").read_text(), yaml.Loader)
    config.pipeline.guidance.kind = "zero123"
    (copy / "config.yml").write_text(yaml.dump(config, Dumper=ConfigDumper))
    weights = finetune_config(copy, FinetuneOptions("reweight"))
    assert weights.pipeline.guidance.kind == "zero123"
    assert weights.pipeline.targets.hold.steps == 0
    known = config.pipeline.model.loss_weights
    assert weights.pipeline.model.loss_weights.sds == tuple(SDS_FACTOR * value for value in known.sds)
    assert weights.pipeline.model.loss_weights.rgb == tuple(RGB_FACTOR * value for value in known.rgb)


def test_a_run_of_an_earlier_version(tmp_path: Path):
    shutil.copytree(STORED, tmp_path / "run")
    config = finetune_config(tmp_path / "run", FinetuneOptions(steps=5))
    assert config.max_num_iterations == config.pipeline.targets.hold.begin_step + 5
    assert config.pipeline.targets.hold.rgb_factor == 4.0
    assert config.output_dir == tmp_path
    assert config.pipeline.datamanager.plan.reference_rays == REFERENCE_RAYS  # It was trained on whole frames.


def test_runs_that_cannot_be_used(run: Path, tmp_path: Path):
    assert "does not exist" in refusal(run / "nothing")
    copy = run.parents[3] / "copy" / "a" / "b" / "c"
    shutil.copytree(run, copy)
    (checkpoint,) = (copy / "nerfstudio_models").glob("*.ckpt")
    config = yaml.load((run / "config.yml").read_text(), yaml.Loader)
    changed = dataclasses.replace(config, max_num_iterations=STEPS + 1, output_dir=Path("/nowhere"))
    (copy / "config.yml").write_text(yaml.dump(changed, Dumper=ConfigDumper))
    assert f"is not finished: its newest checkpoint is that of step {STEPS - 1} of {STEPS + 1}" in refusal(copy)
    assert finetune_config(copy, FinetuneOptions(), step=STEPS - 1).load_checkpoint == checkpoint
    assert "no checkpoint of step 7" in refusal(copy, step=7)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert "damaged" in refusal(copy)
    checkpoint.unlink()
    assert "holds no checkpoint" in refusal(copy)
    shutil.rmtree(run.parents[3] / "copy")


def test_a_configuration_does_not_lead_out_of_the_new_folder(run: Path, tmp_path: Path):
    """Names and folders in it are those of whoever wrote it."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = yaml.load((run / "config.yml").read_text(), yaml.Loader)
    models = tmp_path / "others"
    shutil.copytree(run / "nerfstudio_models", models)
    changed = dataclasses.replace(config, relative_model_dir=models, load_dir=tmp_path)
    (copy / "config.yml").write_text(yaml.dump(changed, Dumper=ConfigDumper))
    found = finetune_config(copy, FinetuneOptions(), out=tmp_path / "out")
    assert found.get_checkpoint_dir().is_relative_to(tmp_path / "out")
    assert found.load_dir is None
    changed = dataclasses.replace(config, experiment_name="../../elsewhere")
    (copy / "config.yml").write_text(yaml.dump(changed, Dumper=ConfigDumper))
    with pytest.raises(InputError, match="no name of a folder"):
        finetune_config(copy, FinetuneOptions(), out=tmp_path / "out")


def test_frames_and_options_that_cannot_be_used(run: Path, tmp_path: Path):
    write_sequence(tmp_path / "short", size=16, frames=FRAMES - 1)
    assert f"holds {FRAMES - 1} frames, but the run was trained on {FRAMES}" in refusal(run, data=tmp_path / "short")
    uneven = tmp_path / "uneven"
    uneven.mkdir()
    for index in range(FRAMES):
        Image.new("RGBA", (16, 16), (9, 9, 9, 99)).save(uneven / f"frame_{(0.1 * index) ** 2 + index:.3f}s.png")
    assert "frame 1 is at" in refusal(run, data=uneven)
    assert "does not exist" in refusal(run, data=tmp_path / "nothing")
    write_sequence(tmp_path / "small", size=16, frames=FRAMES)
    assert "are 16 pixels large" in refusal(run, data=tmp_path / "small")
    assert f"are {SIZE} pixels large" in refusal(run, image_size=2 * SIZE)
    for size in (0, 15, 4097):
        assert "give 16 to 4096 pixels" in refusal(run, image_size=size)
    assert "--steps is 0: give at least 1" in refusal(run, steps=0)
    assert "inside of the run" in refusal(run, out=run / "more")
