"""Zero123 priors in the original authors' layout: a single checkpoint (method.md section 5.4).

The configurations of the diffusers and transformers networks are inferred from tensor shapes, and tensors are renamed
by pairs of name prefixes (original, ours). What the shapes do not determine is fixed: image size, number of attention
heads, VAE scaling factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.diffusers_layout import linear_from
from consistent4d_ns.guidance.networks import Zero123Networks, vae_factor
from consistent4d_ns.guidance.weights import fill, read_tensors, without_weights

IMAGE_SIZE = 256
"""Width and height of the original's images in pixels."""
UNET_HEADS = 8
"""Number of attention heads of the UNet at every level."""
CLIP_HEAD_WIDTH = 64
"""Channels per attention head of OpenAI's CLIP."""
SCALING_FACTOR = 0.18215
"""Factor on the original's latents before diffusion."""

CLIP_EMBEDDINGS = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
"""Tensors of the image tower that belong to no layer: OpenAI's name to transformers' name."""

Tensors = Mapping[str, Tensor]
Renames = Iterator[tuple[str, str]]


def load_checkpoint(path: Path) -> Zero123Networks:
    """Load the prior in the checkpoint `path` (.ckpt or .safetensors) to the CPU, in its saved precision.

    Raises:
        InputError: The file is damaged, has another layout, or is incomplete.
    """
    tensors = read_tensors(path)
    try:
        networks = _from_tensors(tensors, str(path))
    except KeyError as error:
        raise InputError(
            f"{path}: not a Zero123 prior in the original layout, {error.args[0]} is missing; give a whole Zero123 "
            "checkpoint, or the folder of a prior in the diffusers layout."
        ) from error
    networks.check(str(path))
    return networks


def _from_tensors(tensors: Tensors, source: str) -> Zero123Networks:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    unet_tensors, vae_tensors = averaged_unet(tensors), _below("first_stage_model.", tensors)
    clip_tensors = _below("cond_stage_model.model.visual.", tensors)
    vae_settings = vae_config(vae_tensors)
    unet_settings = unet_config(unet_tensors)
    unet_settings["sample_size"] = IMAGE_SIZE // vae_factor(len(vae_settings["block_out_channels"]))
    with without_weights():
        unet, vae = UNet2DConditionModel(**unet_settings), AutoencoderKL(**vae_settings)
        image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**clip_config(clip_tensors)))
    fill(unet, rename(unet_tensors, unet_renames(unet_settings)), f"{source}, model.diffusion_model")
    fill(vae, _flat_attention(rename(vae_tensors, vae_renames(vae_settings))), f"{source}, first_stage_model")
    fill(image_encoder, clip_weights(clip_tensors), f"{source}, cond_stage_model.model.visual")
    projection = linear_from(_below("cc_projection.", tensors), f"{source}, cc_projection")
    return Zero123Networks(unet, vae, image_encoder, projection)


class _Named(dict[str, Tensor]):
    """Tensors whose names had a common prefix; a `KeyError` has the full name of a missing one."""

    def __init__(self, prefix: str, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.prefix = prefix

    def __missing__(self, name: str) -> Tensor:
        raise KeyError(self.prefix + name)


def _below(prefix: str, tensors: Tensors) -> _Named:
    """The tensors whose names begin with a prefix, without it."""
    return _Named(prefix, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def averaged_unet(tensors: Tensors) -> Tensors:
    """Weights of the UNet: the EMA weights if the checkpoint has them (their names have no dots), else the raw ones.

    Raises:
        KeyError: The EMA weights are incomplete.
    """
    raw = _below("model.diffusion_model.", tensors)
    if not any(name.startswith("model_ema.diffusion_model") for name in tensors):
        return raw
    averages = {name: "model_ema." + f"diffusion_model.{name}".replace(".", "") for name in raw}
    return _Named(raw.prefix, {name: tensors[average] for name, average in averages.items()})


def rename(tensors: Tensors, renames: Renames) -> dict[str, Tensor]:
    """Replace name prefixes, the longest one that matches; other names are kept, and `fill` reports them."""
    pairs = dict(renames)
    return {_renamed(name, pairs): value for name, value in tensors.items()}


def _renamed(name: str, pairs: Mapping[str, str]) -> str:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:length])
        if head in pairs:
            return ".".join((pairs[head], *parts[length:]))
    return name


