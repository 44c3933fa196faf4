"""Results appear whole or not at all, and only where nothing else is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.files import locks, outputs
from consistent4d_ns.files.outputs import check_whole, new_file, new_folder, refusals


def listing(folder: Path) -> list[str]:
    """Every file below `folder`, hidden ones too."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def fill(
    path: Path, names: tuple[str, ...], overwrite: bool = False, text: str = "new", command: str = "render"
) -> None:
    with new_folder(path, command, overwrite) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)


def test_a_file_appears_when_it_is_complete(tmp_path: Path):
    out = tmp_path / "deep" / "video.mp4"
    with new_file(out) as unfinished:
        assert unfinished.suffix == ".mp4"
        unfinished.write_text("done")
        assert not out.exists()
    assert out.read_text() == "done"
    assert listing(tmp_path) == ["deep/video.mp4"]


@pytest.mark.parametrize("name", ["1.png", "normals/1.png"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_file_of_others_in_the_way_is_not_replaced(tmp_path: Path, name: str, is_folder: bool):
    out = tmp_path / "frames"
    fill(out, ("0.png",), text="old")
    theirs = out / Path(name).parts[0] if not is_folder else out / name
    theirs.mkdir(parents=True) if is_folder else theirs.write_text("theirs")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"1\.png is in the way and not of the earlier output"):
        fill(out, ("0.png", name), overwrite=True)
    assert listing(tmp_path) == before
    assert (out / "0.png").read_text() == "old"
    check_whole(out)
    theirs.rmdir() if is_folder else theirs.unlink()
    fill(out, ("0.png", name), overwrite=True)
    assert (out / name).read_text() == "new"


def write_and_fail(path: Path, error: Exception, overwrite: bool = False) -> None:
    with new_file(path, overwrite) as unfinished:
        unfinished.write_text("half")
        raise error


def fill_and_fail(path: Path, error: Exception) -> None:
    with new_folder(path, "render") as folder:
        (folder / "0.png").write_text("half")
        raise error


@pytest.mark.parametrize("action", [write_and_fail, fill_and_fail])
def test_a_failed_block_leaves_nothing(tmp_path: Path, action):
    with pytest.raises(InputError, match=r"cannot write .*out\.png: No space left on device"):
        action(tmp_path / "out.png", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RuntimeError, match="other"):
        action(tmp_path / "out.png", RuntimeError("other"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_meanwhile_is_named(tmp_path: Path):
    """Not the output, and no word of making room for it."""
    missing = tmp_path / "run" / "config.yml"
    with pytest.raises(InputError) as error, new_file(tmp_path / "toy.glb"):
        missing.read_text()
    assert str(error.value) == (
        f"cannot open {missing}: No such file or directory; check that it is there and may be read."
    )
    with pytest.raises(InputError, match=r"cannot open .*config\.yml"), new_folder(tmp_path / "frames", "render"):
        missing.read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "sub", "toy.glb/texture.png", ".toy.glb-x1y2/toy.glb"])
def test_whatever_fails_in_the_output_s_own_place_is_the_output_s(tmp_path: Path, place: str):
    out = tmp_path / "sub" / "toy.glb"
    failed = tmp_path / place if place in ("", "sub") else out.parent / place
    with pytest.raises(InputError, match=r"cannot write .*toy\.glb: Permission denied; make room"), refusals(out):
        raise PermissionError(errno.EACCES, "Permission denied", str(failed))


def test_a_failed_replacement_keeps_what_was_there(tmp_path: Path):
    out = tmp_path / "a.txt"
    out.write_text("old")
    with pytest.raises(RuntimeError):
        write_and_fail(out, RuntimeError(), overwrite=True)
    assert out.read_text() == "old"


def test_an_existing_file_is_replaced_only_when_asked(tmp_path: Path):
    out = tmp_path / "a.txt"
    out.write_text("old")
    with pytest.raises(InputError, match="exists: give another name, or --overwrite"), new_file(out):
        pass
    assert out.read_text() == "old"
    with new_file(out, overwrite=True) as path:
        path.write_text("new")
    assert out.read_text() == "new"


def test_replacing_a_folder_touches_only_what_was_written(tmp_path: Path):
    out = tmp_path / "frames"
    fill(out, ("0.png", "1.png", "sub/2.png"), text="old")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty: give another folder, or --overwrite"):
        fill(out, ("0.png",))
    fill(out, ("0.png",), overwrite=True)
    assert listing(out) == ["0.png", "manifest.json", "mine.txt"]
    assert (out / "0.png").read_text() == "new"
    assert (out / "mine.txt").read_text() == "mine"


class Killed(BaseException):
    """As kill -9 does, but in this process."""


def killed_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be moved and removed `count` times."""
    left = iter(range(count))
    for name in ("replace", "unlink"):
        real = getattr(Path, name)

        def counted(self: Path, *arguments: Any, real: Any = real, **options: Any) -> Any:
            if outputs.MARKER not in self.name and next(left, None) is None:
                raise Killed
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, name, counted)


@pytest.mark.parametrize("place", ["out", "link", ".", "empty"])
def test_a_folder_that_is_replaced_holds_old_or_new_files_and_says_when_some_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    """Killed after every step; then the next command does it all. Folders of others' files, by a link, from within."""
    old, new, mine = ("0.png", "1.png", "sub/2.png"), ("0.png", "1.png", "3.png"), {"mine.txt": "mine"}
    states, found, whole = set(), {}, [{}, {}]
    for count in range(20):
        out = tmp_path / f"out{count}"
        out.mkdir()
        (tmp_path / f"link{count}").symlink_to(out)
        path = tmp_path / f"link{count}" if place == "link" else out
        if place != "empty":
            fill(out, old, text="old")
            (out / "mine.txt").write_text("mine")
        if place == ".":
            monkeypatch.chdir(out)
            path = Path()
        with monkeypatch.context() as patch, suppress(Killed):
            killed_at(count, patch)
            fill(path, new, overwrite=True)
        found = {name: (out / name).read_text() for name in listing(out) if name != outputs.MANIFEST}
        texts = {text for name, text in found.items() if name != "mine.txt"}
        assert len(texts) < 2, "files of two outputs"
        others = mine if place != "empty" else {}
        whole = [dict.fromkeys(names, text) | others for names, text in ((old, "old"), (new, "new"))]
        states.add(found in whole)
        if found not in whole and found:
            with pytest.raises(InputError, match="is not whole: `consistent4d render` was cut off"):
                check_whole(path)
            with pytest.raises(InputError, match="is not whole"):
                fill(path, new)
        fill(path, ("5.png",), overwrite=True)
        assert [name for name in listing(out) if name != "mine.txt"] == ["5.png", outputs.MANIFEST]
        check_whole(path)
        assert not unfinished(tmp_path)
    assert found == whole[1]
    assert states == {True, False}


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a disk needs root on Linux")
def test_a_disk_of_its_own_is_written_in_it(tmp_path: Path):
    out = tmp_path / "disk"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)], capture_output=True).returncode:
        pytest.skip("this system mounts no disk")
    try:
        fill(out, ("0.png", "1.png"))
        fill(out, ("1.png", "2.png"), overwrite=True)
        assert listing(out) == ["1.png", "2.png", outputs.MANIFEST]
        left_behind("left", out / out.name)
        with pytest.raises(InputError, match="No space left"), new_folder(out, "render", overwrite=True) as folder:
            (folder / "big").write_bytes(bytes(2 << 20))
        assert listing(out) == ["1.png", "2.png", outputs.MANIFEST]
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "{",
        "[]",
        '{"written_by": "someone", "files": []}',
        '{"written_by": "consistent4d render", "files": ["../x"]}',
        '{"written_by": "consistent4d render", "files": ["0.png", "a\\u0000b"]}',
        '{"written_by": "consistent4d render", "files": ["0.png", 1]}',
        '{"written_by": "consistent4d render", "files": {"0.png": 1}}',
        '{"written_by": "consistent4d render", "files": "0.png"}',
        '{"written_by": "consistent4d render"}',
    ],
)
def test_a_folder_of_somebody_else_is_kept(tmp_path: Path, manifest: str | None):
    out = tmp_path / "frames"
    out.mkdir()
    (out / "0.png").write_text("theirs")
    (tmp_path / "x").write_text("theirs")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match="files that are not an earlier output"):
        fill(out, ("0.png",), overwrite=True)
    assert (out / "0.png").read_text() == "theirs"
    assert (tmp_path / "x").read_text() == "theirs"


