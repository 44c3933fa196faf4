"""An object from a prompt: a whole training with a reduced random prior, and every command on its run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from PIL import Image

from consistent4d_ns.cli.commands import app
from consistent4d_ns.cli.demo import train
from consistent4d_ns.cli.finetune import finetune
from consistent4d_ns.cli.render import render
from consistent4d_ns.comparing.looking import read_runs
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.random_text_prior import write_random_text_prior
from consistent4d_ns.media.path_options import PathOptions
from consistent4d_ns.method_configs import consistent4d_mini, consistent4d_text, preset
from consistent4d_ns.record.history import read_history
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.runs import Run, load_run
from consistent4d_ns.soundness import FIRST_LOOK, Soundness
from consistent4d_ns.steering import Steering
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig, name_of_prompt
from consistent4d_ns.viewer.controls import Controls
from consistent4d_ns.viewer.scene import Scene
from tests.cli.test_commands import Workplace
from tests.export.test_gltf import document
from tests.support.tiny import tiny_config, toy_folder

PROMPT = "A wind-up cat, made of tin!"
NAME = "a-wind-up-cat-made-of-tin"
SIZE = 32


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior") / "sd"
    write_random_text_prior(folder, "small", seed=0, dtype=torch.float32)
    return folder


def text_config(prior: Path, out: Path) -> Consistent4DTrainerConfig:
    """The preset, with a small field and a small prior, and without a network of interpolation."""
    config = tiny_config(Path(), consistent4d_text)
    config.data = config.pipeline.datamanager.data = None
    config.pipeline.guidance = preset(consistent4d_text).pipeline.guidance
    config.pipeline.guidance.prior = str(prior)
    config.prompt, config.output_dir, config.vis, config.max_num_iterations = PROMPT, out, "tensorboard", 6
    config.steps_per_eval_image = 4
    return config


@pytest.fixture(scope="module")
def folder(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run."""
    config = text_config(prior, tmp_path_factory.mktemp("text"))
    config.set_timestamp()
    with mock.patch.object(TrainingReport, "draw_losses"):
        train(config)
    return config.get_base_dir()


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def refusal(command: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(InputError) as raised:
        command(*args, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_preset_has_neither_frames_nor_an_input_view() -> None:
    config = preset(consistent4d_text)
    assert config.pipeline.model.is_static
    assert not config.has_frames
    assert config.frames_path is None
    plan = config.pipeline.datamanager.plan
    assert not any(plan.fits_input(step) for step in range(10))
    assert plan.shares[StepKind.TIMES] == 0
    assert plan.shares[StepKind.AZIMUTHS] > 0
    assert config.pipeline.interpolation.kind == "rife"
    weights = config.pipeline.model.loss_weights
    assert weights.sparsity > 0
    assert weights.orientation(config.max_num_iterations) > 0


@pytest.mark.slow
def test_every_step_distils(folder: Path) -> None:
    """Its losses are those of distillation, opacity and orientation, and nothing compares with frames."""
    assert folder.parts[-3:-1] == (NAME, "consistent4d-text")
    terms = {name for row in read_history(folder / "losses.jsonl") for name in row if name != "step"}
    assert {"sds_0", "sds_1", "sparsity", "orientation"} <= terms
    assert not terms & {"rgb_0", "mask_0", "target_rgb_0"}
    with Image.open(folder / "contact_sheet.png") as sheet:  # One row, without a column for the input.
        assert 6 * SIZE < sheet.width < 7 * SIZE + 60


@pytest.mark.slow
def test_the_run_is_opened_without_its_prior(run: Run) -> None:
    data: Consistent4DDataManager = run.pipeline.datamanager
    assert run.source_name == PROMPT
    assert run.pipeline.guidance is None
    assert not data.has_frames
    assert data.num_frames == 1
    assert data.frames.shape == (0, 4, SIZE, SIZE)
    assert len(data.eval_dataset.cameras) == 8
    assert float(data.input_view.elevation) == 15.0
    assert "has no frames, which an evaluation needs" in refusal(run.pipeline.get_average_eval_image_metrics)
    assert "has no frames, which the evaluation loss needs" in refusal(run.pipeline.get_eval_loss_dict, 0)
    metrics, images = run.pipeline.get_eval_image_metrics_and_images(0)
    assert set(images) == {"novel_views"}
    assert metrics["num_rays"] > 0
    run.pipeline.eval()


@pytest.mark.slow
def test_the_viewer_says_that_nothing_was_filmed(run: Run) -> None:
    scene, controls = Scene(run.pipeline), Controls(run.pipeline)
    assert scene.go.name == "Front view"
    assert scene.frame.disabled
    scene.show_frame(0)
    for element in (controls.factors["rgb"], controls.factors["mask"], controls.pause):
        assert element.disabled


@pytest.mark.slow
def test_renderings(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = PathOptions(size=16, frames=3)
    render(folder, tmp_path / "orbit", options=few)
    assert "rgb, depth of step 5." in capsys.readouterr().out
    first, *_ = sorted((tmp_path / "orbit").glob("*.png"))
    with Image.open(first) as picture:
        assert picture.size == (32, 16)
    message = refusal(render, folder, tmp_path / "a.mp4", options=few, outputs=("input", "rgb"))
    assert message == "the run was trained from a prompt and has no frames, which --outputs input needs."
    assert "leave out --data" in refusal(render, folder, tmp_path / "a.mp4", options=few, data=tmp_path)


@pytest.mark.slow
def test_exports(folder: Path, tmp_path: Path) -> None:
    few = ("--resolution", "24", "--faces", "200", "--texture-size", "64")
    app.cli(args=["export", "mesh", str(folder), str(tmp_path / "a.glb"), *few])
    assert len(document((tmp_path / "a.glb").read_bytes())["meshes"]) == 1
    app.cli(args=["export", "web", str(folder), str(tmp_path / "a.html"), *few])
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<figure id="input" hidden>' in page
    assert "made from a prompt" in page
    assert "filmed" not in page
    assert json.loads(page.partition('id="setting">')[2].partition("<")[0])["pictures"] == []


@pytest.mark.slow
def test_what_needs_frames_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "has no frames whose view could be sharpened" in refusal(finetune, folder, out=tmp_path)
    assert f"look at it with `consistent4d view {folder}`" in refusal(read_runs, [folder])
    config = load_run(folder).config
    with (
        mock.patch.object(Consistent4DDataManager, "setup_train"),  # as `ns-render dataset` does
        mock.patch.object(Consistent4DDataManager, "setup_eval"),
    ):
        message = refusal(config.pipeline.datamanager.setup, device="cpu", test_mode="test")
    assert "has no frames, which `ns-render dataset` needs" in message


@pytest.mark.slow
def test_training_is_resumed(folder: Path, prior: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = text_config(prior, folder.parents[2])
    config.resume, config.max_num_iterations = True, 8
    config.set_timestamp()
    assert config.get_base_dir() == folder
    with mock.patch.object(TrainingReport, "draw_losses"):
        train(config)
    assert "steps 6 to 7 are left" in " ".join(capsys.readouterr().out.split())


def test_another_prompt_is_no_run_to_go_on_with(folder: Path, prior: Path) -> None:
    """Though its folder has the same name."""
    config = text_config(prior, folder.parents[2])
    config.prompt, config.resume, config.max_num_iterations = PROMPT.upper() + "!", True, 9
    config.set_timestamp()
    assert config.get_base_dir().parent == folder.parent
    assert config.get_base_dir() != folder
    assert config.load_checkpoint is None
    named = text_config(prior, folder.parents[2])
    named.prompt, named.resume, named.timestamp = PROMPT.upper() + "!", True, folder.name
    assert "holds no run from this prompt" in refusal(named.set_timestamp)


def test_what_cannot_be_trained(prior: Path, tmp_path: Path) -> None:
    for change, said in {
        "prompt": "makes an object from a prompt: give --prompt",
        "data": "reads a prompt, no frames: leave out --data",
        "pipeline.guidance.kind": "learns from its prior alone",
        "pipeline.datamanager.plan.reference_every": "has no input view to fit",
        "steps_per_eval_batch": "compares with frames, and consistent4d-text has none",
        "pipeline.guidance.rescale": "guidance.rescale is 5",
    }.items():
        config = text_config(prior, tmp_path)
        *path, name = change.split(".")
        owner: Any = config
        for part in path:
            owner = getattr(owner, part)
        values: dict[str, Any] = {"prompt": "  ", "data": tmp_path, "kind": "none"}
        setattr(owner, name, values.get(name, 5))
        assert said in refusal(config.set_timestamp), change
    assert not list(tmp_path.iterdir())


def test_frames_go_with_no_prompt(tmp_path: Path) -> None:
    config = tiny_config(toy_folder(tmp_path), consistent4d_mini)
    config.prompt = PROMPT
    assert "reads frames, no prompt: leave out --prompt, or train consistent4d-text" in refusal(config.prepare)


def test_names_of_prompts() -> None:
    assert name_of_prompt(PROMPT) == NAME
    assert name_of_prompt("../../etc") == "etc"
    assert name_of_prompt("!?") == "prompt"
    assert name_of_prompt("eine Katze aus Blech, äußerst schön") == "eine-katze-aus-blech-äußerst-schön"
    assert len(name_of_prompt("word " * 100)) <= 50


def test_pausing_cannot_stop_distillation(prior: Path, tmp_path: Path) -> None:
    """There is nothing else to fit."""
    config = text_config(prior, tmp_path)
    config.pipeline.guidance.kind = "none"
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    pipeline.steering = Steering(pause_distillation=True)
    assert all(pipeline.plan(step).kind.is_distilled for step in range(20))


@pytest.mark.parametrize(("opacity", "words"), [(0.001, ["vanished"]), (0.97, ["fog"]), (0.2, [])])
def test_an_object_that_vanishes_or_becomes_fog_is_noticed(opacity: float, words: list[str]) -> None:
    soundness = Soundness("cpu", None)
    for _ in range(300):
        soundness.after_step(StepKind.INDEPENDENT, torch.tensor(0.0), torch.tensor(opacity))
    figures = soundness.look(FIRST_LOOK)
    assert figures is not None
    said = soundness.warnings(FIRST_LOOK, figures)
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


@pytest.mark.slow
def test_the_command(prior: Path, tmp_path: Path) -> None:
    """`ns-train consistent4d-text --prompt ...` without `--data`, and what it refuses: one line each."""
    quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    place = Workplace(tmp_path, os.environ | quiet)
    options = (
        *("--vis", "tensorboard", "--max-num-iterations", "2", "--pipeline.interpolation.kind", "none"),
        *("--pipeline.datamanager.dataparser.image-size", "16", "--pipeline.model.samples-per-ray", "16"),
        *("--pipeline.datamanager.plan.image-sizes", "16", "16", "--prompt", PROMPT, "--pipeline.guidance.prior"),
    )
    shutil.copytree(prior, tmp_path / "sd")
    assert place.try_run("ns-train", "consistent4d-text", *options, "sd").returncode == 0
    (checkpoint,) = (tmp_path / "outputs" / NAME / "consistent4d-text").rglob("step-*.ckpt")
    assert checkpoint.name == "step-000000001.ckpt"
    (tmp_path / "empty").mkdir()
    result = place.try_run("ns-train", "consistent4d-text", *options, "empty")
    assert result.returncode == 2
    assert f"error: {tmp_path / 'empty'}: not a complete prior" in result.stderr.rstrip().splitlines()[-1]
    assert "Traceback" not in result.stderr + result.stdout
