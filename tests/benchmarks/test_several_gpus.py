"""The benchmark of several GPUs, on processes of the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import several_gpus
from benchmarks.several_gpus import Options
from tests.support.tiny import SMALL_MODEL, tiny_config, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("several"))


def test_runs_of_one_and_of_several(data: Path, tmp_path: Path):
    options = Options((data,), tmp_path / "out.json", length=2.0, shorter=(0.5,), device="cpu")
    runs = list(several_gpus.plan_runs(options, tmp_path))
    labels = ["speed, 1 GPU", "speed, 2 GPUs", "1 GPU, 5500 steps", "2 GPUs, 5500 steps", "2 GPUs, 2750 steps"]
    assert [run.label for run in runs] == labels
    long, short = (run.config.pipeline for run in runs[-2:])
    assert long.datamanager.plan.stage_steps == (0, 1000)
    assert short.datamanager.plan.stage_steps == (0, 500)
    assert [p.guidance.min_noise(700) for p in (long, short)] == pytest.approx([0.5, 0.2])


@pytest.mark.slow
def test_steps_of_all_stages(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(several_gpus, "WARMUP", 1)
    config = tiny_config(data)
    config.output_dir, config.vis = tmp_path, "tensorboard"
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    stages = several_gpus.time_stages(trainer, "small", 3)["stages"]
    assert [stage["image_size"] for stage in stages] == [16, 32]
    assert [{name: len(ms) for name, ms in stage["ms"].items()} for stage in stages] == [
        {"distillation": 2, "reference": 1}
    ] * 2
    assert all(stage["peak_gib"] > 0 and stage["samples_per_ray"] > 0 for stage in stages)


def test_ratios_are_to_the_first_run():
    def result(devices: int, ms: float) -> dict[str, object]:
        times = {"reference": [ms, ms], "distillation": [2 * ms, 4 * ms]}
        stage = {"image_size": 64, "ms": times, "samples_per_ray": 5.0, "peak_gib": 1.0}
        return {"devices": devices, "ranks": [{"stages": [stage]}] * devices}

    rows = several_gpus.speed_table([result(1, 10.0), result(2, 11.0)]).splitlines()[2:]
    assert rows[2] == "| 1 | 64 | all | 15.0 | 20.0 | 1.000 | 5.0 | 1.0 |"
    assert [row.split(" | ")[5] for row in rows] == ["1.000"] * 3 + ["1.100"] * 3
    assert rows[5].endswith("| 1.0 1.0 |")


@pytest.mark.slow
def test_quality_on_two_processes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = Options(
        (data,), tmp_path / "out.json", ("quality",), (2,), length=0.002, shorter=(), variant="none", device="cpu",
        overrides=(SMALL_MODEL,),
    )  # fmt: skip
    several_gpus.main(options)
    assert "| PSNR (dB) | 2 GPUs, 6 steps |" in capsys.readouterr().out
    (run,) = json.loads(options.out.read_text())["runs"]
    first, second = (rank["scores"] for rank in run["ranks"])
    assert first["psnr"] > 5.0
    assert second.keys() == {"train_seconds", "step_seconds"}
