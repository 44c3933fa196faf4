"""What is said of the presets agrees with the presets themselves, and with the table that users read."""

from __future__ import annotations

import pytest

from consistent4d_ns.guidance.bundled_prior import NAME
from consistent4d_ns.guidance.hub import PUBLISHED
from consistent4d_ns.method_configs import PRESETS, preset
from consistent4d_ns.setup.diagnosis import shown_memory, shown_time
from consistent4d_ns.setup.presets import DEFAULT, NEEDS, Needs, presets_with
from consistent4d_ns.setup.weights import WEIGHTS
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig
from tests.docs.pages import read, table_rows


def wanted_weights(config: Consistent4DTrainerConfig) -> set[str]:
    """Names of the weights that a preset's configuration asks for."""
    names = {hub_id: name for name, hub_id in PUBLISHED.items()} | {NAME: NAME}
    guidance, interpolation = config.pipeline.guidance, config.pipeline.interpolation
    prior = {names[guidance.prior]} if guidance.kind != "none" else set()
    return prior | ({"rife"} if interpolation.kind == "rife" else set())


def test_every_preset_and_its_weights():
    configs = [preset(specification) for specification in PRESETS]
    assert [needs.preset for needs in NEEDS] == [config.method_name for config in configs]
    for needs, config in zip(NEEDS, configs, strict=True):
        assert set(needs.weights) == wanted_weights(config), needs.preset
    assert DEFAULT in presets_with("rife")
    assert {name for needs in NEEDS for name in needs.weights} < {weights.name for weights in WEIGHTS}


def without_note(cell: str) -> str:
    """A cell of a table without the mark of a footnote."""
    return cell.rstrip("¹²³⁴")


@pytest.mark.parametrize("needs", NEEDS, ids=lambda needs: needs.preset)
def test_figures_of_the_readme(needs: Needs):
    """Whoever renews the table of presets renews `setup/presets.py`, and the other way round."""
    (row,) = (row for row in table_rows(read("README.md")) if row[0] == f"`{needs.preset}`")
    _, _, hardware, time = row
    assert without_note(time) == shown_time(needs)
    if needs.gpu_memory is not None:
        assert without_note(hardware) == f"{shown_memory(needs)} of GPU memory"
    else:
        assert "GPU memory" not in hardware
