"""Numbers in the history of losses."""

from __future__ import annotations

from pathlib import Path

import torch

from consistent4d_ns.record.history import LossHistory, shortest_decimals


def test_losses_are_written_as_short_decimals(tmp_path: Path):
    history = LossHistory(tmp_path / "losses.jsonl")
    history.record(0, {"rgb_0": torch.tensor(0.2), "sds_0": torch.tensor(1e-7)})
    history.flush()
    assert (tmp_path / "losses.jsonl").read_text() == '{"step": 0, "rgb_0": 0.2, "sds_0": 1e-07}\n'


def test_short_decimals_stand_for_exactly_the_same_numbers():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-30, 20).repeat(20)
    assert torch.equal(torch.tensor(shortest_decimals(values)), values)
