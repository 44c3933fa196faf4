"""The documentation as text: pages, commands in them, links between them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "training/README.md",
        ROOT / "tests/golden/README.md",
        ROOT / "consistent4d_ns/guidance/bundled/MODEL_CARD.md",
    ]
)
FOR_NERFSTUDIO = ROOT / "docs/nerfology/methods/consistent4d.md"
"""In the Markdown of Nerfstudio's documentation."""
REPOSITORY_PATH = re.compile(r"(?:docs|tests|configs|benchmarks|training|consistent4d_ns|\.ci)/[\w./*-]*")
"""Code spans of this form name a file or a folder of this repository."""


def read(page: str | Path) -> str:
    """Text of a page, by its path or by its path below the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Words of each command in the blocks fenced as bash; comments are left out, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def code_spans(text: str) -> list[str]:
    """Contents of inline code."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def table_rows(text: str) -> Iterator[list[str]]:
    """Cells of every row of every table, without the lines below headings."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as the site and Git hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


def broken_links(page: Path, text: str) -> list[str]:
    """Targets of links and pictures that are not there; links to the web are left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))
    return [target for target in targets if not target.startswith("http") and not _resolves(page, text, target)]


def _resolves(page: Path, text: str, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    if not file.exists():
        return False
    return not anchor or anchor in anchors(file.read_text(encoding="utf-8") if name else text)


def missing_paths(text: str) -> list[str]:
    """Code spans that look like paths of this repository, but name nothing in it."""
    named = [span for span in code_spans(text) if REPOSITORY_PATH.fullmatch(span)]
    return [span for span in named if not list(ROOT.glob(span.rstrip("/")))]
