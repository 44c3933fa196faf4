"""What the help of several commands shares."""

from __future__ import annotations

import tyro

NO_DEFAULT = tyro.conf.arg(help_behavior_hint="")
"""For an option that is empty by default: its help says in words what happens then."""
