"""What other systems lack is not taken for granted."""

from __future__ import annotations

import ast
import importlib
import os
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import consistent4d_ns
from consistent4d_ns import errors
from consistent4d_ns.device import memory
from consistent4d_ns.files import checkpoints, locks
from consistent4d_ns.setup import machine
from consistent4d_ns.sweeping import processes

FILES = sorted(Path(consistent4d_ns.__file__).parent.rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty"}
"""Modules that Windows lacks."""
GUARDED = {"SIGHUP", "SIGKILL", "fork", "forkpty", "getuid", "geteuid", "killpg", "mkfifo", "sched_getaffinity"} | {
    "setsid",
    "statvfs",
    "sysconf",
}
"""Names in `os` and `signal` that Windows or macOS lack."""


def inside(tree: ast.Module, kinds: tuple[type[ast.AST], ...]) -> set[ast.AST]:
    """All nodes inside of statements of some kinds."""
    return {inner for node in ast.walk(tree) if isinstance(node, kinds) for inner in ast.walk(node)}


def test_modules_of_posix_are_imported_where_they_may_fail():
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tried = inside(tree, (ast.Try,))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX_MODULES & set(names) or node in tried, f"{file.name}:{getattr(node, 'lineno', 0)}"


def test_names_of_posix_are_used_where_there_is_another_way():
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        guarded = inside(tree, (ast.Try, ast.If, ast.IfExp))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in GUARDED:
                assert node in guarded, f"{file.name}:{node.lineno} takes {node.attr} for granted"


def test_no_path_of_one_system_is_written_down():
    """Strings that begin like folders of Linux; but for what documentation and patterns say."""
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert [
            text for text in texts if text.startswith(("/proc/", "/dev/", "/tmp", "/home/", "/etc/", "C:\\"))
        ] == [], file


@pytest.fixture
def windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what Windows lacks."""
    for name in ("fcntl", "resource"):
        monkeypatch.setitem(sys.modules, name, None)
    for owner in (os, signal):
        for name in GUARDED:
            monkeypatch.delattr(owner, name, raising=False)


def reloaded(module: ModuleType) -> SimpleNamespace:
    """A module as it is when imported now; the loaded one stays as it is."""
    specification = importlib.util.find_spec(module.__name__)  # type: ignore[attr-defined]
    assert specification is not None
    assert specification.loader is not None
    fresh = importlib.util.module_from_spec(specification)  # type: ignore[attr-defined]
    sys.modules[f"{module.__name__}.fresh"] = fresh
    try:
        specification.loader.exec_module(fresh)
    finally:
        del sys.modules[f"{module.__name__}.fresh"]
    return SimpleNamespace(**vars(fresh))


def test_without_what_windows_lacks(windows: None, tmp_path: Path):
    assert reloaded(errors).ENDING == (signal.SIGTERM,)
    reloaded(locks).TrainingLock(tmp_path).release()
    assert reloaded(memory).peak_memory("cpu") is None
    assert reloaded(machine)._memory() is None
    assert reloaded(checkpoints)._why_not(tmp_path) == "the system refused to write"
    ended: list[str] = []
    reloaded(processes).kill(SimpleNamespace(pid=1, kill=lambda: ended.append("killed")))
    assert ended == ["killed"]


def test_memory_in_the_unit_of_the_system():
    peak = memory.peak_memory("cpu")
    assert peak is not None
    assert peak == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * memory.RSS_UNIT, rel=0.2)
