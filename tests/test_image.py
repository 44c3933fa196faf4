"""One image to a static object: a whole training on one PNG file, and every command on the run that it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from consistent4d_ns.cli.commands import app
from consistent4d_ns.cli.demo import train
from consistent4d_ns.cli.eval import Options as EvaluationOptions
from consistent4d_ns.cli.eval import evaluate
from consistent4d_ns.cli.finetune import finetune
from consistent4d_ns.cli.render import render
from consistent4d_ns.data.cameras import DEFAULT_CAMERA, orbit_camera
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.images import on_white
from consistent4d_ns.media.path_options import PathOptions
from consistent4d_ns.media.pictures import render_colour
from consistent4d_ns.method_configs import consistent4d_image, consistent4d_image_mini, consistent4d_mini, preset
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.runs import Run, load_run
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig
from consistent4d_ns.viewer.panel import Panel
from tests.export.test_gltf import document
from tests.support.tiny import FRAMES, SIZE, tiny_config, toy_folder

IMAGES = (consistent4d_image, consistent4d_image_mini)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with ground truth."""
    return toy_folder(tmp_path_factory.mktemp("toy"))


def image_config(data: Path, out: Path) -> Consistent4DTrainerConfig:
    """A small consistent4d-image-mini that goes through all stages of target views, without a prior."""
    config = tiny_config(data, consistent4d_image_mini)
    config.output_dir, config.vis, config.max_num_iterations = out, "tensorboard", 12
    hold = config.pipeline.targets.hold
    hold.steps, hold.begin_step, hold.views, hold.image_size, hold.rays = 6, 6, 8, 16, 256
    config.set_timestamp()
    return config


def frames_of(config: Consistent4DTrainerConfig) -> FrameSequenceDataParserConfig:
    parser = config.pipeline.datamanager.dataparser
    assert isinstance(parser, FrameSequenceDataParserConfig)
    return parser


def trained(config: Consistent4DTrainerConfig) -> Path:
    with mock.patch.object(TrainingReport, "draw_losses"):
        train(config)
    return config.get_base_dir()


