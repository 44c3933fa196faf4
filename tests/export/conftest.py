"""Runs, and other programs that show what was exported."""

from __future__ import annotations

import pytest

from consistent4d_ns.runs import Run
from tests.export.objects import ball_run


@pytest.fixture(scope="session")
def ball(tmp_path_factory) -> Run:
    """The ball as if it had been trained."""
    return ball_run(tmp_path_factory.mktemp("ball"))
