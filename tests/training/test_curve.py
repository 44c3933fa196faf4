"""The training curves of the bundled prior: whole, falling, and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from consistent4d_ns.errors import InputError
from training import curve

CURVE = Path(curve.__file__).parent / "curves" / "denoiser.jsonl"


def test_the_bundled_prior_went_on_learning_what_holds_for_unseen_objects() -> None:
    rows = [json.loads(line) for line in CURVE.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(250, 26_001, 250))
    assert rows[-1]["samples"] == 3250 * 512 + (14_750 + 2000) * 1024 + 6000 * 2048
    for level in curve.LEVELS:
        first, last = (row[f"held_out_{level}"] for row in (rows[0], rows[-1]))
        assert last < 0.6 * first


def test_a_curve_is_drawn(tmp_path: Path) -> None:
    curve.main(CURVE, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (900, 300)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match=r"empty\.jsonl: is empty; give"):
        curve.main(tmp_path / "empty.jsonl", tmp_path / "curve.png")


@pytest.mark.parametrize("content", ["\n", "no curve", "[1]", '{"step": 1}'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"other\.jsonl: not a training curve .* give the denoiser\.jsonl"):
        curve.main(path, tmp_path / "curve.png")
