"""What each preset sets, in full: a change of a default shows up as a change of a file.

After a deliberate change: `python -m tests.test_presets` writes the files anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from consistent4d_ns import method_configs

CONFIGS = Path(__file__).parent.parent / "configs"
PRESETS = {
    str(specification.config.method_name): method_configs.preset(specification)
    for specification in method_configs.PRESETS
}
INHERITED = ("camera_optimizer", "collate_fn", "pixel_sampler", "collider_params", "loss_coefficients", "prompt")
"""Nerfstudio's own fields that this method does not use."""


def plain(value: Any) -> Any:
    """Configurations as dictionaries of YAML's own types; classes and inherited fields are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {k: plain(v) for k, v in fields.items() if k not in ("_target", *INHERITED)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def snapshot(name: str) -> dict[str, Any]:
    """What a preset sets, but for what depends on the machine."""
    config = PRESETS[name]
    top = ("max_num_iterations", "steps_per_save", "steps_per_eval_image", "mixed_precision", "vis")
    return {key: getattr(config, key) for key in top} | {
        "optimizers": plain(config.optimizers),
        "viewer": {"websocket_host": config.viewer.websocket_host},
        "pipeline": plain(config.pipeline),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_their_files_say(name: str):
    assert snapshot(name) == yaml.safe_load((CONFIGS / f"{name}.yml").read_text())


@pytest.mark.parametrize(
    ("name", "upstream", "changes"),
    [
        ("consistent4d", "consistent4d", {}),
        # The original's setting for little memory is no preset here: it saves none to speak of (docs/performance.md).
        ("consistent4d", "consistent4d_low_vram", {"channels": (16, 8), "hidden_width": 12}),
        ("consistent4d-big", "consistent4d_4layers", {}),
    ],
)
def test_weights_and_sizes_are_upstream_s(golden_json, name: str, upstream: str, changes: dict[str, Any]):
    """Loss weights at several steps, and the number of parameters (method.md sections 3.1 and 7)."""
    model = dataclasses.replace(PRESETS[name].pipeline.model, **changes)
    recorded = golden_json("schedules.json")["loss_weights"][upstream]
    ours = {"rgb": "rgb", "mask": "mask", "sds": "sds", "vif": "consistency"}
    for step, weights in recorded.items():
        for key, weight in weights.items():
            term, _, level = key.removeprefix("lambda_").rpartition("_")
            if term in ours:
                assert model.loss_weights.at(f"{ours[term]}_{level}", int(step)) == pytest.approx(weight), key
        assert model.loss_weights.at("orientation", int(step)) == pytest.approx(weights["lambda_orient"])
        assert model.loss_weights.at("normal_smoothness_3d", int(step)) == weights["lambda_3d_normal_smooth"]
    channels = model.channels * len(model.grid_resolutions) if len(model.channels) == 1 else model.channels
    planes = sum(
        c * (x * y + x * z + x * t + y * z + y * t + z * t)
        for c, (x, y, z, t) in zip(channels, model.grid_resolutions, strict=True)
    )
    heads = sum(2 * c * model.hidden_width + 4 * model.hidden_width for c in channels)
    assert planes + heads == golden_json("kplanes_param_shapes.json")[upstream]["total"]


if __name__ == "__main__":
    CONFIGS.mkdir(exist_ok=True)
    for name in PRESETS:
        (CONFIGS / f"{name}.yml").write_text(yaml.safe_dump(snapshot(name), sort_keys=False))
