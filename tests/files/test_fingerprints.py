"""Files that were copied or touched are the same, and others are not, whatever their times say."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from consistent4d_ns.files import fingerprints
from consistent4d_ns.files.fingerprints import Fingerprint, differing, fingerprint


def is_unchanged(files: dict[str, Path], earlier: Fingerprint) -> bool:
    return not differing(fingerprint(files, earlier), earlier)


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files."""
    (tmp_path / "a").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "a" / name).write_text(name)
    return tmp_path / "a"


def test_what_is_copied_or_touched_is_the_same(folder: Path, tmp_path: Path):
    earlier = fingerprint(files(folder))
    os.utime(folder / "0.png", (1e9, 1e9))
    assert is_unchanged(files(folder), earlier)
    shutil.copytree(folder, tmp_path / "b")
    assert is_unchanged(files(tmp_path / "b"), earlier)
    assert fingerprint(files(folder)).stamp != earlier.stamp


def test_other_contents_names_or_files_are_not(folder: Path):
    earlier, time = fingerprint(files(folder)), (folder / "0.png").stat().st_mtime_ns
    (folder / "0.png").write_text("9.png")
    os.utime(folder / "0.png", ns=(time, time))
    assert not is_unchanged(files(folder), earlier), "of the same size and time"
    (folder / "0.png").write_text("0.png")
    assert is_unchanged(files(folder), earlier)
    (folder / "2.png").write_text("")
    assert not is_unchanged(files(folder), earlier)
    (folder / "2.png").unlink()
    (folder / "1.png").rename(folder / "3.png")
    assert not is_unchanged(files(folder), earlier)
    (folder / "3.png").unlink()
    assert not is_unchanged(files(folder), earlier)
    assert not is_unchanged({"0.png": folder / "0.png", "1.png": folder / "1.png"}, earlier), "one is gone"


def test_nothing_is_read_where_sizes_and_times_agree(folder: Path, monkeypatch: pytest.MonkeyPatch):
    earlier = fingerprint(files(folder))
    monkeypatch.setattr(fingerprints, "_digests", None)
    assert fingerprint(files(folder), earlier) is earlier


def test_what_cannot_be_read_is_no_error(folder: Path):
    odd = {"folder": folder, "gone": folder / "gone", **files(folder)}
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        odd["pipe"] = folder / "pipe"
    assert is_unchanged(odd, fingerprint(odd))


def test_as_text(folder: Path):
    earlier = fingerprint(files(folder))
    assert Fingerprint.parsed(json.loads(json.dumps(dataclasses.asdict(earlier)))) == earlier
    empty = {"stamp": 1, "files": {}}
    for wrong in ({}, {"stamp": "a"}, empty, *({"stamp": "a", "files": files} for files in ({"b": 1}, 1))):
        with pytest.raises((TypeError, LookupError)):
            Fingerprint.parsed(wrong)