@pytest.fixture(scope="module")
def folder(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on one PNG file, with images imagined by the bundled prior and score distillation from it."""
    picture = tmp_path_factory.mktemp("pictures") / "cat.png"
    picture.write_bytes((toy / "input" / "0.png").read_bytes())
    config = image_config(picture, tmp_path_factory.mktemp("image"))
    assert config.get_base_dir().parts[-3:-1] == ("cat", "consistent4d-image-mini")
    original = preset(consistent4d_image_mini).pipeline
    config.pipeline.guidance = original.guidance
    imagine = config.pipeline.targets.imagine
    imagine.steps, imagine.strengths, imagine.views, imagine.sampling_steps = 3, (1.0,), 4, 2
    imagine.image_size, imagine.rays = 16, 256
    return trained(config)


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def refusal(command: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(InputError) as raised:
        command(*args, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("method", IMAGES, ids=lambda one: one.config.method_name)
def test_presets_have_no_grids_over_time(method: Any, toy: Path) -> None:
    config = preset(method)
    assert config.pipeline.model.is_static
    assert frames_of(config).frame_count == 1
    plan = config.pipeline.datamanager.plan
    assert plan.shares[StepKind.TIMES] == 0
    assert plan.shares[StepKind.AZIMUTHS] > 0
    config.pipeline.datamanager.data = toy
    config.pipeline.guidance.kind = config.pipeline.interpolation.kind = "none"
    field = config.pipeline.setup(device="cpu", test_mode="val").model.field
    sizes = [x * y + x * z + y * z for x, y, z, _ in config.pipeline.model.grid_resolutions]
    (channels,), hidden = config.pipeline.model.channels, config.pipeline.model.hidden_width
    heads = len(sizes) * (2 * channels * hidden + 4 * hidden)
    assert sum(parameter.numel() for parameter in field.parameters()) == channels * sum(sizes) + heads
    planes = [name for name in field.state_dict() if ".planes." in name]
    assert planes == [f"levels.{level}.planes.{plane}" for level in range(len(sizes)) for plane in range(3)]


@pytest.mark.slow
def test_a_run_shows_the_same_at_all_times(run: Run, folder: Path) -> None:
    """Also the checkpoint has no grids over time, and a camera without a time is no error."""
    assert run.source_name == "cat"  # The heading of its page.
    (checkpoint,) = folder.rglob("step-*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["pipeline"]
    assert not [name for name in state if name.endswith(("planes.3", "planes.4", "planes.5"))]
    model = run.pipeline.model
    assert model.field.is_static
    view = orbit_camera("the camera", {**DEFAULT_CAMERA, "azimuth": 40.0})
    first, *others = (render_colour(model, view, time, 16) for time in (0.0, 0.31, 1.0))
    assert first.min() < 0.9  # It shows something.
    assert all(torch.equal(first, other) for other in others)
    camera = run.pipeline.datamanager.eval_dataset.cameras[0:1]
    timed = model.get_outputs_for_camera(camera)["rgb"]
    camera.times = None
    assert torch.equal(model.get_outputs_for_camera(camera)["rgb"], timed)


@pytest.mark.slow
def test_the_contact_sheet_has_one_row(folder: Path) -> None:
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.height < 2 * SIZE
        assert sheet.width > 7 * SIZE


@pytest.mark.slow
def test_the_viewer_has_neither_time_nor_player(run: Run) -> None:
    """And the folder of the scene shows the only frame."""
    import viser
    from nerfstudio.viewer.control_panel import ControlPanel

    assert run.pipeline.datamanager.includes_time is False  # Nerfstudio hides its slider.
    panel = Panel(run.pipeline, training=False)
    panel._build()
    assert panel.playback is None
    assert panel._current_frame() == 0
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        control = ControlPanel(server, False, 1.0, lambda: None, lambda _: None, lambda _: None)
        viewer: Any = SimpleNamespace(
            viser_server=server, control_panel=control, stats_markdown=SimpleNamespace(order=1)
        )
        panel._install(viewer)
        assert control._time.gui_handle is not None
        assert not control._time.gui_handle.visible
    finally:
        server.stop()


@pytest.mark.slow
def test_renderings_are_orbits(folder: Path, tmp_path: Path) -> None:
    small = PathOptions(size=16)
    render(folder, tmp_path / "orbit", options=small, outputs=("input", "rgb"))
    frames = sorted((tmp_path / "orbit").glob("*.png"))
    assert len(frames) == 64
    pictures = [np.asarray(Image.open(frame)).astype(int) for frame in (frames[0], frames[32])]
    assert np.array_equal(pictures[0][:, :16], pictures[1][:, :16])  # the input
    assert not np.array_equal(pictures[0][:, 16:], pictures[1][:, 16:])
    render(folder, tmp_path / "still", options=small, outputs=("rgb",), path="fixed-view")
    assert len(list((tmp_path / "still").glob("*.png"))) == 1
    message = refusal(render, folder, tmp_path / "a.mp4", options=PathOptions(times=(0.5,)), path="orbit")
    assert message == "the run was trained on a single frame, whose time is 0: leave out --times."


@pytest.mark.slow
def test_exports_are_static(folder: Path, tmp_path: Path) -> None:
    few = ("--resolution", "32", "--faces", "300", "--texture-size", "64")
    app.cli(args=["export", "mesh", str(folder), str(tmp_path / "a.glb"), *few])
    content = document((tmp_path / "a.glb").read_bytes())
    assert "animations" not in content
    assert len(content["meshes"]) == 1
    app.cli(args=["export", "mesh", str(folder), str(tmp_path / "obj"), "--format", "obj", *few])
    (mesh,) = (tmp_path / "obj").glob("*.obj")
    assert len(trimesh.load(mesh, force="mesh").faces) > 100  # type: ignore[attr-defined]
    app.cli(args=["export", "points", str(folder), str(tmp_path / "points"), "--count", "60", "--resolution", "32"])
    assert len(list((tmp_path / "points").glob("*.ply"))) == 1
    assert len(json.loads((tmp_path / "points" / "sequence.json").read_text())["times"]) == 1


@pytest.mark.slow
def test_splats_and_page_of_one_frame(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app.cli(args=["export", "splats", str(folder), str(tmp_path / "splats"), "--cells", "16", "--fit-steps", "0"])
    assert len(list((tmp_path / "splats").glob("*.ply"))) == 1
    assert f"{tmp_path / 'splats'}: 1 frame.\n" in capsys.readouterr().out
    few = ("--resolution", "32", "--faces", "300", "--texture-size", "64")
    app.cli(args=["export", "web", str(folder), str(tmp_path / "page.html"), *few])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"frames": 1,' in page
    assert 'max="0"' in page


@pytest.mark.slow
def test_usd_of_one_frame(folder: Path, tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="needs the extra usd")
    app.cli(args=["export", "usd", str(folder), str(tmp_path / "a.usdc"), "--resolution", "32", "--faces", "300"])
    stage = usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert stage.GetStartTimeCode() == stage.GetEndTimeCode() == 0


@pytest.mark.slow
def test_it_is_evaluated_compared_and_finetuned(folder: Path, toy: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth" / "toy"
    for view in ("eval_0", "eval_1"):
        (truth / view).mkdir(parents=True)
        picture = on_white(np.asarray(Image.open(toy / view / "0.png")))
        Image.fromarray(picture).save(truth / view / "0.png")
    (truth / "meta.json").write_bytes((toy / "meta.json").read_bytes())
    figures = EvaluationOptions(
        truth.parent, run=(folder,), objects=("toy",), metrics=("psnr",), out=tmp_path / "figures"
    )
    evaluate(figures)
    (row,) = (
        row
        for row in json.loads((tmp_path / "figures" / "metrics.json").read_text())["values"]
        if (row["object"], row["view"], row["protocol"]) == ("toy", "eval_1", "correct")
    )
    assert 5 < row["psnr"] < 40
    with mock.patch.object(TrainingReport, "draw_losses"):
        finetune(folder, steps=2, out=tmp_path / "finetuned")
    (made,) = (tmp_path / "finetuned").rglob("config.yml")
    assert load_run(made).pipeline.model.field.is_static
    page = tmp_path / "page.html"
    app.cli(args=["compare", str(folder), str(made), "--out", str(page), "--size", "16", "--seconds", "0.2"])
    assert page.stat().st_size > 10_000


@pytest.mark.slow
def test_a_frame_of_a_video(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the same as that frame alone, and unseen views come from the same moment."""
    config = image_config(toy, tmp_path)
    frames_of(config).frame_start = 4
    config.max_num_iterations, config.pipeline.targets.hold.steps = 2, 0
    folder = trained(config)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"holds {FRAMES} frames, of which consistent4d-image-mini takes one, number 4: " in said
    data = load_run(folder).pipeline.datamanager
    alone = image_config(toy / "input" / "4.png", tmp_path).sequence().input_view.frames
    assert alone.source == toy / "input" / "4.png"
    assert data.num_frames == 1
    assert {path.name for path in data.eval_dataset.image_filenames} == {"4.png"}


def test_what_cannot_be_one_image(toy: Path, tmp_path: Path) -> None:
    config = image_config(toy, tmp_path)
    frames_of(config).frame_count = 2
    assert "shows an object that does not move, of one frame, but" in refusal(config.prepare)
    config = image_config(toy, tmp_path)
    frames_of(config).frame_start = FRAMES
    assert f"frame-start is {FRAMES}, but" in refusal(config.save_config)
    assert not list(tmp_path.iterdir())  # Not even a folder.
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.jpg")
    message = refusal(image_config(tmp_path / "photo.jpg", tmp_path).save_config)
    assert f"cut the object out with `consistent4d prepare {tmp_path / 'photo.jpg'} OUT`" in message
    model = preset(consistent4d_image_mini).pipeline.model
    model.grid_resolutions = ((8, 8, 8, -1),)
    assert "give 0 or more along t" in refusal(model.check)
    model.grid_resolutions = ((8, 0, 8, 0),)
    assert "give at least 1" in refusal(model.check)


def test_one_frame_in_the_preset_for_videos(toy: Path) -> None:
    """It trains as before: with grids over time, of which the only time is 0."""
    config = tiny_config(toy / "input" / "0.png", consistent4d_mini)
    pipeline: Consistent4DPipeline = config.pipeline.setup(device="cpu", test_mode="val")
    assert len(pipeline.model.field.levels[0].planes) == 6  # type: ignore[arg-type]
    assert not pipeline.datamanager.includes_time
    pipeline.model.update_occupancy(0)
    _, losses, _ = pipeline.get_train_loss_dict(0)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert {float(pipeline.datamanager.plan(step).times.max()) for step in range(40)} == {0.0}
