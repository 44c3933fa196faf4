"""Options set by text, with the values that ns-train would give them."""

from __future__ import annotations

from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.method_configs import consistent4d_mini, preset
from consistent4d_ns.sweeping.assignments import assign, child


@pytest.mark.parametrize(
    ("assignment", "path", "expected"),
    [
        ("max-num-iterations=7", "max_num_iterations", 7),
        ("pipeline.guidance.scale=3", "pipeline.guidance.scale", 3.0),
        ("pipeline.guidance.prior=some/folder", "pipeline.guidance.prior", "some/folder"),
        ("pipeline.guidance.min-noise.start=0.5", "pipeline.guidance.min_noise.start", 0.5),
        ("pipeline.model.loss_weights.sds=1", "pipeline.model.loss_weights.sds", (1.0,)),
        ("pipeline.datamanager.plan.clip_views=4 1", "pipeline.datamanager.plan.clip_views", (4, 1)),
        ("pipeline.model.grid_resolutions=8 8 8 2", "pipeline.model.grid_resolutions", ((8, 8, 8, 2),)),
        ("optimizers.field.optimizer.lr=0.5", "optimizers.field.optimizer.lr", 0.5),
    ],
)
def test_an_option_is_set(assignment, path, expected):
    config = preset(consistent4d_mini)
    assign(config, assignment)
    value: Any = config
    for name in path.split("."):
        value = child(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "assignment",
    [
        "pipeline.nothing=3",
        "pipeline.guidance.scale=high",
        "pipeline.guidance.scale",
        "pipeline.guidance.min_noise=1",
        "pipeline._target=os.system",
    ],
)
def test_what_cannot_be_set_is_named(assignment, capsys):
    with pytest.raises(InputError, match=assignment):
        assign(preset(consistent4d_mini), assignment)
    assert not capsys.readouterr().err
