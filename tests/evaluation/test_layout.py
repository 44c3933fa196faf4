"""What truth and predictions lack is said in a line each, and what both have is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.images import on_white
from consistent4d_ns.evaluation.layout import Clip, check_pair, find_objects, frame_files, frame_pairs, read_clips


def clip(*numbers: int, size: int = 8) -> Clip:
    return {number: np.full((size, size, 3), number, np.uint8) for number in numbers}


def save(path: Path, *, alpha: int | None = None, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = [value, value, value] + ([] if alpha is None else [alpha])
    Image.fromarray(np.full((8, 8, len(colour)), colour, np.uint8)).save(path)


def notes_of(predicted: dict[str, Clip], truth: dict[str, Clip]) -> list[str]:
    notes: list[str] = []
    check_pair("Fox", predicted, truth, notes.append)
    return notes


def test_nothing_to_say():
    views = {"eval_0": clip(0, 1, 2), "eval_1": clip(0, 1, 2)}
    assert notes_of(views, views) == []


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        ({"eval_0": clip(0)}, {"eval_0": clip(0), "eval_1": clip(0)}, "Fox: the prediction lacks eval_1, which"),
        ({"eval_0": clip(0), "eval_9": clip(0)}, {"eval_0": clip(0)}, "Fox: the truth lacks eval_9, which"),
        (
            {"eval_0": clip(0, 1)},
            {"eval_0": clip(0, 1, 2, 3)},
            "Fox/eval_0: 2 predicted frames, 4 true ones; the prediction lacks 2 of them, first 2.",
        ),
        (
            {"eval_0": clip(0, 1, 7)},
            {"eval_0": clip(0, 1)},
            "Fox/eval_0: 3 predicted frames, 2 true ones; the truth lacks 7.",
        ),
        ({"eval_0": clip(1, 2)}, {"eval_0": clip(0, 1)}, "Fox/eval_0: frames are numbered differently"),
        (
            {"eval_0": clip(0, size=16)},
            {"eval_0": clip(0)},
            "Fox: images differ in size (prediction 16x16; truth 8x8); all are resized to the same.",
        ),
    ],
)
def test_what_is_said(predicted: dict[str, Clip], truth: dict[str, Clip], said: str):
    (note,) = notes_of(predicted, truth)
    assert note.startswith(said)
    assert "\n" not in note


def test_frames_that_belong_together():
    assert frame_pairs(clip(1, 2), clip(0, 1)) == [(1, 0), (2, 1)]
    assert frame_pairs(clip(0, 2, 5), clip(0, 1, 2, 3)) == [(0, 0), (2, 2)]


def test_nothing_in_common():
    with pytest.raises(InputError, match="no view in common"):
        notes_of({"eval_0": clip(0)}, {"eval_1": clip(0)})
    with pytest.raises(InputError, match="number them alike"):
        notes_of({"eval_0": clip(5)}, {"eval_0": clip(0, 1)})


def test_objects(tmp_path: Path):
    save(tmp_path / "Fox" / "eval_0" / "0.png")
    save(tmp_path / "Cat" / "eval_0" / "0.png")
    (tmp_path / "notes").mkdir()
    assert list(find_objects(tmp_path)) == ["Cat", "Fox"]
    assert find_objects(tmp_path / "Fox") == {"Fox": tmp_path / "Fox"}
    with pytest.raises(InputError, match="holds no views"):
        find_objects(tmp_path / "notes")


def test_images(tmp_path: Path):
    """In the order of their numbers; transparent ones on white."""
    for number in (10, 9, 1):
        save(tmp_path / "eval_0" / f"{number}.png", value=number)
    save(tmp_path / "eval_1" / "frame_0001.png", alpha=51)
    (tmp_path / "eval_1" / "readme.txt").write_text("x")
    notes: list[str] = []
    clips = read_clips(tmp_path, notes.append)
    assert list(clips["eval_0"]) == [1, 9, 10]
    assert clips["eval_0"][9].max() == 9
    assert clips["eval_1"][1].tolist() == np.full((8, 8, 3), 224).tolist()  # 0.2 * 100 + 0.8 * 255
    assert [note.split(": ")[0] for note in notes] == [str(tmp_path / "eval_1"), str(tmp_path)]
    save(tmp_path / "eval_1" / "other_1.png")
    with pytest.raises(InputError, match="which is frame 1"):
        frame_files(tmp_path / "eval_1", notes.append)


def test_opaque_images_stay_as_they_are():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    opaque = np.concatenate([image, np.full((4, 4, 1), 255, np.uint8)], axis=2)
    assert np.array_equal(on_white(opaque), on_white(image))
