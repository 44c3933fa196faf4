"""How commands end: in one line where a user can act on it or pressed Ctrl-C, else with a traceback."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from consistent4d_ns.cli.progress import progress
from consistent4d_ns.errors import (
    EXPORTER_REMEDY,
    Ended,
    InputError,
    hide_nerfstudio_warnings,
    line_of,
    show_input_errors_in_one_line,
)
from tests.support.tiny import tiny_pipeline, toy_folder

ENDINGS = [
    (InputError("no frames: give some."), "error: no frames: give some.", 2),
    (KeyboardInterrupt(), "Interrupted.", 130),
    (Ended(15), "Ended by SIGTERM.", 143),
    (
        PermissionError(13, "no entry", b"a/b"),
        "error: a/b: no entry; give another path, or change what it leads to.",
        2,
    ),
]


def write_half(frames: Iterable[int], error: BaseException) -> None:
    """A consumer of frames that fails at the second one, and whose frame holds the bar's generator."""
    for frame in frames:
        if frame == 1:
            raise error


def render_half(error: BaseException) -> None:
    write_half(progress(range(4), "Rendering", 4), error)


def test_a_bar_appears_only_when_there_is_something_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    frames = progress(range(2), "Rendering", 2)
    assert capsys.readouterr().err == ""
    assert list(frames) == [0, 1]
    assert "2/2" in capsys.readouterr().err


@pytest.fixture
def previous(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """Kinds of exceptions that the interpreter's own hook was given, after ours was put before it."""
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: seen.append(kind))
    show_input_errors_in_one_line()
    show_input_errors_in_one_line()
    return seen


def uncaught(action: Callable[[], Any]) -> Any:
    """What the interpreter does with an exception that nothing catches; the exit code that the hook asks for."""
    try:
        action()
    except BaseException as error:
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as end:
            return end.code
    return None


@pytest.mark.parametrize(("error", "line"), [ending[:2] for ending in ENDINGS])
def test_nerfstudio_s_commands_end_in_one_line(
    error: BaseException, line: str, previous: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code = uncaught(lambda: render_half(error))
    assert code == (None if isinstance(error, KeyboardInterrupt) else 2)
    *_, bar, last = capsys.readouterr().err.splitlines()
    assert bar.startswith("Rendering")
    assert last == line
    assert previous == []


def test_other_exceptions_go_to_the_previous_hook(previous: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise AssertionError("of our own")

    uncaught(fail)
    uncaught(lambda: [][1])
    assert previous == [AssertionError, IndexError]
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_pipeline(toy_folder(tmp_path_factory.mktemp("data")), priors=False)


@pytest.mark.parametrize(
    "export", ["ExportPointCloud", "ExportPoissonMesh", "ExportMarchingCubesMesh", "ExportGaussianSplat"]
)
def test_exports_of_nerfstudio_that_do_not_fit_point_to_ours(
    export: str, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not needed before the assertions, and not importable on every machine.
    for package in ("open3d", "pymeshlab"):
        monkeypatch.setitem(sys.modules, package, mock.MagicMock())
    from nerfstudio.scripts import exporter

    monkeypatch.setattr(exporter, "eval_setup", lambda *_, **__: (None, pipeline, None, 0))
    with pytest.raises(AssertionError) as raised:
        getattr(exporter, export)(load_config=tmp_path / "config.yml", output_dir=tmp_path).main()
    assert line_of(raised.value) == f"error: {EXPORTER_REMEDY}"
    assert "consistent4d export mesh" in EXPORTER_REMEDY


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """Warnings that reach the terminal while those of Nerfstudio are hidden."""
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        hide_nerfstudio_warnings()
        yield messages


def test_only_warnings_of_nerfstudio_are_hidden(shown: list[warnings.WarningMessage]) -> None:
    for module in ("nerfstudio.cameras.cameras", "nerfstudio.utils.writer", "consistent4d_ns.runs", "nerfstudio_other"):
        warnings.warn_explicit("deprecated", UserWarning, f"{module}.py", 1, module=module)
    assert [message.filename for message in shown] == ["consistent4d_ns.runs.py", "nerfstudio_other.py"]


def test_filters_of_the_user_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    before = list(warnings.filters)
    hide_nerfstudio_warnings()
    assert warnings.filters == before
