"""The two heads of a K-planes level: raw density and raw colour of its features, and the density's spatial gradient.

Computed by torch, or on CUDA by one Triton kernel (see `heads_kernel`).
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.device import kernels
from consistent4d_ns.errors import InputError
from consistent4d_ns.field.types import HeadImplementation, HeadValues, HeadWeights

FUSED_WEIGHTS = 1024
"""Most weights to the hidden layer that the kernel accepts: a program keeps them and their gradients in registers."""


def make_head(inputs: int, hidden: int, outputs: int, implementation: HeadImplementation) -> nn.Module:
    """One bias-free hidden layer with ReLU, linear output.

    Raises:
        InputError: `tcnn` is asked for where tinycudann or a CUDA device is missing.
    """
    if implementation != "tcnn":
        layers = (nn.Linear(inputs, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, outputs, bias=False))
        return nn.Sequential(*layers)
    try:
        import tinycudann as tcnn  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # OSError: it is installed, but there is no CUDA device
        raise InputError(
            f"implementation 'tcnn' needs tinycudann and a CUDA device ({error}): install it "
            "(https://github.com/NVlabs/tiny-cuda-nn) or use --pipeline.model.implementation torch."
        ) from error
    network = {
        "otype": "FullyFusedMLP" if hidden in (16, 32, 64, 128) else "CutlassMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": hidden,
        "n_hidden_layers": 1,
    }
    return tcnn.Network(inputs, outputs, network)


def head_values(
    density_head: nn.Module,
    colour_head: nn.Module | None,
    features: Float[Tensor, "points channels"],
    jacobian: Float[Tensor, "points 3 channels"] | None,
) -> HeadValues:
    """The heads' outputs for the features of a level.

    Args:
        density_head: Head with one output.
        colour_head: Head with three outputs; None where no colour is needed.
        features: Combined plane features.
        jacobian: Their derivatives along x, y, z, for torch heads only; None where no gradient is wanted.
    """
    if runs_fused(density_head, features):
        from consistent4d_ns.field.heads_kernel import fused_head_values

        colour = None if colour_head is None else head_weights(colour_head)
        return fused_head_values(head_weights(density_head), colour, features, jacobian)
    return HeadValues(
        density_head(features).squeeze(-1).to(features.dtype),
        None if colour_head is None else colour_head(features).to(features.dtype),
        None if jacobian is None else density_gradient(density_head, features, jacobian),
    )


def runs_fused(head: nn.Module, features: Tensor) -> bool:
    """Whether the kernel can be used: a head that it accepts, float32 on CUDA, Triton installed."""
    return fits_kernel(head) and kernels.usable(features)


def fits_kernel(head: nn.Module) -> bool:
    """Whether the kernel accepts a head: torch's, within `FUSED_WEIGHTS`."""
    return isinstance(head, nn.Sequential) and head_weights(head)[0].numel() <= FUSED_WEIGHTS


def head_weights(head: nn.Module) -> HeadWeights:
    """Weights of a torch head."""
    first, _, last = cast(tuple[nn.Linear, nn.ReLU, nn.Linear], tuple(cast(nn.Sequential, head)))
    return first.weight, last.weight


def density_gradient(
    head: nn.Module, features: Float[Tensor, "points channels"], jacobian: Float[Tensor, "points 3 channels"]
) -> Float[Tensor, "points 3"]:
    """Derivatives along x, y, z of the output of a torch head."""
    first, last = head_weights(head)
    # The mask of active hidden units is piecewise constant, so it has no gradient.
    active = (features.detach() @ first.detach().T > 0).to(features.dtype)
    in_features = active @ (last.T * first)
    return (jacobian * in_features[:, None]).sum(dim=-1)
