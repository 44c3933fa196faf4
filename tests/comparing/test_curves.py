"""Loss curves as pictures within a page."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from consistent4d_ns.comparing.curves import HEIGHT, WIDTH, Curve, chart, finest_curves, log_ticks, step_ticks
from consistent4d_ns.record.history import Row


def rows(count: int) -> list[Row]:
    return [
        {"step": i, "rgb_0": 9.0, "rgb_1": 1 / (i + 1), "zero": 0.0, "late": None if i < 50 else 2.0}
        for i in range(count)
    ]


def test_the_finest_level_of_each_term_with_gaps_between_stages():
    curves = finest_curves(rows(2000), [1000])
    assert list(curves) == ["rgb", "late"]  # What is zero throughout has no place on a logarithmic scale.
    steps, values = curves["rgb"].steps, curves["rgb"].values
    assert np.isnan(steps).sum() == 2
    assert {0, 999, 1000, 1999} <= set(steps[np.isfinite(steps)])
    assert len(steps) < 260
    assert values[0] < 1.0
    assert (np.diff(values[np.isfinite(values)]) < 1e-12).all()
    assert np.nanmin(curves["late"].steps) == 50


def test_a_chart_shows_every_run_within_its_frame():
    curves = {
        0: Curve(np.array([0.0, 50.0, math.nan, 60.0]), np.array([1.0, 0.1, math.nan, 0.01])),
        3: finest_curves(rows(90), [])["rgb"],
    }
    picture = ElementTree.fromstring(chart(curves, 100, [40], "rgb"))
    paths = {path.get("data-run"): str(path.get("d")) for path in picture.iter("path")}
    assert list(paths) == ["0", "3"]
    assert re.fullmatch(r"M[\d. ]+L[\d. ]+M[\d. ]+", paths["0"])
    for path in paths.values():
        points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), dtype=float)
        assert (points > 0).all()
        assert (points <= (WIDTH, HEIGHT)).all()
    stage = [line for line in picture.iter("line") if line.get("class") == "stage"]
    (x, y), *_ = re.findall(r"([\d.]+) ([\d.]+)", paths["0"])
    assert float(x) < float(str(stage[0].get("x1"))) < WIDTH
    assert all(float(other) > float(y) for _, other in re.findall(r"([\d.]+) ([\d.]+)", paths["0"])[1:])


def test_a_run_of_one_step_or_one_value_can_be_drawn():
    once = finest_curves(rows(1), [])
    assert "nan" not in chart({0: once["rgb"]}, 0, [], "rgb")
    assert "nan" not in chart({0: finest_curves(rows(60), [])["late"]}, 59, [], "late")


@pytest.mark.parametrize(("low", "high"), [(1e-4, 1.0), (0.011, 0.012), (0.5, 3.0), (1e-30, 1e30)])
def test_ticks_are_few_and_within(low: float, high: float):
    ticks = log_ticks(math.log10(low), math.log10(high))
    assert 2 <= len(ticks) <= 12
    assert all(0.99 * low <= tick <= 1.01 * high for tick in ticks)


@pytest.mark.parametrize(
    ("last", "ticks"), [(0, [0]), (3, [0, 1, 2, 3]), (149, [0, 50, 100]), (2499, [0, 1000, 2000]), (10**30, None)]
)
def test_ticks_of_steps(last: int, ticks: list[int] | None):
    assert step_ticks(last) == ticks if ticks else 3 <= len(step_ticks(last)) <= 6


def test_numbers_out_of_all_proportion_are_drawn_somewhere():
    """As a damaged or hostile history may have them."""
    odd: list[Row] = [{"step": -5, "a": 5e-324, "b": 1e308}, {"step": 10**18, "a": 1e308}, {"step": 3, "a": 1.0}]
    for curve in finest_curves(odd, [0]).values():
        picture = chart({0: curve}, int(curve.last_step), [], "a")
        assert len(picture) < 10_000
        assert not re.search("nan|inf", picture)
