"""Fields whose parameters are recorded together with their outputs."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from consistent4d_ns.field.cascade import CascadeKPlanes


def recorded_name(parameter: str) -> str:
    """The name of a field parameter in the recorded files."""
    name = re.sub(r"levels\.(\d+)\.planes\.(\d+)", r"grids.\1.\2", parameter)
    return re.sub(r"levels\.(\d+)\.(density|feature)_head\.(\d+)", r"\2_network.\1.layers.\3", name)


def recorded_field(arrays: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype) -> CascadeKPlanes:
    """The field that `config`, in the original's terms, describes, with its recorded parameters."""
    channels = [arrays[f"state.grids.{level}.0"].shape[1] for level in range(len(config["grid_size"]))]
    field = CascadeKPlanes(
        config["grid_size"],
        channels,
        hidden=config.get("mlp_network_config", {}).get("n_neurons", 32),
        reduction="hybrid" if config["hybrid"] else "product",
        blob="gaussian" if config["density_bias"] == "blob_dreamfusion" else "linear",
    ).to(dtype)
    field.load_state_dict({name: arrays[f"state.{recorded_name(name)}"].to(dtype) for name in field.state_dict()})
    return field