def test_the_output_of_another_command_is_kept(tmp_path: Path):
    fill(tmp_path / "out", ("0.png",), command="render")
    with pytest.raises(InputError, match="not an earlier output of `consistent4d weights convert`"):
        fill(tmp_path / "out", ("unet.json",), overwrite=True, command="weights convert")
    assert listing(tmp_path) == ["out/0.png", "out/manifest.json"]


@pytest.mark.parametrize("name", [".", "sub/.."])
def test_a_folder_without_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    fill(Path(name), ("0.png", "sub/1.png"))
    assert listing(tmp_path) == ["out/0.png", "out/manifest.json", "out/sub/1.png"]


def test_a_dangling_link_is_kept(tmp_path: Path):
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(InputError, match="out is a link to nowhere, which does not exist: give another folder"):
        fill(tmp_path / "out", ("0.png",), overwrite=True)
    with pytest.raises(InputError, match="out exists: give another name"), new_file(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_free(tmp_path: Path):
    (tmp_path / "frames").mkdir()
    fill(tmp_path / "frames", ("0.png",))
    assert listing(tmp_path / "frames") == ["0.png", "manifest.json"]


def test_places_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("a file")
    with (
        pytest.raises(InputError, match=r"cannot write .*a\.png: .*file is a file; give another place\."),
        new_file(tmp_path / "file" / "a.png"),
    ):
        pass
    with pytest.raises(InputError, match=r"file is a file: give a folder"), new_folder(tmp_path / "file", "render"):
        pass
    with pytest.raises(InputError, match=r"is a folder: give the name of a file"), new_file(tmp_path, overwrite=True):
        pass
    for length in (240, 300):  # Beside the former, the name under which it is written is too long.
        with (
            pytest.raises(InputError, match=r"cannot write .*: File name too long; give a shorter name\."),
            new_file(tmp_path / ("x" * length)),
        ):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and sockets")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    out = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(out)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # Names of sockets are short.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("out")
    elif kind == "device":
        out = Path(os.devnull)
    else:
        os.mkfifo(tmp_path / "pipe")
        out.symlink_to("pipe")
    before = os.lstat(out)
    with (
        pytest.raises(InputError, match=r"is no regular file: give the name of a file\."),
        new_file(out, overwrite=True),
    ):
        pass
    assert os.path.samestat(os.lstat(out), before)


def test_a_link_to_a_file_and_a_dangling_one_are_replaced_when_asked(tmp_path: Path):
    (tmp_path / "file").write_text("theirs")
    for name, target in (("link", "file"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        with new_file(tmp_path / name, overwrite=True) as unfinished:
            unfinished.write_text("new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / "file").read_text() == "theirs"


WRITER = """
import sys, time
from pathlib import Path
from consistent4d_ns.files.outputs import new_file
with new_file(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path):
    """What another one is writing at this moment stays."""
    out = tmp_path / "a.mp4"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    writers[0].send_signal(signal.SIGKILL)
    writers[0].communicate()
    try:
        assert len(unfinished(tmp_path)) == 2
        with new_file(out) as file:
            file.write_text("done")
        (left,) = unfinished(tmp_path)
        assert (left / "a.mp4").read_text() == "half"
    finally:
        writers[1].kill()
        writers[1].communicate()


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(outputs.SCRATCH)]


def left_behind(name: str, out: Path, **changes: object) -> Path:
    """A temporary folder of which nobody writes any more, as one that was killed has left it."""
    folder = out.parent / f".{out.name}-{name:_<8}{outputs.SCRATCH}"
    folder.mkdir()
    (folder / out.name).write_text("half")
    marker = {"written_by": "consistent4d", "process": 7, "locked_on": socket.gethostname()} | changes
    (folder / outputs.MARKER).write_text(json.dumps(marker))
    return folder


@pytest.mark.skipif(locks.fcntl is None, reason="needs locks of folders")
def test_nothing_is_removed_that_somebody_else_made_or_may_still_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However old it is, and however much its name looks like ours."""
    out = tmp_path / "a.mp4"
    mine, settings = left_behind("mine", out), tmp_path / ".a.mp4-settings"
    (mine / outputs.MARKER).unlink()
    settings.mkdir()
    kept = [mine, settings, left_behind("theirs", out, written_by="another program")]
    kept += [
        left_behind("odd", out),
        left_behind("far", out, locked_on="other"),
        left_behind("nolock", out, locked_on=None),
    ]
    (kept[3] / outputs.MARKER).write_text('{"written_by": "consis')
    linked = tmp_path / f".a.mp4-12345678{outputs.SCRATCH}"
    linked.symlink_to(left_behind("else", tmp_path / "b.mp4"))
    left = left_behind("left", out)
    for folder in (*kept, left):
        os.utime(folder, (1e9, 1e9))
    with monkeypatch.context() as patch:  # A file system without locks.
        patch.setattr(locks.fcntl, "flock", fail)
        fill_in(out)
        assert left.is_dir()
    fill_in(out)
    assert not left.exists()
    assert all(folder.is_dir() for folder in (*kept, linked))
    assert sum((folder / "a.mp4").exists() for folder in kept) == 5


def fill_in(out: Path) -> None:
    with new_file(out, overwrite=True) as file:
        file.write_text("done")


def fail(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_marked_folder_is_whose_locks_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with outputs.scratch_beside(tmp_path / "a") as scratch:
        held = json.loads((scratch / outputs.MARKER).read_text())
        assert held["locked_on"] == (socket.gethostname() if locks.fcntl else None)
    monkeypatch.setattr(locks, "fcntl", None)
    with outputs.scratch_beside(tmp_path / "a") as scratch:
        assert json.loads((scratch / outputs.MARKER).read_text())["locked_on"] is None
    assert list(tmp_path.iterdir()) == []
