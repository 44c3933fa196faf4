"""Images of an object whose shape and colours are known: tiles side by side, the input beside them, contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.errors import InputError
from consistent4d_ns.media import pictures
from consistent4d_ns.media.camera_paths import InputVideo, PathOptions, camera_path, path_json
from consistent4d_ns.media.pictures import (
    contact_sheet,
    depth_range,
    filled,
    input_video,
    labelled_sheet,
    nerfstudio_path,
    render_rows,
    to_bytes,
    turned,
)
from consistent4d_ns.media.tiles import Tile, check_levels, parse_tiles
from consistent4d_ns.runs import Run
from tests.export.objects import RADIUS, STRETCH, BallField, ball_run
from tests.support.tiny import FRAMES, SIZE

DISTANCE = 2.0


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The ball as if it had been trained."""
    return ball_run(tmp_path_factory.mktemp("ball"))


def path(*times: float, azimuth: float = 0.0, height: int = 48, width: int = 48) -> Cameras:
    """A camera that stands still while time passes."""
    view = orbit_views(0.0, azimuth, DISTANCE, 49.1, len(times))
    focal = focal_length(view.fovy, height)[:, None]
    half = width / 2, height / 2
    return Cameras(view.poses(), focal, focal, *half, width, height, times=torch.tensor(times)[:, None])


def test_tiles_by_name():
    assert parse_tiles(["input", "rgb@-90", "depth_1"]) == [Tile("input"), Tile("rgb", -90.0), Tile("depth_1")]
    assert [tile.level for tile in parse_tiles(["rgb", "accumulation_0", "depth_12@5"])] == [None, 0, 12]
    check_levels(parse_tiles(["rgb_1", "normals"]), 2)
    with pytest.raises(InputError, match="no output depth_2: this run's cascade levels are 0 to 1"):
        check_levels(parse_tiles(["depth_2"]), 2)


@pytest.mark.parametrize("name", ["", "colour", "rgb_", "rgb_x", "normals_0", "rgb_1000", "rgb@", "rgb@inf", "input@0"])
def test_names_of_nothing(name: str):
    with pytest.raises(InputError, match="output"):
        parse_tiles([name])


def test_depths_span_the_object_over_the_whole_clip(ball: Run):
    """At the last time the ball is longer towards the camera than at the first."""
    model, nearest = ball.pipeline.model, DISTANCE - RADIUS * STRETCH
    near, far = depth_range(model, path(0.0, 0.5, 1.0), [Tile("depth")])
    assert near == pytest.approx(nearest, abs=0.02)
    # The outline is seen where a line of sight touches the ball.
    assert far == pytest.approx((DISTANCE**2 - RADIUS**2) ** 0.5, abs=0.06)
    assert depth_range(model, path(0.0), [Tile("depth")])[0] == pytest.approx(DISTANCE - RADIUS, abs=0.02)
    side = depth_range(model, path(1.0), [Tile("depth", 90.0)])
    assert side[0] == pytest.approx(DISTANCE - RADIUS, abs=0.02)


def test_depth_uses_the_whole_colour_map_and_the_same_in_all_frames(ball: Run):
    model, data = ball.pipeline.model, ball.pipeline.datamanager
    rows = list(render_rows(model, data, path(0.0, 1.0), [Tile("depth")]))
    seen = np.concatenate([row[row[..., 3] == 255][:, :3] for row in rows]).astype(int)
    assert (seen.max(axis=0) - seen.min(axis=0)).max() > 180
    # At the middle the ball is nearer at the last time, so its colour differs; a range per frame would make them equal.
    assert np.abs(rows[0][24, 24].astype(int) - rows[1][24, 24]).max() > 40


def test_a_field_without_anything_opaque_has_some_depth_range(tmp_path: Path):
    model = ball_run(tmp_path, BallField(density=0.01)).pipeline.model
    assert depth_range(model, path(0.0), [Tile("depth")]) == (0.0, 1.0)


def test_normals_point_towards_the_viewer_and_the_sides(ball: Run):
    model, data = ball.pipeline.model, ball.pipeline.datamanager
    (row,) = render_rows(model, data, path(0.0), [Tile("normals")])
    colours = row[..., :3] / 127.5 - 1.0
    np.testing.assert_allclose(colours[24, 24], (1.0, 0.0, 0.0), atol=0.15)
    assert colours[24, 30, 1] > 0.2
    assert colours[18, 24, 2] > 0.2


def test_a_turned_camera_sees_the_object_from_the_side(ball: Run):
    model, data = ball.pipeline.model, ball.pipeline.datamanager
    (row,) = render_rows(model, data, path(1.0), [Tile("rgb"), Tile("rgb", 90.0)])
    front, side = row[:, :48, 3] > 127, row[:, 48:, 3] > 127
    assert side.any(axis=0).sum() > 1.2 * front.any(axis=0).sum()
    assert np.abs(int(side.any(axis=1).sum()) - int(front.any(axis=1).sum())) <= 4
    (beside,) = render_rows(model, data, path(1.0, azimuth=90.0), [Tile("rgb")])
    assert np.abs(row[:, 48:].astype(int) - beside).max() <= 1
    assert torch.equal(turned(path(0.5), 0.0).camera_to_worlds, path(0.5).camera_to_worlds)


