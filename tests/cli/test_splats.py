"""`consistent4d export splats`, from a finished run to files; and what is said, in one line, when it cannot be done."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh

from consistent4d_ns.cli import splats as command
from consistent4d_ns.cli.commands import app
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.splats import sequence
from tests.support.commands import run_command
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.slow

SMALL = ("--cells", "24")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Folder of a run of a few steps: still about the ball that training starts from."""
    return tiny_run(tmp_path_factory.mktemp("splats"), 2)


@pytest.fixture(autouse=True)
def few_views(monkeypatch):
    """What runs in this process looks from few sides at small images."""
    monkeypatch.setattr(sequence, "SIZE", 32)
    monkeypatch.setattr(sequence, "LOOKING_VIEWS", 4)


def export(config: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    app.cli(args=["export", "splats", str(config), str(out), *options])


def vertices(path: Path) -> np.ndarray:
    return trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]


def test_every_frame_is_a_numbered_ply(run: Path, tmp_path: Path):
    options = ("--cells", "16", "--times", "0", "0.5")
    done = run_command("consistent4d", "export", "splats", str(run), "toy", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Gaussians: converted from the field, not fitted (--fit-steps 0)." in done.stdout
    assert "toy: 2 frames, 16 per second." in done.stdout
    found = sorted(file.name for file in (tmp_path / "toy").iterdir())
    assert found == ["manifest.json", "sequence.json", "toy0001.ply", "toy0002.ply"]
    index = json.loads((tmp_path / "toy" / "sequence.json").read_text())
    assert (index["up"], index["fps"], index["sets"]) == ("-y", 16.0, [0, 1])
    data = vertices(tmp_path / "toy" / "toy0001.ply")
    places = np.stack([np.asarray(data[name]).ravel() for name in "xyz"])
    assert places.shape[1] > 50
    assert np.abs(places).max() < 1.0


def test_fitted_gaussians_stay_the_same_ones(run: Path, tmp_path: Path, capsys):
    out = tmp_path / "toy2"
    export(run, out, *SMALL, "--fit-steps", "3", "--frames", "3")
    said = capsys.readouterr().out
    assert "fitted in 3 steps with the rasteriser in PyTorch" in said
    assert "The same Gaussians in all frames." in said
    assert json.loads((out / "sequence.json").read_text())["sets"] == [0, 0, 0]
    # A name that ends in a digit is parted from the number.
    counts = {len(vertices(out / f"toy2_{number:04d}.ply")["x"]) for number in (1, 2, 3)}
    assert len(counts) == 1


def test_compressed_files(run: Path, tmp_path: Path):
    pytest.importorskip("gaussforge", reason="needs gaussforge")
    sizes = []
    for format in ("ply", "compressed.ply", "spz"):
        export(run, tmp_path / "toy", *SMALL, "--frames", "1", "--format", format, "--overwrite")
        sizes.append((tmp_path / "toy" / f"toy0001.{format}").stat().st_size)
    assert sizes[1] < sizes[0] / 3
    assert sizes[2] < sizes[0] / 5
    assert json.loads((tmp_path / "toy" / "sequence.json").read_text())["up"] == "y"


def message(config: Path, out: Path, *options: str) -> str:
    """What is said when it cannot be done."""
    with pytest.raises(InputError) as raised:
        export(config, out, *options)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    return str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cells", "4"), "--cells 4: give a value from 16 to 512."),
        (("--fit-steps", "-1"), "--fit-steps -1: give a value from 0 to 100000."),
        (("--rasteriser", "torch", "--device", "cpu"), "--rasteriser torch is for fitting: give --fit-steps"),
        (("--rasteriser", "gsplat", "--fit-steps", "5", "--device", "cpu"), "give --rasteriser torch"),
        (("--times", "1.5"), "1.5"),
    ],
)
def test_values_that_cannot_be(run: Path, tmp_path: Path, options: tuple[str, ...], expected: str):
    assert expected in message(run, tmp_path / "toy", *options)


def test_a_file_is_no_folder(run: Path, tmp_path: Path):
    assert "give a folder" in message(run, tmp_path / "toy.ply")


def test_a_run_that_is_not_there(tmp_path: Path):
    assert str(tmp_path / "none") in message(tmp_path / "none", tmp_path / "toy")


def test_a_format_whose_library_is_missing(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert re.search("--format spz needs .*pip install gaussforge", message(run, tmp_path / "toy", "--format", "spz"))


def test_nothing_is_overwritten_unless_asked(run: Path, tmp_path: Path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="toy"):
        export(run, tmp_path / "toy", *SMALL, "--frames", "1")
    assert (tmp_path / "toy" / "precious.txt").read_text() == "mine"
