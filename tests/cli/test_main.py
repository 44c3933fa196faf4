"""The `consistent4d` command as a whole, in this process: help, version, Ctrl-C, and the small commands."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import consistent4d_ns
from consistent4d_ns.cli.main import main
from consistent4d_ns.media.camera_paths import read_path

COMMANDS = (
    *(
        "batch",
        "camera-path",
        "compare",
        "demo",
        "doctor",
        "enhance",
        "eval",
        "finetune",
        "render",
        "sweep",
        "toy",
        "view",
    ),
    *("weights", "weights list", "weights rife", "weights zero123-xl", "weights stable-zero123"),
    "weights stable-diffusion",
    *("weights metrics", "weights convert"),
    *("export", "export mesh", "export points", "export splats", "export usd", "export web"),
)
SLOW = (
    *("torch", "torchvision", "nerfstudio", "diffusers", "transformers", "viser"),
    *("av", "matplotlib", "scipy", "trimesh", "skimage", "PIL"),
)
"""Packages whose import takes between a tenth of a second and ten seconds."""


def test_help_texts_import_nothing_slow() -> None:
    """All of them in one fresh process."""
    program = f"""
import sys
from consistent4d_ns.cli.main import main
for command in ("", *{COMMANDS}):
    try:
        main([*command.split(), "-h"])
    except SystemExit as end:
        assert not end.code, command
assert not (slow := set({SLOW}) & set(sys.modules)), slow
"""
    env = os.environ | {"COLUMNS": "120"}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage: consistent4d") == 1 + len(COMMANDS)
    assert result.stderr == ""
    assert "beside " not in result.stdout
    assert "(default: )" not in result.stdout
    assert "None" not in result.stdout
    lines = [line.strip(" │") for line in result.stdout.splitlines()]
    assert not [line for line, following in pairwise(lines) if line == following == ""], result.stdout


def test_help_joins_the_lines_of_a_docstring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a function, and of the dataclasses that it takes."""
    monkeypatch.setenv("COLUMNS", "300")
    assert end_of("render", "--help") == 0
    printed = capsys.readouterr().out
    assert "or a name without suffix for a folder of PNG frames with alpha. (required)" in printed
    assert "as many as the video takes at" in printed
    assert end_of("export", "mesh", "--help") == 0
    assert "whose silhouettes agree best with those of the volume rendering." in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100])
def test_help_breaks_no_words(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ("batch", "export web", "weights convert"):
        assert end_of(*command.split(), "--help") == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) == width, command
        description = list(itertools.takewhile(bool, lines[2:]))
        assert all(len(line) + len(after.split()[0]) >= width for line, after in pairwise(description))


def test_help_breaks_its_list_of_commands_between_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert end_of("--help") == 0
    usage = list(itertools.takewhile(bool, capsys.readouterr().out.splitlines()))
    assert len(usage) > 1
    assert all(line.startswith(" " * len("usage: ")) for line in usage[1:])
    named = " ".join(usage).partition("{")[2].partition("}")[0]
    assert {name.strip() for name in named.split(",")} >= {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("width", ["0", "1", "5", "no number"])
def test_help_ends_on_a_terminal_that_is_far_too_narrow(width: str) -> None:
    program = "from consistent4d_ns.cli.main import main; main(['export', 'mesh', '--help'])"
    env = os.environ | {"COLUMNS": width}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage:")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(("command", "code"), [("render --help", 0), ("toy --unknown", 2)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_commands_end_as_usual_where_their_output_is_closed(command: str, code: int, closed: str) -> None:
    line = f"{sys.executable} -c 'from consistent4d_ns.cli.main import main; main()' {command} {closed}"
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert result.returncode == code
    assert "Traceback" not in result.stdout + result.stderr


def test_none_may_still_be_given_where_help_does_not_show_it(tmp_path: Path) -> None:
    main(["camera-path", "orbit", str(tmp_path / "a.json"), "--frames", "2", "--times", "None"])
    main(["camera-path", "orbit", str(tmp_path / "b.json"), "--frames", "2"])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"consistent4d_ns {consistent4d_ns.__version__}\n"


def end_of(*arguments: str) -> Any:
    """The exit code of a command that ends the process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_a_wrong_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of("orbit") == 2
    assert end_of("toy") == 2
    assert "required" in capsys.readouterr().err


def test_a_misspelt_command_is_named_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of("prepair", "clip.mp4") == 2
    assert "prepair is not a command of consistent4d: did you mean prepare?" in capsys.readouterr().err
    assert end_of("export", "mehs", "run", "out.glb") == 2
    assert "mehs is not a command of consistent4d export: did you mean mesh?" in capsys.readouterr().err
    assert end_of("export", "qqq") == 2
    assert "qqq is not a command of consistent4d export: `consistent4d export --help` lists" in capsys.readouterr().err


def test_ctrl_c_leaves_one_line_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from consistent4d_ns.toy import sequence

    images = iter(range(5))
    render = sequence.render

    def render_until_interrupted(*arguments: Any) -> Any:
        if next(images) == 3:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(sequence, "render", render_until_interrupted)
    assert end_of("toy", str(tmp_path / "toy"), "--size", "8", "--frames", "2") == 130
    first, *_, bar, last = capsys.readouterr().err.splitlines()
    assert first == "Loading PyTorch ..."
    assert "3/14" in bar
    assert last == "Interrupted."
    assert list(tmp_path.iterdir()) == []


def test_toy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (str(tmp_path / "toy"), "--size", "8", "--frames", "2")
    main(["toy", *options])
    assert sorted(path.name for path in (tmp_path / "toy" / "eval_5").iterdir()) == ["0.png", "1.png"]
    printed = capsys.readouterr()
    assert f"ns-train consistent4d-mini --data {tmp_path / 'toy'}" in printed.out
    assert "14/14" in printed.err
    assert end_of("toy", *options) == 2
    error = capsys.readouterr().err
    assert "is not empty: give another folder, or --overwrite" in error
    assert "Rendering" not in error
    main(["toy", *options, "--overwrite"])


def test_camera_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.json"
    main(["camera-path", "frozen-orbits", str(out), "--times", "0", "1", "--frames", "2", "--size", "64", "48"])
    written = read_path(out)
    assert [frame["render_time"] for frame in written["camera_path"]] == [0, 0, 1, 1]
    assert (written["render_width"], written["render_height"]) == (64, 48)
    assert f"--camera-path-filename {out}" in capsys.readouterr().out
    assert end_of("camera-path", "orbit", str(tmp_path / "b.json"), "--times", "1.5") == 2
    error = "error: time 1.5 of --times is outside 0..1: 0 is the first frame, 1 the last.\n"
    assert capsys.readouterr().err == error
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch would end the process with an error of its own."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert end_of("weights") == 2
    assert capsys.readouterr().err.startswith("error: the current folder does not exist any more")
