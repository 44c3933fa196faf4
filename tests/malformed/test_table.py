"""Every malformed input is refused in one clear line, soon, in bounded memory, and nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.malformed.cases import Case
from tests.malformed.running import run_case
from tests.malformed.table import CASES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and rights are those of Linux"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_in_one_line(case: Case, tmp_path: Path):
    place = tmp_path / "place"
    place.mkdir()
    outcome = run_case(case, place)
    assert not outcome.faults(case), outcome.printed[-3000:]


def test_the_table_is_as_long_as_the_documentation_says():
    assert len({case.name for case in CASES}) == len(CASES) >= 80
