"""Frozen diffusers networks with fewer passes over memory and less of it: channels last, norm and activation fused.

Besides convolutions, UNet and VAE are limited by memory bandwidth: transposing between memory layouts, group norm,
activation, biases, and divisions by one. `fuse` replaces residual blocks by equivalent ones with fewer such passes,
which also store less for their backward pass: gradients go to the input only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.device.kernels import has_triton, launch
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import Implementation

if TYPE_CHECKING:
    from consistent4d_ns.guidance.networks import Zero123Networks

BLOCK_PIXELS, BLOCK_CHANNELS = 32, 64
"""Tile that one program of a kernel processes at a time."""
FEW_PIXELS = 4096
"""Images up to this number of pixels are summed in smaller parts, to occupy the whole GPU."""


def runs_fused(implementation: Implementation, device: torch.device) -> bool:
    """Whether a `PriorConfig.implementation` means fused networks on `device`.

    Raises:
        InputError: Fused networks are asked for where they cannot run.
    """
    possible = device.type == "cuda" and has_triton()
    if implementation == "fused" and not possible:
        raise InputError(
            "--pipeline.guidance.implementation fused needs a CUDA device and Triton; choose auto or torch."
        )
    return possible and implementation != "torch"


def fuse_networks(networks: Zero123Networks) -> None:
    """Replace parts of the frozen UNet and VAE encoder by faster equivalents, in place."""
    for part in (networks.unet, networks.vae.encoder):
        fuse(cast(nn.Module, part))
    if networks.image_tokens == 1:
        shorten_cross_attention(networks.unet)


def fuse(network: nn.Module) -> None:
    """Make a frozen network channels last and replace its residual blocks and norms, in place; needs Triton.

    Blocks of unusual kinds (resampling, time-dependent scale, another activation) stay as they are.
    """
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    # Not `network.to`: diffusers narrows its arguments.
    nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
    modules: list[Any] = list(network.modules())
    for module in modules:
        for name, child in list(module.named_children()):
            if isinstance(child, ResnetBlock2D) and _is_plain(child):
                setattr(module, name, ResidualBlock(child))
        if isinstance(module, Transformer2DModel) and isinstance(module.norm, nn.GroupNorm):
            setattr(module, "norm", FusedNorm(module.norm, silu=False))  # noqa: B010, type checkers want nn.GroupNorm
        norm, activation = (getattr(module, name, None) for name in ("conv_norm_out", "conv_act"))
        if isinstance(norm, nn.GroupNorm) and isinstance(activation, nn.SiLU):
            module.conv_norm_out, module.conv_act = FusedNorm(norm, silu=True), nn.Identity()


def shorten_cross_attention(unet: nn.Module) -> None:
    """Replace cross attention to a single token by its closed form, in place."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import Attention

    modules: list[Any] = list(unet.modules())
    for module in modules:
        if not isinstance(module, BasicTransformerBlock) or module.norm_type != "layer_norm":
            continue
        if isinstance(module.attn2, Attention) and module.attn2.is_cross_attention:
            setattr(module, "norm2", nn.Identity())  # noqa: B010, type checkers want a norm and an attention
            setattr(module, "attn2", SingleTokenAttention(module.attn2))  # noqa: B010


class SingleTokenAttention(nn.Module):
    """Cross attention to one token, whose attention weight is 1 whatever queries and keys are."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.to_v, self.to_out = attention.to_v, attention.to_out

    def forward(
        self,
        hidden_states: Float[Tensor, "images pixels channels"],
        encoder_hidden_states: Float[Tensor, "images 1 context"],
        attention_mask: None = None,
    ) -> Float[Tensor, "images 1 channels"]:
        """The same for all pixels, so the first argument has no effect."""
        return self.to_out[0](self.to_v(encoder_hidden_states))


def _is_plain(block: Any) -> bool:
    return (
        block.time_embedding_norm == "default"
        and block.upsample is None
        and block.downsample is None
        and not block.skip_time_act
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.output_scale_factor == 1.0
        and block.conv1.bias is not None
    )


class ResidualBlock(nn.Module):
    """Equivalent of diffusers' `ResnetBlock2D`, with parameters of the same names."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = FusedNorm(block.norm1, silu=True), FusedNorm(block.norm2, silu=True)
        self.conv1, self.conv2, self.conv_shortcut = block.conv1, block.conv2, block.conv_shortcut
        self.time_emb_proj = block.time_emb_proj

    def forward(
        self, x: Float[Tensor, "images channels h w"], temb: Float[Tensor, "images embedding"] | None = None
    ) -> Float[Tensor, "images out h w"]:
        """The block's output for its input and the embedded timesteps."""
        offset = self.conv1.bias[None]
        if self.time_emb_proj is not None and temb is not None:
            offset = offset + self.time_emb_proj(F.silu(temb))
        hidden = frozen_convolution(self.norm1(x), self.conv1, with_bias=False)
        hidden = frozen_convolution(self.norm2(hidden, offset), self.conv2)
        shortcut = x if self.conv_shortcut is None else frozen_convolution(x, self.conv_shortcut)
        return shortcut + hidden


