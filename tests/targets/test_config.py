"""Rounds of target views, the learning rate in them, and what their options refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.targets.config import (
    HoldConfig,
    ImagineConfig,
    TargetsConfig,
    round_at,
    round_labels,
    target_rounds,
)

ON = TargetsConfig(ImagineConfig(steps=250), HoldConfig(steps=1000))


def test_there_are_none_by_default():
    assert target_rounds(TargetsConfig(), GuidanceConfig()) == ()
    TargetsConfig().check(GuidanceConfig(kind="none"))


def test_rounds_follow_each_other():
    rounds = target_rounds(ON, GuidanceConfig())
    assert [(one.begin, one.end, one.strength) for one in rounds] == [
        (0, 250, 1.0),
        (250, 500, 0.8),
        (1000, 2000, None),
    ]
    assert [one.is_imagined for one in rounds] == [True, True, False]
    found = [round_at(rounds, step) for step in (0, 249, 250, 500, 999, 1000, 1999, 2000)]
    expected = [rounds[0], rounds[0], rounds[1], None, None, rounds[2], rounds[2], None]
    assert found == expected
    assert rounds[1].name == "imagined views, round 2 of 2"
    assert round_labels(rounds, "distil") == {0: "round 1", 250: "round 2", 500: "distil", 1000: "hold", 2000: "distil"}


def test_the_learning_rate_falls_while_views_are_held():
    imagined, _, held = target_rounds(ON, GuidanceConfig())
    assert [imagined.rate_factor(step) for step in (0, 100, 249)] == [1.0, 1.0, 1.0]
    assert held.rate_factor(1000) == 1.0
    assert held.rate_factor(1500) == pytest.approx(0.1**0.5)
    assert held.rate_factor(1999) == pytest.approx(0.1, rel=3e-3)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("imagine", {"views": 0}, r"imagine\.views is 0: give at least 1"),
        ("imagine", {"steps": -1}, r"imagine\.steps is -1: give at least 0"),
        ("imagine", {"strengths": (1.5,)}, r"imagine\.strengths .*noise level 1\.5"),
        ("imagine", {"sampling_steps": 900}, r"sampling-steps: .*900 steps from noise level 0\.8"),
        ("imagine", {"scale": float("nan")}, r"imagine\.scale is nan"),
        ("hold", {"rays": 0}, r"hold\.rays is 0"),
        ("imagine", {"views": 10**12}, r"imagine\.views is 1000000000000 .*at most 268435456 pixels"),
        ("hold", {"image_size": 100_000}, r"hold\.image-size 100000: .*at most 268435456 pixels"),
        ("imagine", {"rays": 10**11}, r"imagine\.rays is 100000000000: give 1 to 1048576"),
        ("hold", {"image_size": 0}, r"hold\.image-size is 0"),
        ("hold", {"opacity_range": (0.8, 0.2)}, r"hold\.opacity-range is 0\.8 0\.2"),
        ("hold", {"rgb_factor": -1.0}, r"hold\.rgb-factor is -1\.0: give at least 0"),
        ("hold", {"final_rate": 0.0}, r"hold\.final-rate is 0\.0"),
        ("hold", {"begin_step": 400}, r"round 2 of 2 ends at step 500 and held views begins at 400"),
    ],
)
def test_options_that_cannot_work_are_named(part: str, change: dict[str, Any], words: str):
    config = replace(ON, **{part: replace(getattr(ON, part), **change)})
    with pytest.raises(InputError, match=words):
        config.check(GuidanceConfig())


def test_imagining_needs_a_prior_and_holding_does_not():
    names = [one.name for one in target_rounds(ON, GuidanceConfig())]
    assert names == ["imagined views, round 1 of 2", "imagined views, round 2 of 2", "held views"]
    assert [one.name for one in target_rounds(ON, GuidanceConfig(kind="none"))] == ["held views"]
