"""What nerfstudio imports for every command must be light, and what it lists must be complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import run_command

pytestmark = pytest.mark.slow

HEAVY = (
    "diffusers",
    "transformers",
    "tinycudann",
    "consistent4d_ns.guidance.loading",
    "consistent4d_ns.guidance.zero123",
    "consistent4d_ns.interpolation.ifnet",
    "consistent4d_ns.toy",
    "consistent4d_ns.media.pictures",
)
METHODS = (
    *("consistent4d", "consistent4d-big", "consistent4d-mini", "consistent4d-image", "consistent4d-image-mini"),
    "consistent4d-text",
)
OPTIONS = (
    "--data ",
    "--pipeline.datamanager.dataparser.elevation",
    "--pipeline.datamanager.plan.stage-steps",
    "--pipeline.guidance.kind {zero123,none}",
    "--pipeline.guidance.scale FLOAT",
    "--pipeline.interpolation.kind {rife,none}",
    "--pipeline.model.grid-resolutions [INT INT INT INT",
    "--pipeline.model.loss-weights.sds",
    "--pipeline.model.loss-weights.orientation.end-step",
)


def output(*command: str) -> str:
    """What a command prints, on lines wide enough for every option; it must succeed."""
    env = os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", ["consistent4d_ns.method_configs", "consistent4d_ns.data.dataparser"])
def test_entry_points_import_nothing_heavy(module: str):
    """None in sys.modules makes an import fail; each module is the first of ours that its process imports."""
    output(sys.executable, "-c", f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); import {module}")


LIGHT = """
import sys
import consistent4d_ns.method_configs
slow = ("torchvision", "torch._dynamo", "gsplat", "scipy.interpolate", "nerfstudio.models.splatfacto")
assert not [name for name in slow if name in sys.modules]
import nerfstudio.pipelines.base_pipeline as pipelines, nerfstudio.viewer.render_panel as panel
import nerfstudio.viewer.viewer as viewer
assert not isinstance(1, viewer.SplatfactoModel)
assert panel.interpolate.PchipInterpolator([0, 1], [0, 2])(0.5) == 1
assert pipelines.vutils.save_image.__module__ == "torchvision.utils"
from nerfstudio.models.splatfacto import SplatfactoModel
assert isinstance(SplatfactoModel.__new__(SplatfactoModel), viewer.SplatfactoModel)
assert not isinstance(1, viewer.SplatfactoModel)
import scipy.interpolate, torchvision.transforms
"""
"""What is left out of the import of Nerfstudio's trainer works as before when it is used."""


def test_nerfstudios_trainer_is_imported_lightly():
    output(sys.executable, "-c", LIGHT)


def test_the_package_itself_imports_nothing():
    program = "import sys; before = set(sys.modules); import consistent4d_ns; print(sorted(set(sys.modules) - before))"
    added = output(sys.executable, "-c", program)
    assert "consistent4d_ns" in added
    assert "torch" not in added
    assert "nerfstudio" not in added


def test_ns_train_lists_the_methods_and_their_options(tmp_path: Path):
    def help_of(*method: str) -> str:
        done = run_command("ns-train", *method, "--help", cwd=tmp_path, env=os.environ | {"COLUMNS": "200"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = help_of()
    assert all(f"{method} " in listed for method in METHODS)
    options = help_of("consistent4d-mini")
    assert [option for option in OPTIONS if option not in options] == []