def test_a_box_leaves_out_what_is_outside(ball: Run):
    upper = OrientedBox.from_params((0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (4.0, 4.0, 2.0))
    (row,) = render_rows(ball.pipeline.model, ball.pipeline.datamanager, path(0.0), [Tile("accumulation")], upper)
    assert row[:20, :, 0].max() == 255
    assert row[30:, :, 0].max() == 0


def test_the_input_is_centred_in_images_of_other_shapes(ball: Run):
    data = ball.pipeline.datamanager
    (row,) = render_rows(ball.pipeline.model, data, path(1.0, height=SIZE, width=SIZE + 10), [Tile("input")])
    wide = torch.from_numpy(row) / 255.0
    frame = data.frames[FRAMES - 1].float().movedim(0, -1)
    torch.testing.assert_close(wide[:, 5:-5, 3], frame[..., 3], atol=2e-3, rtol=0)
    opaque = frame[..., 3] > 0.5
    colour = (frame[..., :3] / frame[..., 3:].clamp(min=1e-3))[opaque]
    torch.testing.assert_close(wide[:, 5:-5, :3][opaque], colour, atol=5e-3, rtol=0)
    assert wide[:, :5, 3].max() == wide[:, -5:, 3].max() == 0.0


def test_a_large_image_is_rendered_in_bands_that_cannot_be_seen(ball: Run, monkeypatch: pytest.MonkeyPatch):
    """All outputs of all pixels at once would take 300 bytes a pixel: 20 GB at 8192 x 8192."""
    model, data = ball.pipeline.model, ball.pipeline.datamanager
    tiles, camera = [Tile("input"), Tile("rgb"), Tile("rgb", 90.0), Tile("depth")], path(0.5, height=50, width=40)
    (whole,) = render_rows(model, data, camera, tiles)
    monkeypatch.setattr(pictures, "BAND_PIXELS", 40 * 15)
    render, rows = model.get_outputs_for_camera, []
    monkeypatch.setattr(model, "get_outputs_for_camera", lambda c, box: rows.append(int(c.height)) or render(c, box))
    (banded,) = render_rows(model, data, camera, tiles)
    assert rows == [50, *[15, 15] * 3, 5, 5]
    assert np.abs(whole.astype(int) - banded).max() <= 1


def test_invisible_pixels_have_the_mean_colour():
    """Otherwise lossy codecs would mix black into the object's edge."""
    rgba = torch.tensor([[[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    expected = rgba.clone()
    expected[0, 2, :3] = torch.tensor([2 / 3, 1 / 3, 0.0])
    torch.testing.assert_close(filled(rgba), expected)
    assert filled(torch.zeros(2, 2, 4)).isfinite().all()


def test_bytes_are_rounded_and_clamped():
    values = torch.tensor([[[-0.2, 0.0, 0.5, 1.0, 1.7]]])
    assert to_bytes(values).tolist() == [[[0, 0, 128, 255, 255]]]


def test_paths_have_times_and_a_box():
    options = PathOptions(frames=3, size=16)
    content = path_json(camera_path("orbit", options, InputVideo()))
    for frame, time in zip(content["camera_path"], (-0.05, 0.5, 1.05), strict=True):
        frame["render_time"] = time
    cameras, box = nerfstudio_path(content)
    assert cameras.times is not None
    assert cameras.times.flatten().tolist() == [0.0, 0.5, 1.0]
    assert box is None
    for frame in content["camera_path"]:
        del frame["render_time"]
    content["crop"] = {"crop_center": [0.0, 0.0, 1.0], "crop_scale": [1.0, 2.0, 4.0], "crop_rot": [0.0, 0.0, 0.0]}
    cameras, box = nerfstudio_path(content)
    assert cameras.times is not None
    assert cameras.times.flatten().tolist() == [0.0, 0.5, 1.0]
    assert box is not None
    inside = box.within(torch.tensor([[0.0, 0.9, 2.9], [0.6, 0.0, 1.0], [0.0, 0.0, -1.1]]))
    assert inside.tolist() == [True, False, False]


def test_the_input_tells_paths_its_length_camera_and_size(ball: Run):
    video = input_video(ball.pipeline.datamanager)
    assert (video.frames, video.fps, video.size) == (FRAMES, 16.0, SIZE)
    assert video.camera["distance"] == pytest.approx(2.0)


def test_contact_sheets_keep_rows_columns_and_labels():
    shades = [[np.full((10, 12, 3), 40 * row + 20 * column, np.uint8) for column in range(3)] for row in range(2)]
    sheet = contact_sheet(shades, gap=2)
    assert sheet.shape == (2 * 14, 3 * 16, 3)
    assert (sheet[:2] == 255).all()
    centres = sheet[7::14, 8::16, 0]
    assert centres.tolist() == [[0, 20, 40], [40, 60, 80]]
    labelled = labelled_sheet(shades, ["a", "b", "c"], ["t = 0", "t = 1"])
    top, left = labelled.shape[0] - contact_sheet(shades).shape[0], labelled.shape[1] - contact_sheet(shades).shape[1]
    assert (labelled[top:, left:] == contact_sheet(shades)).all()
    assert labelled[:top].min() < 100
    assert labelled[top:, :left].min() < 100
