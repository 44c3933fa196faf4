"""All rows of the table of malformed inputs."""

from __future__ import annotations

from tests.malformed.frames import FRAME_CASES, META_CASES
from tests.malformed.options import OPTION_CASES
from tests.malformed.runs import PATH_CASES, RUN_CASES, WRITING_CASES
from tests.malformed.weights import WEIGHT_CASES

CASES = [*FRAME_CASES, *META_CASES, *RUN_CASES, *PATH_CASES, *WRITING_CASES, *WEIGHT_CASES, *OPTION_CASES]
