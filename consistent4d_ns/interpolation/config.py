"""Settings of the interpolation-driven consistency loss (leaf imports only: presets import this module)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class InterpolationConfig:
    """The network that interpolates the targets of the consistency loss (method.md section 6)."""

    kind: Literal["rife", "none"] = "rife"
    """Network that interpolates between the first and the last image of a clip; "none" disables the loss."""
    weights: Path | None = None
    """RIFE weights: a `flownet.pkl` or `.safetensors` file. None: the file that `consistent4d weights rife` stored."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of RIFE's convolutions; flows and warps keep full precision. "auto": fp16 on CUDA, else fp32."""
    scale: float = 1.0
    """Resolution of flow estimation relative to the images': 0.25, 0.5, 1, 2 or 4. The original uses 1; at 64 pixels 2
    interpolates better (by 1.3 dB in benchmarks/rife_psnr.py)."""
    cuda_graphs: bool = True
    """On CUDA, capture the network once per shape of the clip and replay it from then on: one launch instead of
    hundreds. Not used with `grad_through_rife`."""
    grad_through_rife: bool = False
    """Whether the first and last image also receive gradients, through RIFE. False, the original's `mid_no_grad: True`:
    the interpolations are constant targets and only the inner images receive gradients."""
