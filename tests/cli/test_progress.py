"""Progress on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

import pytest

from consistent4d_ns.cli.progress import progress


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(100), "Rendering", 100)) == list(range(100))
    shown = capsys.readouterr().err
    assert shown == "".join(f"Rendering: {done}/100\n" for done in range(0, 101, 20))


@pytest.mark.parametrize("total", [1, 3, 7])
def test_the_last_plain_line_says_that_all_is_done(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(total), "Exporting", total)) == list(range(total))
    first, *_, last = capsys.readouterr().err.splitlines()
    assert (first, last) == (f"Exporting: 0/{total}", f"Exporting: {total}/{total}")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(4), "Rendering", 4)) == list(range(4))
    shown = capsys.readouterr().err
    assert "\rRendering: 100%|" in shown
    assert "4/4" in shown
