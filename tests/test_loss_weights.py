"""Weights of loss terms: numbers however they are given, one per level where there are levels."""

from __future__ import annotations

import math

import pytest
import torch

from consistent4d_ns.errors import InputError
from consistent4d_ns.loss_weights import LossWeights, per_level, split_level
from consistent4d_ns.schedules import Anneal


def test_whole_numbers_are_numbers():
    """From Python and from YAML, where 1 is not 1.0; also without the brackets of one value for all levels."""
    weights = LossWeights(sparsity=1, sds=(1, 2), rgb=3, mask=[4])  # type: ignore[arg-type]
    weights.check(2)
    assert [weights.at(name, 0) for name in ("sparsity", "sds_1", "rgb_0", "rgb_1", "mask_1")] == [1, 2, 3, 3, 4]
    assert all(type(weight) is float for weight in weights.at_step(0, 2).values())


def test_all_terms_of_a_step():
    weights = LossWeights(sds=(0.1, 0.2, 0.3), orientation=Anneal(1.0, 3.0, 10)).at_step(5, 3)
    assert weights["orientation"] == 2.0
    assert [weights[f"sds_{level}"] for level in range(3)] == [0.1, 0.2, 0.3]
    assert weights["rgb_2"] == 500.0
    assert weights["normal_smoothness_2d"] == 0.0
    assert len(weights) == 6 * 3 + 6


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_levels_is_refused(count: int):
    with pytest.raises(InputError, match=rf"loss-weights\.mask has {count} values for 3 levels"):
        LossWeights(mask=(1.0,) * count).check(3)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_are_no_weights_are_refused(weight: float):
    for weights in (LossWeights(sds=(0.1, weight)), LossWeights(orientation=Anneal(1.0, weight, 10))):
        with pytest.raises(
            InputError, match=r"loss-weights\.(sds|orientation) is .*: give a finite number of at least 0"
        ):
            weights.check(2)


def test_names_of_levels():
    named = per_level("rgb", torch.tensor([1.0, 2.0]))
    assert {name: float(value) for name, value in named.items()} == {"rgb_0": 1.0, "rgb_1": 2.0}
    assert split_level("rgb_1") == ("rgb", 1)
    assert split_level("normal_smoothness_3d") == ("normal_smoothness_3d", 0)
