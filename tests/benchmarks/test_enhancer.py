"""The benchmark of the video enhancer on a tiny run: which images are measured, and that truth is better than blur."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import enhancer
from benchmarks.enhancer import Options
from consistent4d_ns.errors import InputError
from tests.support.tiny import SIZE, tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs"), 30)


def test_results_table_and_sheet(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.json"
    enhancer.main(Options(run, out, views=2, epochs=8, device="cpu"))
    scores = json.loads(out.read_text())["scores"]
    names = ["rendered", *(f"enhanced by {kind}" for kind in ("truth", "truth of other views", "bicubic"))]
    assert set(scores) == {*names, "bicubic"}
    assert scores["enhanced by truth"]["psnr"] > scores["enhanced by bicubic"]["psnr"]
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in printed.splitlines()[2:]] == [f"| {name}" for name in scores]
    with Image.open(out.with_suffix(".png")) as sheet:
        assert sheet.size == (3 * (SIZE + 8), 6 * (SIZE + 8))
    with pytest.raises(InputError, match="exists; name a new file"):
        enhancer.main(Options(run, out))


@pytest.mark.parametrize("size", [24, 64])
def test_sizes_that_do_not_fit(run: Path, tmp_path: Path, size: int):
    with pytest.raises(InputError, match=f"--size {size}: give a multiple of 16"):
        enhancer.main(Options(run, tmp_path / "out.json", size=size, device="cpu"))


def test_one_view_has_no_others(run: Path, tmp_path: Path):
    options = Options(run, tmp_path / "out.json", views=1, kinds=("other-views",), device="cpu")
    with pytest.raises(InputError, match="at least two evaluation views"):
        enhancer.main(options)
