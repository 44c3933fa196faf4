"""The panel without a browser: what is there, what it says, and what its elements do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer_elements import ViewerElement

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.nerfstudio_internals import replace_render_threads
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.steering import Steering
from consistent4d_ns.targets.config import HoldConfig, TargetsConfig
from consistent4d_ns.targets.stages import TargetStages
from consistent4d_ns.viewer.controls import Controls
from consistent4d_ns.viewer.elements import Note
from consistent4d_ns.viewer.frames import Frames
from consistent4d_ns.viewer.playback import Playback
from consistent4d_ns.viewer.preview import Preview
from consistent4d_ns.viewer.progress import Progress, table
from consistent4d_ns.viewer.scene import Scene
from tests.support.tiny import tiny_pipeline, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def pipeline(data: Path) -> Consistent4DPipeline:
    return tiny_pipeline(data)


@pytest.fixture
def bare(data: Path) -> Consistent4DPipeline:
    """A pipeline that trains without any prior."""
    return tiny_pipeline(data, priors=False)


def elements(part: object) -> Iterator[Any]:
    for value in vars(part).values():
        for element in value.values() if isinstance(value, dict) else [value]:
            if isinstance(element, ViewerElement) and not isinstance(element, Note):
                yield element


def change(element: Any, value: object) -> None:
    """What a hand on the element does."""
    element.value = value
    element.cb_hook(element)


def test_every_element_has_a_hint(pipeline):
    parts = (
        Playback(FrameTimes.even(6, 16.0)),
        Scene(pipeline),
        Controls(pipeline),
        Progress(pipeline),
        Preview(pipeline),
    )
    found = [element for part in parts for element in elements(part)]
    assert len(found) > 20
    assert [element.name for element in found if not element.hint] == []


def test_controls_steer_the_pipeline(pipeline):
    controls = Controls(pipeline)
    change(controls.scale, 7.0)
    change(controls.factors["sds"], 2.0)
    change(controls.factors["rgb"], 0.5)
    change(controls.pause, True)
    assert pipeline.next_steering == Steering(7.0, rgb=0.5, sds=2.0, pause_distillation=True)
    controls.restore()
    assert pipeline.next_steering == Steering()
    assert controls.scale.value == pipeline.config.guidance.scale
    assert controls.factors["sds"].value == 1.0


def test_the_noise_range_is_fixed_only_while_asked_for(pipeline):
    controls = Controls(pipeline)
    change(controls.min_noise, 0.3)
    assert pipeline.next_steering.noise_range is None
    change(controls.fix_noise, True)
    assert pipeline.next_steering.noise_range == (0.3, 0.98)
    change(controls.max_noise, 0.2)
    assert pipeline.next_steering.noise_range == (0.2, 0.2)
    change(controls.min_noise, 0.9)
    assert pipeline.next_steering.noise_range == (0.9, 0.9)
    change(controls.fix_noise, False)
    assert pipeline.next_steering.noise_range is None


def test_what_would_do_nothing_is_disabled_and_says_why(bare):
    controls = Controls(bare)
    for element in (
        controls.scale,
        controls.factors["sds"],
        controls.fix_noise,
        controls.min_noise,
        controls.max_noise,
    ):
        assert element.disabled
        assert "--pipeline.guidance.kind" in str(element.hint)
    assert "--pipeline.interpolation.kind" in str(controls.factors["consistency"].hint)
    assert not controls.factors["rgb"].disabled
    assert Preview(bare).button.disabled
    assert "--pipeline.guidance.kind" in Preview(bare).result.text


def test_one_of_several_processes_is_not_steered(pipeline):
    pipeline.world_size = 2
    controls = Controls(pipeline)
    assert all(element.disabled for element in elements(controls))


def test_progress_shows_stage_noise_and_terms(pipeline, monkeypatch):
    progress = Progress(pipeline)
    pipeline.steer(noise_range=(0.25, 0.5), mask=2.0)
    pipeline.get_train_loss_dict(0)
    progress.show(0)
    assert progress.stage.value == "1 of 2: 16 pixels"
    assert progress.noise.value == "0.25 to 0.50 (fixed)"
    assert "| mask_1 |" in progress.terms.text
    assert "| 100 |" in progress.terms.text
    progress.show(150)
    assert progress.stage.value == "1 of 2: 16 pixels", "too soon for another update"
    monkeypatch.setattr("consistent4d_ns.viewer.progress.INTERVAL", 0.0)
    progress.show(150)
    assert progress.stage.value == "2 of 2: 32 pixels"
    config = TargetsConfig(hold=HoldConfig(steps=10, begin_step=145))
    monkeypatch.setattr(pipeline, "targets", TargetStages(config, GuidanceConfig(), pipeline.datamanager, 0))
    progress.show(150)
    assert progress.stage.value == "held views: 64 pixels"


def test_the_table_multiplies():
    assert table({"rgb_0": 0.02}, {"rgb_0": 500.0}).splitlines()[2] == "| rgb_0 | 0.02 | 500 | 10 |"


def test_previews_need_the_decoder(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline.config.guidance, "previews", False)
    preview = Preview(pipeline)
    assert preview.button.disabled
    assert "--pipeline.guidance.previews True" in preview.result.text


@pytest.mark.slow
def test_the_prior_is_asked_without_disturbing_training(pipeline):
    config = pipeline.config.guidance
    config.previews = True
    prior = Zero123Guidance(random_networks("small", "cpu", 0), config, "cpu")
    prior.prepare(pipeline.datamanager.reference_images())
    pipeline.guidance = prior
    preview = Preview(pipeline)
    assert not preview.button.disabled
    preview._lock = torch.no_grad()
    state = torch.get_rng_state()
    images = [preview.images(orbit_views(10.0, 40.0, 2.0, 49.1), 0.4) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    (rendered, sampled), (again, another) = images
    assert rendered.shape == sampled.shape == (64, 64, 3)
    assert (rendered == again).all()
    assert (sampled != another).any(), "each time another sample"
    assert pipeline.model.training


def test_a_failure_of_the_prior_is_shown(pipeline, monkeypatch):
    preview = Preview(pipeline)
    monkeypatch.setattr(preview.button, "set_disabled", lambda *_: None)
    client: Any = SimpleNamespace()
    with pytest.raises(AttributeError):
        preview.show_sample(client)
    assert "Sampling failed: AttributeError" in preview.result.text


def test_depth_is_sent_while_there_is_something_to_hide(pipeline, monkeypatch):
    monkeypatch.setattr("consistent4d_ns.viewer.scene.install", lambda *_: None)
    server: Any = SimpleNamespace(scene=None)
    panel: Any = SimpleNamespace(_layer_depth=SimpleNamespace(value=True))
    scene = Scene(pipeline)
    scene.install(server, panel)
    assert not panel._layer_depth.value
    for element in (scene.frame, scene.cells):
        change(element, True)
        assert panel._layer_depth.value
        change(element, False)
        assert not panel._layer_depth.value


def test_nerfstudio_s_own_thread_renders_nothing(pipeline, monkeypatch):
    """Not even once: its picture might come after ours, with another number of pixels."""
    rendered = []
    monkeypatch.setattr(RenderStateMachine, "_render_img", lambda *_: rendered.append("theirs"))
    monkeypatch.setattr(Frames, "start", lambda _: None)
    client: Any = SimpleNamespace(client_id=3)
    viewer: Any = SimpleNamespace(ready=True, get_camera_state=lambda _: None, render_statemachines={})
    viewer.render_statemachines[3] = theirs = RenderStateMachine(viewer, 1.0, client)
    pipeline.panel.viewer = viewer
    theirs.start()
    replace_render_threads(viewer, pipeline.panel._frames_for)
    theirs.join(60.0)
    assert not theirs.is_alive()
    assert rendered == []
    assert isinstance(viewer.render_statemachines[3], Frames)


class FakeThread:
    """A thread that renders for a page, as far as the viewer's dictionary of them goes."""

    def __init__(self, client: Any) -> None:
        self.client, self.running, self.started, self.actions = client, True, 0, []

    def start(self) -> None:
        self.started += 1

    def action(self, action: object) -> None:
        self.actions.append(action)


@pytest.mark.parametrize("open_already", [False, True])
def test_pages_are_rendered_by_our_threads_whichever_callback_comes_first(open_already: bool):
    """viser 1.x runs connect callbacks at the same time: ours may come before Nerfstudio has registered its thread."""
    theirs, client = FakeThread("page"), "page"
    viewer: Any = SimpleNamespace(render_statemachines={7: theirs} if open_already else {})
    replace_render_threads(viewer, FakeThread)
    viewer.render_statemachines[8].action("a rerender of a page that has no thread yet")
    if not open_already:
        viewer.render_statemachines[7] = theirs  # as Viewer.handle_new_client does
        viewer.render_statemachines[7].start()
    ours = viewer.render_statemachines[7]
    assert ours is not theirs
    assert (ours.client, ours.started, theirs.started) == (client, 1, 0)
    assert len(viewer.render_statemachines) == 1
    assert theirs.running != open_already
