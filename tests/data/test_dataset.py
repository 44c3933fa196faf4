"""The data set hands white-composited images and soft masks to nerfstudio, and decodes each frame once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.utils.dataloaders import CacheDataloader, FixedIndicesEvalDataloader
from PIL import Image

from consistent4d_ns.data import dataset as dataset_module
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig
from consistent4d_ns.data.dataset import FrameDataset
from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames: a red square with a half transparent left side."""
    image = np.zeros((32, 32, 4), np.uint8)
    image[8:24, 8:24] = (255, 0, 0, 255)
    image[8:24, 8:12, 3] = 51
    for i in range(3):
        Image.fromarray(np.roll(image, i, axis=1)).save(tmp_path / f"{i}.png")
    return tmp_path


def load(folder: Path, split: str = "train", scale: float = 1.0) -> FrameDataset:
    parser = FrameSequenceDataParserConfig(data=folder, image_size=32).setup()
    return FrameDataset(parser.get_dataparser_outputs(split), scale)


def test_images_are_white_composited_with_alpha_beside_them(folder: Path) -> None:
    data = load(folder)[1]
    assert data["image_idx"] == 1
    assert data["image"].shape == (32, 32, 3)
    assert data["image"].dtype == torch.float32
    assert data["alpha"].shape == (32, 32, 1)
    assert data["alpha"].dtype == torch.float32
    for column, colour, alpha in ((0, (1.0, 1.0, 1.0), 0.0), (9, (1.0, 0.8, 0.8), 0.2), (20, (1.0, 0.0, 0.0), 1.0)):
        torch.testing.assert_close(data["image"][16, column], torch.tensor(colour), atol=1e-3, rtol=0)
        torch.testing.assert_close(data["alpha"][16, column], torch.tensor([alpha]), atol=1e-3, rtol=0)


def test_8_bit_images_agree(folder: Path) -> None:
    dataset = load(folder)
    image = dataset.get_image_uint8(0)
    assert image.dtype == torch.uint8
    assert image[16, 9].tolist() == [255, 204, 204]
    assert torch.equal(dataset.get_data(0, "uint8")["image"], image)


def test_frames_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when evaluation uses the input view, and when several threads ask at the same time."""
    calls: list[int] = []
    monkeypatch.setattr(dataset_module, "decode_frames", lambda *args: calls.append(1) or decode_frames(*args))
    train, val = load(folder), load(folder, "val")
    assert not calls
    loader = CacheDataloader(train, num_workers=4, device="cpu", collate_fn=lambda items: items)
    assert {item["image_idx"] for item in loader._get_collated_batch()} == {0, 1, 2}
    assert val.rgba is train.rgba
    assert len(calls) == 1


def test_scale_factor(folder: Path) -> None:
    dataset = load(folder, scale=0.5)
    assert dataset[0]["image"].shape == (16, 16, 3)
    assert dataset.cameras.height[0] == 16
    assert dataset.rgba.shape == (3, 4, 16, 16)


def test_evaluation_loader_of_nerfstudio(folder: Path) -> None:
    pairs = list(FixedIndicesEvalDataloader(load(folder, "val"), device="cpu"))
    assert len(pairs) == 3
    camera, batch = pairs[2]
    assert camera.times is not None
    assert camera.times.tolist() == [[1.0]]
    assert batch["image"].shape == (32, 32, 3)
    assert batch["alpha"].shape == (32, 32, 1)


def test_as_generic_argument_of_the_data_manager(folder: Path) -> None:
    class Manager(VanillaDataManager[FrameDataset]):
        pass

    config = VanillaDataManagerConfig(
        _target=Manager,
        dataparser=FrameSequenceDataParserConfig(data=folder, image_size=32),
        train_num_rays_per_batch=64,
    )
    manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    assert type(manager.train_dataset) is FrameDataset
    assert manager.includes_time
    rays, batch = manager.next_train(0)
    assert rays.times.shape == (64, 1)
    assert batch["alpha"].shape == (64, 1)
    assert batch["image"].shape == (64, 3)


def test_views_follow_each_other(shared_data: Path) -> None:
    config = FrameSequenceDataParserConfig(data=shared_data / "gt4d" / "Fox", frame_stride=16, image_size=64)
    dataset = FrameDataset(config.setup().get_dataparser_outputs("val"))
    assert dataset.rgba.shape == (12, 4, 64, 64)
    torch.testing.assert_close(dataset.rgba[4:6], decode_frames(dataset.metadata["frames"][2], 64))
    assert dataset.image_filenames[4].parent.name == "eval_2"


def test_a_damaged_frame_is_named(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png is damaged or cut short"):
        load(folder)[0]


def test_nerfstudio_s_downscale_factor_makes_frames_smaller(folder: Path) -> None:
    """As `ns-render dataset --downscale-factor 2` sets it."""
    config = FrameSequenceDataParserConfig(data=folder, image_size=32)
    assert hasattr(config, "downscale_factor")
    config.downscale_factor = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    data = FrameDataset(config.setup().get_dataparser_outputs("test"))
    assert data[0]["image"].shape == (16, 16, 3)
    full = load(folder)
    assert (int(data.cameras.width[0]), float(data.cameras.cx[0])) == (16, 8.0)
    torch.testing.assert_close(data.cameras.fx * 2.0, full.cameras.fx)
    config.downscale_factor = 4.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="image-size is 8: use a value from 16"):
        config.setup().get_dataparser_outputs("test")


def test_suspicious_alpha_is_said_while_decoding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.asarray(Image.open(folder / "1.png")).copy()
    image[..., 3] = np.maximum(image[..., 3], 20)
    Image.fromarray(image).save(folder / "1.png")
    dataset = load(folder)
    assert capsys.readouterr().out == ""
    assert len(dataset.rgba) == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder / '1.png'} has a background that is not transparent")
    assert line.endswith("(1 of 3 frames)")


def test_more_frames_than_memory_are_refused_before_they_are_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The system would end the process without a word."""
    monkeypatch.setattr(dataset_module, "memory_limit", lambda: 3 * 8 * 32**2 - 1)
    monkeypatch.setattr(dataset_module, "decode_frames", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"^3 frames of 32 x 32 pixels take .*frame-stride.*image-size"):
        load(folder).rgba  # noqa: B018
    monkeypatch.undo()
    monkeypatch.setattr(dataset_module, "memory_limit", lambda: 3 * 8 * 32**2)
    assert load(folder).rgba.shape == (3, 4, 32, 32)
