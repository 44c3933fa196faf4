"""The page as HTML: everything is within it, and its policy forbids it to load anything."""

from __future__ import annotations

import base64
import gzip
import json
import re
from datetime import date
from html import escape
from importlib.resources import files

from consistent4d_ns import __version__
from consistent4d_ns.export.gltf import y_up
from consistent4d_ns.export.web.content import Content
from consistent4d_ns.media.pages import filled

ROOM = files("consistent4d_ns.export.web")
"""Where the parts of the page are that do not depend on the run."""
DESCRIPTION = "A moving object in 3D, reconstructed by Consistent4D from one video. Only the input view was filmed."
"""What the page is about."""
PROMPT_DESCRIPTION = "An object in 3D, made from a prompt by Consistent4D."
"""The same where nothing was filmed."""


def web_page(content: Content) -> str:
    """The page of a run."""
    library = (ROOM / "three.min.js").read_text(encoding="utf-8")
    parts = {
        "title": escape(content.title),
        "name": escape(file_name(content.title)),
        "description": escape(DESCRIPTION if content.pictures else PROMPT_DESCRIPTION),
        "home": "view that was filmed" if content.pictures else "front view",
        "no_input": "" if content.pictures else " hidden",
        "megabytes": f"{len(content.glb) / 1e6:.1f}",
        "poster": picture_url(content.poster),
        "thumbnail": picture_url(content.thumbnail),
        "side": str(content.side),
        "last": str(len(content.timeline) - 1),
        "style": (ROOM / "page.css").read_text(encoding="utf-8"),
        "script": (ROOM / "page.js").read_text(encoding="utf-8"),
        "setting": setting(content),
        # Compressed: base64 takes a third more than it encodes.
        "model": text_of(gzip.compress(content.glb, mtime=0)),
        "library": library,
        "three": escape(three_version(library)),
        "licence": escape((ROOM / "three.LICENSE").read_text(encoding="utf-8")),
        "version": escape(__version__),
        "date": date.today().isoformat(),
    }
    return filled(ROOM / "page.html", parts)


def setting(content: Content) -> str:
    """What the script has to know, as JSON that holds numbers and base64 alone."""
    (position,) = y_up(content.view.poses()[:, :, 3].cpu().numpy()).tolist()
    return json.dumps(
        {
            "frames": len(content.timeline),
            "fps": content.timeline.fps,
            "camera": position,
            "pictures": [text_of(picture) for picture in content.pictures],
            "shown": content.shown,
        }
    )


def file_name(title: str) -> str:
    """A title as the name of a file that every system accepts."""
    return re.sub(r"[^\w-]+", "_", title).strip("_")[:80] or "object"


def three_version(library: str) -> str:
    """What the first line of the bundled three.js says of itself."""
    return library.partition("*/")[0].removeprefix("/*").strip()


def picture_url(webp: bytes) -> str:
    """An address that holds a picture."""
    return f"data:image/webp;base64,{text_of(webp)}"


def text_of(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode("ascii")
