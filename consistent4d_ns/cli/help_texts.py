"""What the help of several commands shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

NO_DEFAULT = tyro.conf.arg(help_behavior_hint="")
"""For an option that is empty by default: its help says in words what happens then."""
RunArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""The run that a command is about: its folder or its config.yml."""
OutArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
"""What a command writes."""
