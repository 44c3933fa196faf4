"""Priors are fetched from the hub whole and unaltered, or one line says why not: a server of our own is the hub."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.files import disks
from consistent4d_ns.guidance.hub import PUBLISHED, fetch, fetch_unaltered
from consistent4d_ns.guidance.hub_cache import cached
from consistent4d_ns.guidance.random_prior import random_networks
from tests.guidance.layouts import hub_folder
from tests.support.hub import Hub, files_of, served, use_address

PRIOR = PUBLISHED["zero123-xl"]
UNET = "unet/diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A prior as the hub has it, with a page and code beside it that nobody needs."""
    folder = hub_folder(random_networks("small", "cpu", seed=0), tmp_path_factory.mktemp("hub"))
    return files_of(folder) | {"README.md": b"# A prior", "pipeline.py": b"raise SystemExit"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def server(files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits before it tries again
    with served(Hub(files), cache, monkeypatch) as hub:
        yield hub


def refusal() -> str:
    """The one line with which fetching ends."""
    with pytest.raises(InputError) as error:
        fetch_unaltered(PRIOR)
    assert "\n" not in str(error.value)
    assert "consistent4d weights" not in str(error.value), "the command that has just failed is no remedy"
    return str(error.value)


def leftovers(cache: Path) -> list[str]:
    """Files of a download that did not end."""
    return [path.name for path in cache.rglob("*.incomplete")]


def test_what_is_needed_is_fetched_once(server: Hub, files: dict[str, bytes], cache: Path) -> None:
    folder, there = fetch_unaltered(PRIOR)
    assert not there
    assert folder == cached(PRIOR)
    needed = {name: content for name, content in files.items() if name not in ("README.md", "pipeline.py")}
    assert files_of(folder) == needed
    assert sorted(server.sent) == sorted((name, 0) for name in needed)
    assert leftovers(cache) == []
    assert fetch_unaltered(PRIOR) == (folder, True)
    assert fetch(PRIOR) == folder
    assert len(server.sent) == len(needed)


def test_a_broken_connection_is_resumed(server: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.cut[UNET] = 10_000
    folder, _ = fetch_unaltered(PRIOR)
    assert (folder / UNET).read_bytes() == files[UNET]
    assert [begin for name, begin in server.sent if name == UNET] == [0, 10_000]


def test_whole_files_of_an_interrupted_download_are_kept(server: Hub, cache: Path) -> None:
    server.broken.add(UNET)
    assert "download failed" in refusal()
    assert cached(PRIOR) is None
    assert leftovers(cache) == []
    server.broken.clear()
    before = len(server.sent)
    fetch_unaltered(PRIOR)
    assert (UNET, 0) in server.sent[before:]
    assert len(server.sent[before:]) + before == len({name for name, _ in server.sent})


@pytest.mark.parametrize("kind", ["an altered byte", "a pointer", "cut off"])
def test_what_is_not_listed_is_not_kept(server: Hub, files: dict[str, bytes], cache: Path, kind: str) -> None:
    content = files[UNET]
    altered = {
        "an altered byte": content[:-1] + bytes([content[-1] ^ 1]),
        "a pointer": POINTER,
        "cut off": content[:99],
    }
    server.replaced[UNET] = altered[kind]
    message = refusal()
    if kind == "an altered byte":
        assert f"what arrived as {UNET} is not what the hub lists, and was removed" in message
    assert cached(PRIOR) is None
    assert leftovers(cache) == []
    server.replaced.clear()
    folder, _ = fetch_unaltered(PRIOR)
    assert (folder / UNET).read_bytes() == content


def test_an_altered_file_in_the_cache_is_replaced(server: Hub, files: dict[str, bytes]) -> None:
    folder, _ = fetch_unaltered(PRIOR)
    for name in (UNET, "vae/config.json"):
        blob = (folder / name).resolve()
        blob.chmod(0o644)
        blob.write_bytes(b"x" + files[name][1:])
    before = len(server.sent)
    assert fetch_unaltered(PRIOR) == (folder, False)
    assert sorted(server.sent[before:]) == [(UNET, 0), ("vae/config.json", 0)]
    assert (folder / UNET).read_bytes() == files[UNET]


def test_a_prior_without_its_settings_is_not_whole(server: Hub) -> None:
    folder, _ = fetch_unaltered(PRIOR)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert cached(PRIOR) is None
    assert fetch(PRIOR) == folder == cached(PRIOR)


def test_no_space_is_told_before_the_download(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "free_space", lambda _: 1000)
    assert "GB are free; make room, or set HF_HOME" in refusal()
    assert server.sent == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_disk_refuses_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "blob")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert f": {os.strerror(number)}; make room, or set HF_HOME" in refusal()


def test_a_cache_that_cannot_be_written(server: Hub, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    message = refusal()
    assert message.startswith(f"cannot write to {cache}: ")
    assert "set HF_HOME" in message


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    use_address("http://127.0.0.1:9", cache, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "not in the hub's cache, and http://127.0.0.1:9 cannot be reached" in refusal()
    assert not cache.exists()
    with pytest.raises(InputError, match="Get it with `consistent4d weights zero123-xl`"):
        fetch(PRIOR)


@pytest.mark.slow
def test_ctrl_c_ends_a_download_at_once(server: Hub, files: dict[str, bytes], cache: Path) -> None:
    """In a process of its own, while the server stands still; what was whole before is not fetched again."""
    server.stalls[UNET] = threading.Event()
    command = [sys.executable, "-m", "consistent4d_ns.cli.main", "weights", "zero123-xl"]
    env = os.environ | {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert server.stalled.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    server.stalls.pop(UNET).set()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "Interrupted."
    assert leftovers(cache) == []
    assert cached(PRIOR) is None
    before = len(server.sent)
    fetch_unaltered(PRIOR)
    assert (UNET, 0) in server.sent[before:]
    assert not {name for name, _ in server.sent[:before]} & {name for name, _ in server.sent[before:]} - {UNET}


def test_two_at_once(server: Hub, files: dict[str, bytes], cache: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch_unaltered(PRIOR)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cached(PRIOR)] * 2
    assert (folders[0] / UNET).read_bytes() == files[UNET]
    assert leftovers(cache) == []