class FusedNorm(nn.Module):
    """Group norm of input plus offset, then optionally SiLU; parameters named as in `nn.GroupNorm`."""

    zeros: Tensor

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__()
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("zeros", torch.zeros_like(norm.weight)[None], persistent=False)

    def forward(
        self, x: Float[Tensor, "images channels h w"], offset: Float[Tensor, "_ channels"] | None = None
    ) -> Float[Tensor, "images channels h w"]:
        """Normalised `x`; `offset`, one row or one per image, receives no gradient."""
        offset = self.zeros if offset is None else offset
        return _Norm.apply(x, offset, self.weight, self.bias, self.groups, self.eps, self.silu)  # type: ignore


class _Norm(torch.autograd.Function):
    """Stores only the input for the backward pass, not the values between norm and activation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        kernels, x = _kernels(), x.contiguous(memory_format=torch.channels_last)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        grid, grid_of_sums, rows = _grids(images, channels, pixels)
        stride = 0 if len(offset) == 1 else offset.stride(0)
        partial, factors = _sums(x, grid_of_sums[1]), _sums(x)
        y, of_groups = torch.empty_like(x), _blocks_of_groups(channels // groups)
        blocks, sizes = (BLOCK_PIXELS, BLOCK_CHANNELS), (grid_of_sums[1], pixels, channels, groups)
        launch(kernels.sum_moments, grid_of_sums, x, offset, stride, partial, pixels, channels, rows, *blocks)
        launch(kernels.find_factors, (images, groups), partial, offset, stride, factors, *sizes, eps, *of_groups)
        launch(kernels.normalise, grid, x, factors, weight, bias, y, pixels, channels, silu, *blocks)
        ctx.save_for_backward(x, factors, weight, bias)
        ctx.groups, ctx.silu = groups, silu
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, factors, weight, bias = ctx.saved_tensors
        kernels, upstream = _kernels(), upstream.contiguous(memory_format=torch.channels_last)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        grid, grid_of_sums, rows = _grids(images, channels, pixels)
        partial, means, gradient = _sums(x, grid_of_sums[1]), _sums(x), torch.empty_like(x)
        known, of_groups = (x, upstream, factors, weight, bias), _blocks_of_groups(channels // ctx.groups)
        blocks, sizes = (BLOCK_PIXELS, BLOCK_CHANNELS), (grid_of_sums[1], pixels, channels, ctx.groups)
        launch(kernels.sum_products, grid_of_sums, *known, partial, pixels, channels, ctx.silu, rows, *blocks)
        launch(kernels.find_means, (images, ctx.groups), partial, means, *sizes, *of_groups)
        launch(kernels.pull_back, grid, *known, means, gradient, pixels, channels, ctx.silu, *blocks)
        return gradient, None, None, None, None, None, None


def _kernels() -> Any:
    # Imported here: Triton comes with torch on Linux only.
    from consistent4d_ns.guidance import norm_kernels

    return norm_kernels


def _grids(images: int, channels: int, pixels: int) -> tuple[tuple[int, int, int], tuple[int, int, int], int]:
    """Grids of the kernels that write images and of those that sum, and the pixels per program of the latter."""
    rows = (4 if pixels <= FEW_PIXELS else 16) * BLOCK_PIXELS
    blocks = -(-channels // BLOCK_CHANNELS)
    return (images, -(-pixels // BLOCK_PIXELS), blocks), (images, -(-pixels // rows), blocks), rows


def _sums(x: Tensor, parts: int = 1) -> Tensor:
    """Uninitialised memory for two numbers per image, part and channel."""
    return x.new_empty((x.shape[0], parts, 2, x.shape[1]), dtype=torch.float32)


def _blocks_of_groups(size: int) -> tuple[int, int]:
    """Tile of parts and channels (a power of two) in which a group's sums are added."""
    return 16, max(2, 1 << (size - 1).bit_length())


def frozen_convolution(
    x: Float[Tensor, "images channels h w"], conv: nn.Conv2d, with_bias: bool = True
) -> Float[Tensor, "images out _ _"]:
    """A convolution that stores no input for its backward pass, because its weights need no gradient."""
    return _FrozenConvolution.apply(x, conv, conv.bias if with_bias else None)  # type: ignore


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d, bias: Tensor | None) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        conv: nn.Conv2d = ctx.conv
        # Only its layout is used, for the gradient; its values are not read.
        like_input = torch.empty(
            ctx.shape, dtype=upstream.dtype, device=upstream.device, memory_format=torch.channels_last
        )
        upstream = upstream.contiguous(memory_format=torch.channels_last)
        settings = (conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups, [True, False, False])
        gradient, _, _ = torch.ops.aten.convolution_backward(upstream, like_input, conv.weight, None, *settings)
        return gradient, None, None
