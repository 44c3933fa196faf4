"""Which files of a folder are frames that a step reads; what else lies beside them is none of its data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypeAlias

from natsort import natsorted

from consistent4d_ns.data.numbering import find_series
from consistent4d_ns.data.prepared import COMPANIONS
from consistent4d_ns.data.stills import PLAIN_TYPES, STILL_TYPES
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.layout import number_of
from consistent4d_ns.preparing.layouts import CUT_OUT

Frames: TypeAlias = Literal["frames", "footage", "views"]


def counted(reads: Frames, names: Collection[str]) -> set[str]:
    """Which files of a folder are read, by their names alone; other pictures may lie beside frames.

    All of them, where they are no frames that the step would take: then it says what is wrong with them.

    Args:
        reads: "frames" as the data parser reads them, "footage" as `consistent4d prepare` does, "views" as
            `consistent4d eval` does.
        names: Names of the files; an empty one stands for a file that is given itself.
    """
    if "" in names:
        return set(names)
    if reads == "views":
        return {name for name in names if number_of(name) is not None} or set(names)
    types = STILL_TYPES if reads == "frames" else PLAIN_TYPES
    pictures = natsorted(name for name in names if name.lower().endswith(types) and name not in COMPANIONS)
    if reads == "footage":
        pictures = [name for name in pictures if Path(name).stem.endswith(CUT_OUT)] or pictures
    try:
        return set(find_series("", pictures).names if pictures else names)
    except InputError:
        return set(names)
