"""The networks that CLIP score, LPIPS and FVD compare images by, with weights from the user's cache.

Nothing is downloaded here, and no file is run: weights are safetensors that `consistent4d weights metrics` wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.i3d import I3D, IMAGE_SIZE, SHORTEST, parameter_names
from consistent4d_ns.evaluation.images import Picture, as_tensor, clip_input
from consistent4d_ns.evaluation.weights import Network, weight_file

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

HEAD_WIDTH = 64
"""Width of CLIP's attention heads, in all of its sizes."""
CLIP_LAYERS = "vision_model.encoder.layers."
"""Beginning of the names of a layer's parameters."""
TRUNK = "features."
"""Beginning of the names of VGG16's convolutions."""
Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class ClipScore:
    """Cosine of CLIP's embeddings of two images (ViT-B/32)."""

    network: CLIPVisionModelWithProjection
    """The image encoder."""

    @torch.no_grad()
    def __call__(self, predicted: Picture, truth: Picture) -> float:
        """The score of two pictures of 512 pixels; 1 where they are equal."""
        device = next(self.network.parameters()).device
        pixels = torch.cat([clip_input(predicted), clip_input(truth)]).to(device)
        one, other = self.network(pixel_values=pixels).image_embeds
        return float(torch.cosine_similarity(one, other, dim=0))


@dataclass(frozen=True)
class Lpips:
    """LPIPS with the trunk of VGG16 (Zhang et al. 2018)."""

    network: nn.Module
    """torchmetrics' implementation."""

    @torch.no_grad()
    def __call__(self, predicted: Picture, truth: Picture) -> float:
        """Distance of two pictures; 0 where they are equal."""
        device = next(self.network.parameters()).device
        one, other = (as_tensor(picture).to(device) / 127.5 - 1.0 for picture in (predicted, truth))
        return float(self.network(one, other))


@dataclass(frozen=True)
class Backbones:
    """The networks that are there; None where one is not."""

    clip: ClipScore | None = None
    """For CLIP score."""
    lpips: Lpips | None = None
    """For LPIPS."""
    i3d: I3D | None = None
    """For FVD."""


def load_backbones(wanted: Sequence[Network], device: torch.device | str) -> tuple[Backbones, list[str]]:
    """The networks whose weights are there, and a line for each whose are not or cannot be used.

    Args:
        wanted: Which of them are needed.
        device: Where they compute.
    """
    build = {"clip": build_clip, "lpips": build_lpips, "i3d": build_i3d}
    networks: dict[str, Any] = {}
    absent = []
    for name in wanted:
        try:
            tensors = {key: value.to(device) for key, value in read_weights(name).items()}
            networks[name] = build[name](tensors)
        except InputError as error:
            absent.append(str(error))
    return Backbones(**networks), absent


def read_weights(name: Network) -> dict[str, Tensor]:
    """The parameters of a network in the cache.

    Raises:
        InputError: they are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path, remedy = weight_file(name), "`consistent4d weights metrics` fetches them"
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"the weights for {name} are not at {path}: {remedy}.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"the weights for {name} at {path} are damaged ({error}): {remedy}.") from error


def build_clip(tensors: Parameters) -> ClipScore:
    """CLIP's image encoder, of the size that its parameters have.

    Raises:
        InputError: they are those of another network.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    try:
        width, _, patch, _ = tensors["vision_model.embeddings.patch_embedding.weight"].shape
        positions = len(tensors["vision_model.embeddings.position_embedding.weight"])
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=len(tensors[f"{CLIP_LAYERS}0.mlp.fc1.weight"]),
            projection_dim=len(tensors["visual_projection.weight"]),
            num_hidden_layers=len({name.split(".")[3] for name in tensors if name.startswith(CLIP_LAYERS)}),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            image_size=patch * math.isqrt(positions - 1),
            patch_size=patch,
            hidden_act="quick_gelu",
        )
        network = CLIPVisionModelWithProjection(config)
    except (KeyError, ValueError) as error:
        raise InputError(f"CLIP's weights have another layout ({error}): those of ViT-B/32 are needed.") from error
    return ClipScore(filled(network, tensors, "CLIP").eval())


def build_lpips(tensors: Parameters) -> Lpips:
    """LPIPS on the convolutions of VGG16; the weights of its layers come with torchmetrics.

    Raises:
        InputError: the parameters are those of another network.
    """
    # The public function would download all of VGG16 (528 MB) unasked.
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="vgg", pnet_rand=True)
    # torchmetrics has VGG16's layers, numbered as there, in five slices.
    names = {name: f"{TRUNK}{name.split('.', 1)[1]}" for name in network.net.state_dict()}
    try:
        trunk = {name: tensors[stored] for name, stored in names.items()}
    except KeyError as error:
        raise InputError(f"VGG16's weights lack {error}: those of torchvision are needed.") from error
    filled(network.net, trunk, "VGG16")
    return Lpips(network.to(next(iter(trunk.values())).device).eval())


def build_i3d(tensors: Parameters) -> I3D:
    """I3D.

    Raises:
        InputError: the parameters are those of another network.
    """
    if lacking := sorted(parameter_names() - tensors.keys()):
        raise InputError(f"I3D's weights lack {lacking[0]}: those of i3d_pretrained_400.pt are needed.")
    used = {name: tensors[name] for name in sorted(parameter_names())}
    try:  # On this device only shapes are computed.
        I3D({name: value.to("meta") for name, value in used.items()})(
            torch.empty(1, 3, SHORTEST, IMAGE_SIZE, IMAGE_SIZE, device="meta")
        )
    except RuntimeError as error:
        raise InputError(f"I3D's weights do not fit together ({error}): download them again.") from error
    return I3D(used)


def filled(network: Any, tensors: Parameters, what: str) -> Any:
    """A network with these parameters, and none other.

    Raises:
        InputError: one is missing, unexpected, or of another shape.
    """
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{what}'s weights do not fit ({reason}).") from error
    return network.requires_grad_(False)


def features(i3d: I3D, clip: Float[Tensor, "3 frames 224 224"]) -> Float[Tensor, "steps classes"]:
    """I3D's logits of one clip, on the CPU."""
    device = next(iter(i3d.parameters.values())).device
    return i3d(clip[None].to(device))[0].cpu()
