"""Messages on the terminal."""

from __future__ import annotations

import pytest

from consistent4d_ns.messages import say, warn


def test_a_message_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]):
    """Paths and values may hold what rich takes for markup, colour or an emoji, and long ones are not wrapped."""
    text = "/data/[red]a[/red]/:car:/" + 300 * "x"
    say(text)
    warn(text)
    assert capsys.readouterr().out.splitlines() == [text, f"warning: {text}"]
