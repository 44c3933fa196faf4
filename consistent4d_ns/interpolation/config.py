"""Settings of the interpolation-driven consistency loss (leaf imports only: presets import this module)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class InterpolationConfig:
    """How the targets of the consistency loss are made (method.md section 6)."""

    kind: Literal["rife", "none"] = "rife"
    """Network that interpolates between the first and the last image of a clip; "none" switches the loss off."""
    weights: Path | None = None
    """RIFE weights: a `flownet.pkl` or `.safetensors` file. None: the file that `consistent4d weights rife` stored."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of RIFE's convolutions; flows and warps keep full precision. "auto": fp16 on CUDA, else fp32."""
    scale: float = 1.0
    """Resolution of flow estimation relative to the images': 0.25, 0.5, 1, 2 or 4. The original uses 1; at 64 pixels 2
    interpolates better (by 1.3 dB in benchmarks/rife_psnr.py)."""
    cuda_graphs: bool = True
    """On CUDA, record the network once for each shape of the clip and replay it from then on: one launch for hundreds.
    With `grad_through_rife` nothing is recorded."""
    grad_through_rife: bool = False
    """Whether the first and last image receive gradients through RIFE, too. The original's `mid_no_grad: True` is False
    here: the interpolations are constant targets and only the inner images learn."""
