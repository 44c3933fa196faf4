"""The orders in which FVD and SV4D's variants of it (Xie et al. 2024) see the images of an object as clips.

The images are a matrix: a row for each view, a column for each time.
"""

from __future__ import annotations

Cell = tuple[int, int]
"""View and time of an image."""
Order = list[Cell]
"""The images of a clip."""


def over_frames(views: int, times: int) -> list[Order]:
    """FVD and FVD-F: a clip for each view, through all times."""
    return [[(view, time) for time in range(times)] for view in range(views)]


def over_views(views: int, times: int) -> list[Order]:
    """FVD-V: a clip for each time, through all views."""
    return [[(view, time) for view in range(views)] for time in range(times)]


def over_diagonals(views: int, times: int) -> list[Order]:
    """FVD-D: from each view on, once through all views while time passes from first to last."""
    return [[((first + time * views // times) % views, time) for time in range(times)] for first in range(views)]


def over_everything(views: int, times: int) -> list[Order]:
    """FV4D: all images in a line that runs to and fro, once along the times and once along the views."""
    rows = [cell for view, row in enumerate(over_frames(views, times)) for cell in row[:: -1 if view % 2 else 1]]
    columns = [cell for time, row in enumerate(over_views(views, times)) for cell in row[:: -1 if time % 2 else 1]]
    return [rows, columns]


ORDERS = {"fvd": over_frames, "fvd_v": over_views, "fvd_d": over_diagonals, "fv4d": over_everything}
"""The clips of each metric."""
