"""Two processes train one model: each draws its own step, gradients are their mean, the first one writes the run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from nerfstudio.models.base_model import Model
from nerfstudio.scripts.train import _set_random_seed

from benchmarks import gloo
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.record.history import read_history
from tests.support.tiny import attach_priors, first_step, losses_and_gradients, tiny_config, tiny_pipeline, toy_folder

pytestmark = pytest.mark.slow

RANKS = 2
STEPS = OCCUPANCY_EVERY + 2
KINDS = (StepKind.REFERENCE, StepKind.AZIMUTHS)
"""What each rank's step is: different ones, so that equal gradients cannot be an accident."""


def train_one_step(rank: int, world_size: int, data: Path, global_rank: int, folder: Path) -> None:
    """What one rank does; writes its gradients."""
    pipeline = tiny_pipeline(data)
    # Nerfstudio wraps exactly this attribute.
    wrapped = gloo.CPUDistributedDataParallel(pipeline._model, [rank], find_unused_parameters=True)
    pipeline._model = cast(Model, wrapped)
    _, gradients = losses_and_gradients(pipeline, first_step(pipeline, KINDS[rank]))
    torch.save(gradients, folder / f"{rank}.pt")


def test_gradients_are_the_mean_over_ranks(tmp_path):
    data = toy_folder(tmp_path)
    gloo.launch(partial(train_one_step, folder=tmp_path), RANKS, data)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    alone = tiny_pipeline(data)
    expected = [losses_and_gradients(alone, first_step(alone, kind))[1] for kind in KINDS]
    for name in expected[0]:
        mean = (expected[0][name] + expected[1][name]) / 2
        for gradients in ranks:
            torch.testing.assert_close(gradients[name], mean, rtol=1e-4, atol=1e-6 * float(mean.abs().max()))


def train_and_tell(
    rank: int, world_size: int, config: Consistent4DTrainerConfig, global_rank: int, folder: Path
) -> None:
    """What one rank does; as Nerfstudio's `train_loop`, and writes what it saw."""
    _set_random_seed(config.machine.seed + global_rank)
    trainer = config.setup(local_rank=rank, world_size=world_size)
    trainer.setup()
    pipeline = trainer.pipeline
    attach_priors(pipeline)
    begin = [parameter.detach().clone() for parameter in pipeline.model.parameters()]
    plans = [pipeline.draw(step).plan for step in range(STEPS)]
    trainer.train()
    torch.save(
        {
            "begin": begin,
            "model": pipeline.model.state_dict(),
            "azimuths": torch.cat([plan.views.azimuth for plan in plans]),
            "frames": torch.cat([plan.frames for plan in plans]),
            "idle": [name for name, p in pipeline.model.named_parameters() if p.requires_grad and p.grad is None],
        },
        folder / f"{rank}.pt",
    )
    # What one device saved, several take up.
    alone = {name.replace("_model.module.", "_model."): value for name, value in pipeline.state_dict().items()}
    pipeline.load_pipeline(alone, STEPS)


def test_a_run_on_two_devices(tmp_path):
    config = tiny_config(toy_folder(tmp_path))
    config.output_dir, config.vis, config.max_num_iterations = tmp_path, "tensorboard", STEPS
    config.set_timestamp()
    gloo.launch(partial(train_and_tell, folder=tmp_path), RANKS, config)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS))
    assert all(map(torch.equal, first["begin"], second["begin"]))
    assert not torch.equal(first["frames"], second["frames"])
    assert not torch.equal(first["azimuths"], second["azimuths"])
    assert first["idle"] == second["idle"] == [], "these are waited for in every step"
    # With the occupancy grid, although each rank draws where to look.
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])

    folder = config.get_base_dir()
    assert [row["step"] for row in read_history(folder / "losses.jsonl")] == list(range(STEPS))
    assert (folder / "contact_sheet.png").exists()
    resumed = resume_alone(config, folder / "nerfstudio_models")
    assert resumed._start_step == STEPS
    state = resumed.pipeline.model.state_dict()
    assert all(torch.equal(state[name], first["model"][name]) for name in state)


def resume_alone(config: Consistent4DTrainerConfig, checkpoints: Path) -> Any:
    """A trainer on one device that goes on from a run on two."""
    config.load_dir, config.timestamp, config.max_num_iterations = checkpoints, "resumed", STEPS + 1
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer
