"""Numbers in the history of losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from consistent4d_ns.errors import InputError
from consistent4d_ns.record.history import LossHistory, read_history, shortest_decimals


def test_losses_are_written_as_short_decimals(tmp_path: Path):
    history = LossHistory(tmp_path / "losses.jsonl")
    history.record(0, {"rgb_0": torch.tensor(0.2), "sds_0": torch.tensor(1e-7)})
    history.flush()
    assert (tmp_path / "losses.jsonl").read_text() == '{"step": 0, "rgb_0": 0.2, "sds_0": 1e-07}\n'


def test_short_decimals_stand_for_exactly_the_same_numbers():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-30, 20).repeat(20)
    assert torch.equal(torch.tensor(shortest_decimals(values)), values)


DAMAGED = {
    "half a line with its end": b'{"step": 1, "rgb\n',
    "NUL bytes": b"\0" * 64,
    "NUL bytes and a line end": b'{"step": 1\0\0\0\n',
    "cut UTF-8": b'{"step": 1, "\xc3',
    "text after the object": b'{"step": 1, "rgb_0": 0.1} x',
    "a step that is infinite": b'{"step": 1e999}\n',
    "deep nesting": b"[" * 200_000,
    "a string": b'{"step": 1, "rgb_0": "0.1"}\n',
    "too large an integer": b'{"step": 1, "rgb_0": ' + b"9" * 400 + b"}",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_last_line_never_blocks_and_another_is_named(tmp_path: Path, damage: str):
    file, row = tmp_path / "losses.jsonl", b'{"step": 0, "rgb_0": 0.5}\n'
    file.write_bytes(row + DAMAGED[damage])
    assert read_history(file) == [{"step": 0, "rgb_0": 0.5}]
    file.write_bytes(DAMAGED[damage].removesuffix(b"\n") + b"\n" + row)
    with pytest.raises(InputError, match=r"is not a loss history \(line 1: ") as raised:
        read_history(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("only", [b'{"step": 0, "rgb', b"\0" * 64])
def test_what_is_left_of_the_only_row_does_not_block(tmp_path: Path, only: bytes):
    (tmp_path / "losses.jsonl").write_bytes(only)
    assert read_history(tmp_path / "losses.jsonl") == []


def test_an_infinite_value_is_read_as_not_finite(tmp_path: Path):
    (tmp_path / "losses.jsonl").write_text('{"step": 0, "rgb_0": 1e999}\n')
    assert read_history(tmp_path / "losses.jsonl") == [{"step": 0, "rgb_0": None}]
