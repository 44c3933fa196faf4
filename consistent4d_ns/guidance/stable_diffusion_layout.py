"""Text-to-image priors in Stable Diffusion's layout: a folder with a subfolder for each part, as diffusers saves it.

Only JSON, the tokenizer's word lists and safetensors are read: no pickle, and no Python code that comes with a prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.checksums import verify_checksums
from consistent4d_ns.guidance.diffusers_layout import check_sizes, describes, load_unet, load_vae, read_settings
from consistent4d_ns.guidance.diffusion import alphas_from_config
from consistent4d_ns.guidance.networks import LatentModel
from consistent4d_ns.guidance.prior_files import STABLE_DIFFUSION, names_in, weight_files
from consistent4d_ns.guidance.weights import fill, read_tensors, without_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

VELOCITY = "v_prediction"
"""What some UNets predict in place of the noise (Stable Diffusion 2.1 at 768 pixels), in diffusers' terms."""


@dataclass
class TextToImageNetworks(LatentModel):
    """A latent diffusion model that is conditioned on the tokens of a prompt (Rombach et al. 2022)."""

    unet: UNet2DConditionModel
    """Predicts the noise, or the velocity, from a noisy latent and the context."""
    vae: AutoencoderKL
    """Images in [-1, 1] to latents and back."""
    text_encoder: CLIPTextModel
    """Tokens of a prompt to the UNet's context."""
    tokenizer: CLIPTokenizer
    """Text to tokens."""
    alphas: Float[Tensor, " timesteps"]
    """Cumulative product of the noise schedule's alphas (remaining fraction of signal variance), float64."""
    predicts_velocity: bool = False
    """Whether the UNet predicts the velocity in place of the noise."""

    def check(self, source: str) -> None:
        """Check that the networks form a text-to-image prior.

        Raises:
            InputError: They do not; the message names `source`, the part, and the expected value.
        """
        unet, latent = self.unet.config, self.vae.config["latent_channels"]
        expectations = {
            "UNet input channels (the noisy latent)": (unet["in_channels"], latent),
            "UNet output channels": (unet["out_channels"], latent),
            "width of the text encoder (UNet context width)": (
                self.text_encoder.config.hidden_size,
                unet["cross_attention_dim"],
            ),
            "additional embeddings of the UNet": (unet.get("addition_embed_type"), None),
        }
        for what, (found, expected) in expectations.items():
            if found != expected:
                raise InputError(
                    f"{source}: not a {STABLE_DIFFUSION.what}, {what}: {found}, expected {expected}; give Stable "
                    "Diffusion 1.x or 2.x, not a model for inpainting, depth or image variations."
                )
        self.check_numbers(source)


def load_text_folder(folder: Path) -> TextToImageNetworks:
    """Load the prior in `folder` to the CPU, in its saved precision, after verifying its checksums, if it has any.

    Raises:
        InputError: It is of another kind, or a part is missing, damaged, altered, or does not belong to such a prior.
    """
    check_kind(folder)
    verify_checksums(folder)
    files = {p: folder / path for p, path in weight_files(names_in(folder), str(folder), STABLE_DIFFUSION).items()}
    scheduler = folder / "scheduler" / "scheduler_config.json"
    schedule = read_settings(scheduler)
    text_encoder = _load_text_encoder(files["text_encoder"])
    networks = TextToImageNetworks(
        unet=load_unet(files["unet"]),
        vae=load_vae(files["vae"]),
        text_encoder=text_encoder,
        tokenizer=_load_tokenizer(folder / "tokenizer", text_encoder.config.vocab_size),
        alphas=alphas_from_config(schedule, str(scheduler), ("epsilon", VELOCITY)),
        predicts_velocity=schedule.get("prediction_type") == VELOCITY,
    )
    networks.check(str(folder))
    return networks


def check_kind(folder: Path) -> None:
    """Raises: InputError: `folder` holds a known kind of prior that is not in Stable Diffusion's layout."""
    remedy = "give Stable Diffusion 1.x or 2.x, or a prior fine-tuned from it"
    if _unet_class(folder) not in (None, "UNet2DConditionModel"):
        raise InputError(
            f"{folder}: its UNet is a {_unet_class(folder)}, whose code would have to come with the prior and is never "
            f"run: diffusers itself has no multi-view UNet, such as MVDream's; {remedy}."
        )
    if (folder / "text_encoder_2").is_dir():
        raise InputError(f"{folder}: a prior with two text encoders, such as Stable Diffusion XL; {remedy}.")
    if (folder / "transformer").is_dir():
        raise InputError(
            f"{folder}: a prior with a transformer in place of a UNet, such as Stable Diffusion 3; {remedy}."
        )
    if any((folder / name).is_dir() for name in ("clip_camera_projection", "cc_projection")):
        raise InputError(f"{folder}: a Zero123 prior, which reads an image: train consistent4d-image, or {remedy}.")


def _unet_class(folder: Path) -> str | None:
    """Name of the UNet's class, if the prior's files state it."""
    index, config = folder / "model_index.json", folder / "unet" / "config.json"
    named = read_settings(index).get("unet") if index.is_file() else None
    if isinstance(named, list) and len(named) == 2 and isinstance(named[1], str):
        return named[1]
    name = read_settings(config).get("_class_name") if config.is_file() else None
    return name if isinstance(name, str) else None


def _load_text_encoder(weights: Path) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = weights.parent / "config.json"
    settings = read_settings(config)
    check_sizes(settings, config)
    if settings.get("model_type", "clip_text_model") != "clip_text_model":
        raise InputError(
            f"{config}: a {settings['model_type']} encoder, where Stable Diffusion has CLIP's text model; "
            "give Stable Diffusion 1.x or 2.x."
        )
    with describes(CLIPTextModel, config), without_weights():
        network = CLIPTextModel(CLIPTextConfig.from_pretrained(config.parent, local_files_only=True))
    fill(network, _text_tensors(read_tensors(weights), network.state_dict()), str(weights))
    return network


def _text_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors, named as this version of transformers does: 5 left out the prefix of all names.

    Old files also hold a buffer of position ids.
    """
    prefix = "text_model."
    kept = {name: value for name, value in tensors.items() if not name.endswith("position_ids")}
    bare = {name.removeprefix(prefix): value for name, value in kept.items()}
    return {prefix + name: value for name, value in bare.items()} if next(iter(wanted)).startswith(prefix) else bare


def _load_tokenizer(folder: Path, vocabulary: int) -> CLIPTokenizer:
    """The tokenizer in a folder, for a text encoder that knows so many words."""
    from transformers import CLIPTokenizer

    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; download the prior again.")
    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer("a word")
    except Exception as error:  # A damaged file raises all kinds of exceptions.
        reason = (str(error) or type(error).__name__).strip().split("\n", 1)[0]
        raise InputError(f"{folder}: holds no CLIP tokenizer ({reason}); download the prior again.") from error
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder}: this tokenizer has nothing to pad prompts with; download the prior again.")
    if max(tokenizer.get_vocab().values()) >= vocabulary:
        raise InputError(
            f"{folder}: this tokenizer knows more words than the text encoder, {vocabulary}; download the prior again."
        )
    tokenizer.padding_side = "right"
    return tokenizer