# UNet


def unet_config(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `UNet2DConditionModel`, inferred from the shapes of the original's weights."""
    levels = _unet_levels(tensors)
    attention = [blocks[-1][1] for blocks in levels]
    contexts = (value.shape[1] for name, value in tensors.items() if name.endswith("attn2.to_k.weight"))
    return {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": tuple(blocks[-1][0] for blocks in levels),
        "layers_per_block": len(levels[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "cross_attention_dim": next(contexts, 0),
        "attention_head_dim": UNET_HEADS,
    }


def _unet_levels(tensors: Tensors) -> list[list[tuple[int, bool]]]:
    """For each level, the channels of its encoder blocks and whether they have attention."""
    levels: list[list[tuple[int, bool]]] = [[]]
    for i in range(1, 1 + max((int(k.split(".")[1]) for k in tensors if k.startswith("input_blocks.")), default=0)):
        if f"input_blocks.{i}.0.op.weight" in tensors:
            levels.append([])
            continue
        width = tensors[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0]
        levels[-1].append((width, f"input_blocks.{i}.1.norm.weight" in tensors))
    if not all(levels):
        raise KeyError(f"model.diffusion_model.input_blocks of level {levels.index([])}")
    return levels


def unet_renames(config: Mapping[str, Any]) -> Renames:
    """Prefix pairs (original, diffusers) of a UNet with this configuration."""
    yield from {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "middle_block.1": "mid_block.attentions.0",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }.items()
    yield from _unet_block("middle_block.0", "mid_block.resnets.0")
    yield from _unet_block("middle_block.2", "mid_block.resnets.1")
    yield from _unet_encoder(config)
    yield from _unet_decoder(config)


def _unet_encoder(config: Mapping[str, Any]) -> Renames:
    layers = config["layers_per_block"]
    for level in range(len(config["block_out_channels"])):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            yield from _unet_block(f"input_blocks.{first + layer}.0", f"down_blocks.{level}.resnets.{layer}")
            yield f"input_blocks.{first + layer}.1", f"down_blocks.{level}.attentions.{layer}"
        yield f"input_blocks.{first + layers}.0.op", f"down_blocks.{level}.downsamplers.0.conv"


def _unet_decoder(config: Mapping[str, Any]) -> Renames:
    layers = config["layers_per_block"] + 1
    for level, kind in enumerate(config["up_block_types"]):
        first, attention = level * layers, kind.startswith("CrossAttn")
        for layer in range(layers):
            yield from _unet_block(f"output_blocks.{first + layer}.0", f"up_blocks.{level}.resnets.{layer}")
            if attention:
                yield f"output_blocks.{first + layer}.1", f"up_blocks.{level}.attentions.{layer}"
        upsampler = f"output_blocks.{first + layers - 1}.{1 + attention}.conv"
        yield upsampler, f"up_blocks.{level}.upsamplers.0.conv"


def _unet_block(theirs: str, ours: str) -> Renames:
    inner = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    yield from ((f"{theirs}.{old}", f"{ours}.{new}") for old, new in inner.items())


# VAE


def vae_config(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `AutoencoderKL`, inferred from the shapes of the original's first-stage weights."""
    widths = []
    while f"encoder.down.{len(widths)}.block.0.conv1.weight" in tensors:
        widths.append(tensors[f"encoder.down.{len(widths)}.block.0.conv1.weight"].shape[0])
    layers = sum(k.startswith("encoder.down.0.block.") and k.endswith("conv1.weight") for k in tensors)
    return {
        "latent_channels": tensors["quant_conv.weight"].shape[0] // 2,
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "sample_size": IMAGE_SIZE,
        "scaling_factor": SCALING_FACTOR,
    }


def vae_renames(config: Mapping[str, Any]) -> Renames:
    """Prefix pairs (original, diffusers) of a VAE with this configuration."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for half in ("encoder", "decoder"):
        yield f"{half}.norm_out", f"{half}.conv_norm_out"
        yield from _vae_middle(half)
    for level in range(levels):
        for layer in range(layers):
            yield from _vae_block(f"encoder.down.{level}", f"encoder.down_blocks.{level}", layer)
        # The original numbers decoder levels from the finest, diffusers from the coarsest.
        for layer in range(layers + 1):
            yield from _vae_block(f"decoder.up.{levels - 1 - level}", f"decoder.up_blocks.{level}", layer)
        yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
        yield f"decoder.up.{levels - 1 - level}.upsample.conv", f"decoder.up_blocks.{level}.upsamplers.0.conv"


def _vae_block(theirs: str, ours: str, layer: int) -> Renames:
    yield f"{theirs}.block.{layer}", f"{ours}.resnets.{layer}"
    yield f"{theirs}.block.{layer}.nin_shortcut", f"{ours}.resnets.{layer}.conv_shortcut"


def _vae_middle(half: str) -> Renames:
    yield f"{half}.mid.block_1", f"{half}.mid_block.resnets.0"
    yield f"{half}.mid.block_2", f"{half}.mid_block.resnets.1"
    for old, new in {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}.items():
        yield f"{half}.mid.attn_1.{old}", f"{half}.mid_block.attentions.0.{new}"


def _flat_attention(tensors: Tensors) -> dict[str, Tensor]:
    """Attention weights as matrices; the original stores them as 1x1 convolutions."""
    return {k: v.flatten(1) if ".attentions." in k and v.ndim == 4 else v for k, v in tensors.items()}


# CLIP


def clip_config(tensors: Tensors) -> dict[str, Any]:
    """Arguments of `CLIPVisionConfig`, inferred from the shapes of OpenAI's image tower."""
    width, _, patch, _ = tensors["conv1.weight"].shape
    positions = tensors["positional_embedding"].shape[0]
    return {
        "hidden_size": width,
        "intermediate_size": tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": sum(name.endswith("attn.in_proj_weight") for name in tensors),
        "num_attention_heads": width // CLIP_HEAD_WIDTH,
        "image_size": patch * math.isqrt(positions - 1),
        "patch_size": patch,
        "projection_dim": tensors["proj"].shape[1],
        "hidden_act": "quick_gelu",
    }


def clip_weights(tensors: Tensors) -> dict[str, Tensor]:
    """The weights of OpenAI's image tower with transformers' names, and separate query, key and value."""
    separate = {}
    for name, value in tensors.items():
        if ".attn.in_proj_" in name:
            block, kind = name.split(".in_proj_")
            separate |= {f"{block}.{n}_proj.{kind}": part for n, part in zip("qkv", value.chunk(3), strict=True)}
        elif name == "proj":
            separate["visual_projection.weight"] = value.T.contiguous()
        else:
            separate[CLIP_EMBEDDINGS.get(name, name)] = value
    return rename(separate, clip_renames(clip_config(tensors)["num_hidden_layers"]))


def clip_renames(layers: int) -> Renames:
    """Prefix pairs (OpenAI, transformers) of an image tower with this number of layers."""
    yield "conv1", "vision_model.embeddings.patch_embedding"
    yield "ln_pre", "vision_model.pre_layrnorm"
    yield "ln_post", "vision_model.post_layernorm"
    inner = {
        "attn": "self_attn",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for i in range(layers):
        for old, new in inner.items():
            yield f"transformer.resblocks.{i}.{old}", f"vision_model.encoder.layers.{i}.{new}"
