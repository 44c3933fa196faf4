"""requirements.lock agrees with constraints.txt, and has a digest for every package."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_lock_has_the_versions_that_are_known_to_work():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [Requirement(line) for line in lines]
    locked: dict[str, set[str]] = {}
    text = (ROOT / "requirements.lock").read_text()
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), set()).add(version)
    known: dict[str, str] = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(locked.keys() & known.keys()) > 250
    assert {name: locked[name] for name in locked.keys() & known.keys() if known[name] not in locked[name]} == {}
    assert len(locked.keys() - known.keys()) < 12, "packages that only Python 3.10 needs"


def test_every_package_of_the_lock_has_a_digest():
    text = (ROOT / "requirements.lock").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert len(entries) > 250
    assert [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []
