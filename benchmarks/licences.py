"""Writes docs/licences.md: the licences of the installed packages of requirements.lock, as their metadata state them.

    python -m benchmarks.licences

Asks pip-licenses (`pip install pip-licenses`). A licence that is given as a whole text is named by its first line.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
LOCK = ROOT / "requirements.lock"
SILENT = "not stated"
"""Of packages whose metadata are silent."""
WORDS = (
    (r"\blicen[cs]e\b|\bsoftware\b|^the\b|,? version\b|^LicenseRef-", ""),
    (r"\s+", " "),
    (r"^UNKNOWN$", SILENT),
    (r"^isc\b.*", "ISC"),
    (r"^(new )?bsd.*3.*|^3-clause.*", "BSD-3-Clause"),
    (r"^bsd.*2.*", "BSD-2-Clause"),
    (r"^bsd$", "BSD (which of them is not stated)"),
    (r"^(freebsd|simplified bsd)$", "BSD-2-Clause"),
    (r"^apache( 2\.0|-2\.0)?$", "Apache-2.0"),
    (r"^mit.*copyright.*|^mit$", "MIT"),
    (r"^copyright.*", "BSD-2-Clause"),
    (r"^python ?foundation$|^psf.*", "PSF-2.0"),
    (r"^mozilla public.*|^mpl.*2\.0$", "MPL-2.0"),
    (r"^gnu general public v3.*|^gpl3$", "GPL-3.0"),
    (r"^(other/proprietary|nvidia-proprietary|nvidia proprietary)$", "NVIDIA Proprietary"),
)
"""Patterns of what packages write, and the usual names."""
INTRODUCTION = """# Licences of what is installed

`python -m benchmarks.licences` writes this page by [pip-licenses](https://pypi.org/project/pip-licenses/) from the
metadata of the packages in `requirements.lock`, those for developers included. What the package itself imports, and
why, is in [Design](design.md#dependencies). Weights and their licences are listed by `consistent4d weights`, and
explained in [Priors](priors.md).

None of the packages is part of this repository or of its wheel. Those under the GPL (pymeshlab, plyfile), under
NVIDIA's terms (CUDA) and for non-commercial use (nuscenes-devkit) are dependencies of Nerfstudio or of PyTorch; no
module of this package imports them.

| licence | packages | |
|---|---|---|
"""


def usual_name(licence: str) -> str:
    """A licence's usual name."""
    text = " ".join(licence.split())
    for pattern, word in WORDS:
        short = re.sub(pattern, word, text.strip(), flags=re.IGNORECASE).strip()
        text = short or text
    return text


def main() -> None:
    """Ask, group, write."""
    locked = set(re.findall(r"^([\w.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    asked = subprocess.run([sys.executable, "-m", "piplicenses", "--format=json"], capture_output=True, check=True)
    groups: dict[str, set[str]] = defaultdict(set)
    for package in json.loads(asked.stdout):
        name = re.sub(r"[-_.]+", "-", package["Name"]).lower()
        if name in locked:
            groups[usual_name(package["License"])].add(name)
    rows = [f"| {licence} | {len(names)} | {', '.join(sorted(names))} |" for licence, names in sorted(groups.items())]
    PAGE.write_text(INTRODUCTION + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{PAGE}: {sum(map(len, groups.values()))} of {len(locked)} packages")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
