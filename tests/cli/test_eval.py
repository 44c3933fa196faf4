"""`consistent4d eval` from renderings and from a run: tables, files, and what it says where something is missing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.cli.eval import Options, evaluate
from consistent4d_ns.cli.main import main
from consistent4d_ns.data.stills import read_plain
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.images import on_white
from tests.support.metric_weights import store_small_networks
from tests.support.tiny import FRAMES, SIZE, tiny_run

FILES = ["manifest.json", "metrics.csv", "metrics.json", "metrics.md", "metrics.tex"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def views(root: Path, name: str, *, count: int = 4, frames: int = 9, error: int = 0) -> Path:
    """An object of noisy images; `error` is added to all values."""
    for view in range(count):
        for frame in range(frames):
            image = np.random.default_rng(100 * view + frame).integers(40, 200, (16, 16, 3)) + error
            path = root / name / f"eval_{view}" / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path)
    return root


def values(out: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What a JSON file says by object, view and protocol."""
    return {
        (row.pop("object"), row.pop("view"), row.pop("protocol")): row
        for row in json.loads((out / "metrics.json").read_text())["values"]
    }


def refusal(**options: Any) -> str:
    with pytest.raises(InputError) as raised:
        evaluate(Options(**options))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.slow
def test_all_metrics_and_files(tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]):
    """Two objects: PSNR as worked out by hand, FVD over one and over both, and LPIPS, which is not there."""
    store_small_networks(cache)
    for name, error in (("Fox", 10), ("B_1", 30)):
        views(tmp_path / "gt", name, count=2)
        views(tmp_path / "pred", name, count=2, error=error)
    main(["eval", "--gt", str(tmp_path / "gt"), "--pred", str(tmp_path / "pred"), "--out", str(tmp_path / "out")])
    printed = capfd.readouterr()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES
    found = values(tmp_path / "out")
    psnr = [20 * np.log10(255 / error) for error in (10, 30)]
    assert found["Fox", "eval_1", "correct"]["psnr"] == pytest.approx(psnr[0], abs=0.1)
    assert found["mean", "mean", "correct"]["psnr"] == pytest.approx(np.mean(psnr), abs=0.1)
    assert found["Fox", "eval_1", "original"]["psnr"] < found["Fox", "eval_1", "correct"]["psnr"]  # range below 255
    assert found["Fox", "mean", "correct"].keys() == {"clip", "ssim", "psnr", "fvd", "fvd_v", "fvd_d", "fv4d"}
    assert found["Fox", "eval_0", "original"].keys() == {"clip", "ssim", "psnr", "fvd"}
    assert found["Fox", "mean", "original"]["fvd"] == pytest.approx(
        np.mean([found["Fox", f"eval_{i}", "original"]["fvd"] for i in range(2)])
    )
    assert found["Fox", "mean", "correct"]["fvd"] < found["B_1", "mean", "correct"]["fvd"]
    assert found["mean", "mean", "correct"]["fvd"] > 0
    assert "lpips" in printed.out + printed.err
    assert "`consistent4d weights metrics` fetches them; what needs them is left out." in printed.out + printed.err
    assert "published figures are of 32 frames" in printed.out + printed.err
    assert "Fox: images: 18/18" in printed.err
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert len(rows) == len(found) == 2 * (4 + 2) + 2
    latex = (tmp_path / "out" / "metrics.tex").read_text()
    assert "B\\_1 &" in latex
    assert latex.index("all 2 &") > latex.index("Fox &")
    assert "| Fox | eval_0 |" in (tmp_path / "out" / "metrics.md").read_text()


@pytest.mark.slow
def test_equal_images(tmp_path: Path, cache: Path):
    """The best values there are; JSON has no infinity. A single clip has no covariance, so that FVD is left out."""
    store_small_networks(cache)
    evaluate(Options(views(tmp_path, "Fox", count=1) / "Fox", tmp_path / "Fox", out=tmp_path / "out"))
    best = values(tmp_path / "out")["mean", "mean", "correct"]
    assert best.pop("psnr") == "inf"
    assert best.pop("ssim") == pytest.approx(1)
    assert best.pop("clip") == pytest.approx(1, abs=1e-6)
    assert best == {"fvd_v": pytest.approx(0, abs=1e-3), "fv4d": pytest.approx(0, abs=1e-3)}


def test_views_and_frames_that_are_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The original still divides by four; both compare what is there."""
    views(tmp_path / "gt", "Fox", count=3)
    views(tmp_path / "pred", "Fox", count=2, error=10)
    views(tmp_path / "pred", "Extra", count=1)
    (tmp_path / "pred" / "Fox" / "eval_1" / "4.png").unlink()
    evaluate(Options(tmp_path / "gt", tmp_path / "pred", metrics=("psnr",), out=tmp_path / "out"))
    found = values(tmp_path / "out")
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ", 1)[1].split(";")[0].split(", which")[0] for line in lines] == [
        f"{tmp_path}/gt lacks Extra",
        "Fox: the prediction lacks eval_2",
        "Fox/eval_1: 8 predicted frames, 9 true ones",
        "Fox: 2 of the views eval_0 to eval_3 are there",
    ]
    per_view = [found["Fox", f"eval_{i}", "original"]["psnr"] for i in range(2)]
    assert per_view[1] < per_view[0] - 5  # frames after the missing one are compared with others
    assert found["Fox", "mean", "original"]["psnr"] == pytest.approx(sum(per_view) / 4)
    correct = [found["Fox", view, "correct"]["psnr"] for view in ("eval_0", "eval_1", "mean")]
    assert correct[0] == pytest.approx(correct[1], abs=0.1)
    assert correct[2] == pytest.approx(np.mean(correct[:2]))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"] == [line[9:] for line in lines]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either --pred, a folder of renderings, or --run"),
        ({"pred": "gt", "size": 64}, "--size is for --run"),
        ({"pred": "gt", "metrics": ("lpips", "fvd")}, "nothing is left to compute"),
        ({"pred": "gt", "metrics": ()}, "--metrics is empty"),
        ({"pred": "nowhere"}, "nowhere is no folder"),
        ({"pred": "other"}, "have no object in common"),
        ({"pred": "empty"}, "empty holds no views"),
        ({"pred": "gt", "out": "gt"}, "gt is not empty"),
        ({"run": ("nowhere",)}, "nowhere"),
        ({"run": ("nowhere",), "size": 5}, "--size 5: give a number of pixels"),
        ({"run": ("a", "b"), "objects": ("Fox",)}, "--objects has 1 names for 2 runs"),
        ({"run": ("a", "b"), "data": Path("x")}, "--data is for one --run"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str):
    views(tmp_path / "gt", "Fox", count=1, frames=1)
    views(tmp_path / "other", "Cat", count=1, frames=1)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    paths: dict[str, Callable[[Any], Any]] = {"pred": Path, "out": Path, "run": lambda names: tuple(map(Path, names))}
    assert said in refusal(gt=Path("gt"), **{key: paths.get(key, lambda x: x)(value) for key, value in options.items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of a few steps."""
    return tiny_run(tmp_path_factory.mktemp("runs"), 60)


@pytest.mark.slow
def test_a_run(run: Path, tmp_path: Path):
    """Its renderings score as they do when they are kept and read again; a camera elsewhere scores worse."""
    toy = run.parents[3] / "toy"
    options: dict[str, Any] = {"metrics": ("psnr",)}
    evaluate(Options(toy, run=(run,), out=tmp_path / "run", keep=tmp_path / "kept", **options))
    evaluate(Options(toy, tmp_path / "kept" / "toy", out=tmp_path / "kept_out", **options))
    assert values(tmp_path / "run") == values(tmp_path / "kept_out")
    image = read_plain(tmp_path / "kept" / "toy" / "eval_3" / f"{FRAMES - 1}.png")
    truth = on_white(read_plain(toy / "eval_3" / f"{FRAMES - 1}.png"))
    assert image.shape == truth.shape == (SIZE, SIZE, 3)
    bare = Path(shutil.copytree(toy, tmp_path / "bare", ignore=shutil.ignore_patterns("meta.json", "eval_4", "eval_5")))
    evaluate(Options(bare, run=(run,), out=tmp_path / "paper", **options))
    paper, known = values(tmp_path / "paper"), values(tmp_path / "run")
    for view in ("eval_0", "eval_1", "eval_2", "eval_3"):  # the toy has the paper's cameras there
        assert paper["bare", view, "correct"] == known["toy", view, "correct"]
    evaluate(Options(bare, run=(run,), azimuths=(105, 195, -75, 15), out=tmp_path / "turned", **options))
    turned = values(tmp_path / "turned")["mean", "mean", "correct"]
    assert turned["psnr"] != paper["mean", "mean", "correct"]["psnr"]


@pytest.mark.slow
def test_several_runs(run: Path, tmp_path: Path):
    """One table and its mean; objects are found by what a run was trained on, or as they are named."""
    toy = run.parents[3] / "toy"
    gt = tmp_path / "gt"
    for name in ("toy", "Fox"):
        shutil.copytree(toy, gt / name)
    other = run.with_name("other")
    if not other.exists():
        shutil.copytree(run, other)
    options: dict[str, Any] = {"metrics": ("psnr",), "size": 16, "out": tmp_path / "out", "overwrite": True}
    for _ in range(2):  # the second time, earlier output is replaced
        evaluate(Options(gt, run=(run, other), objects=("toy", "Fox"), keep=tmp_path / "kept", **options))
    assert len(list((tmp_path / "kept" / "Fox" / "eval_5").iterdir())) == FRAMES
    assert {key[0] for key in values(tmp_path / "out")} == {"toy", "Fox", "mean"}
    evaluate(Options(gt, run=(run, other), **options))
    assert {key[0] for key in values(tmp_path / "out")} == {f"toy/{run.name}", "toy/other", "mean"}
    options["overwrite"] = False
    assert "two runs are named toy/other" in refusal(gt=gt, run=(other, other), metrics=("psnr",))
    assert "kept/Fox is not empty" in refusal(
        gt=gt, run=(run,), objects=("Fox",), keep=tmp_path / "kept", metrics=("psnr",)
    )
    shutil.rmtree(gt / "toy")
    assert "name the run's object with --objects" in refusal(gt=gt, run=(run, other), metrics=("psnr",))
