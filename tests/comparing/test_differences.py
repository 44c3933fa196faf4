"""Which options of runs differ, and what they are called."""

from __future__ import annotations

from pathlib import Path

from consistent4d_ns.comparing.differences import differences, short_names
from consistent4d_ns.method_configs import consistent4d_big, consistent4d_mini, preset


def test_only_what_differs_and_has_an_effect():
    first, second, third = (preset(consistent4d_mini) for _ in range(3))
    assert differences([first, second]) == {}
    second.timestamp, second.output_dir, second.vis, second.viewer.websocket_port = "other", Path("o"), "wandb", 7008
    second.data = second.pipeline.datamanager.data = Path("elsewhere")
    assert differences([first, second]) == {}
    second.machine.seed, second.optimizers["field"]["optimizer"].lr = 3, 0.02
    third.pipeline.datamanager.plan.clip_views, third.pipeline.datamanager.plan.reference_rays = (4, 1), None
    assert differences([first, second, third]) == {
        "machine.seed": ["0", "3", "0"],
        "optimizers.field.optimizer.lr": ["0.01", "0.02", "0.01"],
        "pipeline.datamanager.plan.clip-views": ["4 4", "4 4", "4 1"],
        "pipeline.datamanager.plan.reference-rays": ["3072", "3072", "None"],
    }


def test_a_value_read_from_a_file_is_the_same_value():
    """YAML knows no tuples, and whole numbers may stand for floating-point ones."""
    first, second = preset(consistent4d_mini), preset(consistent4d_mini)
    second.pipeline.datamanager.plan.views = [4, 2]  # type: ignore[assignment]
    second.pipeline.guidance.scale = 1
    assert differences([first, second]) == {}


def test_other_methods_differ_in_their_name():
    changes = differences([preset(consistent4d_mini), preset(consistent4d_big)])
    assert changes["method-name"] == ["consistent4d-mini", "consistent4d-big"]
    assert len(changes) > 10


def test_short_names_tell_options_apart():
    options = ["machine.seed", "pipeline.guidance.min_noise.end", "pipeline.guidance.max_noise.end", "a.kind", "kind"]
    assert list(short_names(options).values()) == ["seed", "min-noise.end", "max-noise.end", "a.kind", "kind"]
    assert short_names(["a.b.x", "c.b.x", "b.x"]) == {"a.b.x": "a.b.x", "c.b.x": "c.b.x", "b.x": "b.x"}
