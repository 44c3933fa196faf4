"""Zero123 priors in the diffusers layout: a folder with a subfolder for each part.

The camera projection is either the layer `proj` in the folder `clip_camera_projection/`, or the layer `projection` in
`cc_projection/`. Its `config.json` may have `image_tokens`, the number of image-encoder tokens in the UNet's context
(see `Zero123Networks`; default: 1), and `camera_convention` ("zero123" or "stable-zero123"). Only JSON and tensors are
read: Python code that comes with some priors is never run.
"""

from __future__ import annotations

import contextlib
import gc
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.json_files import read_json
from consistent4d_ns.guidance.camera_convention import CONVENTIONS, CameraConvention
from consistent4d_ns.guidance.checksums import verify_checksums
from consistent4d_ns.guidance.diffusion import alphas_from_config
from consistent4d_ns.guidance.networks import CLIP_MEAN, CLIP_STD, Zero123Networks
from consistent4d_ns.guidance.prior_files import names_in, weight_files
from consistent4d_ns.guidance.weights import fill, read_tensors, without_weights

LARGEST = {
    "layers_per_block": 64,
    "transformer_layers_per_block": 64,
    "num_hidden_layers": 256,
    "image_size": 4096,
    "sample_size": 4096,
}
"""Largest values of settings that say how often something is built; Zero123-XL has 2, 24, 224, 32 or 768, and 1."""
LARGEST_SETTING = 1_000_000
"""Largest value of any other whole number."""


def load_folder(folder: Path) -> Zero123Networks:
    """Load the prior in `folder` to the CPU, in its saved precision, after verifying its checksums.

    Raises:
        InputError: A part is missing, damaged, altered, or does not belong to a Zero123 prior.
    """
    with ThreadPoolExecutor(1) as background:  # Computing digests leaves Python free to import meanwhile.
        verification = background.submit(verify_checksums, folder)
        _import_networks()
        verification.result()
    files = {part: folder / path for part, path in weight_files(names_in(folder), str(folder)).items()}
    preprocessor = folder / "feature_extractor" / "preprocessor_config.json"
    scheduler = folder / "scheduler" / "scheduler_config.json"
    projection = read_settings(files["projection"].parent / "config.json")
    networks = Zero123Networks(
        unet=load_unet(files["unet"]),
        vae=load_vae(files["vae"]),
        image_encoder=_load_image_encoder(files["image_encoder"]),
        projection=_load_projection(files["projection"]),
        image_tokens=projection.get("image_tokens", 1),
        clip_mean=_read_rgb(preprocessor, "image_mean", CLIP_MEAN),
        clip_std=_read_rgb(preprocessor, "image_std", CLIP_STD),
        alphas=alphas_from_config(read_settings(scheduler), str(scheduler)),
        camera_convention=_stored_convention(projection, files["projection"].parent),
    )
    networks.check(str(folder))
    return networks


def _import_networks() -> None:
    """Import the libraries of the networks, without garbage collections: they take a fifth of that time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
        from transformers import CLIPVisionModelWithProjection  # noqa: F401
    finally:
        if collects:
            gc.enable()


def _stored_convention(projection: Mapping[str, Any], folder: Path) -> CameraConvention | None:
    """The camera convention in the configuration of the camera projection, if it has one."""
    stored = projection.get("camera_convention")
    if stored is not None and stored not in CONVENTIONS:
        known = " or ".join(CONVENTIONS)
        raise InputError(f"{folder / 'config.json'}: camera_convention is {stored!r}, not {known}.")
    return stored


def read_settings(path: Path) -> Mapping[str, Any]:
    """A JSON file of a prior. Raises: InputError: it is missing, damaged, or holds no object."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or not valid JSON; download the prior again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; download the prior again.")
    return content


def _read_rgb(path: Path, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """A setting with one number for each of red, green and blue."""
    values = read_settings(path).get(key, default)
    are_numbers = isinstance(values, (list, tuple)) and all(isinstance(value, (int, float)) for value in values)
    if not are_numbers or len(values) != 3:
        raise InputError(f"{path}: {key} is {values!r}, not three numbers; download the prior again.")
    if key == "image_std" and not all(0 < value < math.inf for value in values):
        raise InputError(f"{path}: {key} is {values!r}, not numbers above 0; download the prior again.")
    return tuple(values)


def load_unet(weights: Path) -> Any:
    """The UNet with these weights (raises as `build`)."""
    from diffusers import UNet2DConditionModel

    return build(UNet2DConditionModel, weights, read_tensors(weights))


def load_vae(weights: Path) -> Any:
    """The autoencoder with these weights (raises as `build`)."""
    from diffusers import AutoencoderKL

    return build(AutoencoderKL, weights, {_modern(name): value for name, value in read_tensors(weights).items()})


def build(kind: Any, weights: Path, tensors: Mapping[str, Tensor]) -> Any:
    """A diffusers network with the given weights, configured by the `config.json` beside its weight file.

    Raises:
        InputError: Weights or configuration do not belong to such a network.
    """
    config = weights.parent / "config.json"
    settings = read_settings(config)
    check_sizes(settings, config)
    with describes(kind, config), without_weights():
        network = kind.from_config(settings)
    fill(network, tensors, str(weights))
    return network


def check_sizes(settings: Mapping[str, Any], config: Path) -> None:
    """Raises: InputError: a setting is far larger than any network's; building it would take hours or all memory."""
    for name, value in settings.items():
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if name == "sample_size" and isinstance(number, int) and number < 1:
                raise InputError(f"{config}: {name} is {value}, no size; download the prior again.")
            if isinstance(number, int) and number > LARGEST.get(name, LARGEST_SETTING):
                raise InputError(f"{config}: {name} is {value}, far too large for a prior; download the prior again.")


@contextlib.contextmanager
def describes(kind: type, config: Path) -> Iterator[None]:
    """Report any exception in the block as an error in `config`, which describes no network of this kind."""
    try:
        yield
    except Exception as error:  # Constructors of networks raise all kinds of exceptions for wrong settings.
        reason = (str(error) or type(error).__name__).strip().split("\n", 1)[0]
        raise InputError(f"{config}: describes no {kind.__name__} ({reason}); download the prior again.") from error


def _modern(name: str) -> str:
    """Current name of a VAE attention weight; diffusers before 0.17 wrote query, key, value, proj_attn."""
    modern = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    return re.sub(r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)", lambda old: modern[old[0]], name)


def _load_image_encoder(weights: Path) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = weights.parent / "config.json"
    check_sizes(read_settings(config), config)
    with describes(CLIPVisionModelWithProjection, config), without_weights():
        network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(config.parent))
    tensors = read_tensors(weights)
    # Complete CLIP models also contain the text tower, and old ones a buffer of position ids.
    prefixes = ("vision_model.", "visual_projection.")
    image_tower = {k: v for k, v in tensors.items() if k.startswith(prefixes) and not k.endswith("position_ids")}
    fill(network, image_tower, str(weights))
    return network


def _load_projection(weights: Path) -> nn.Linear:
    tensors = {re.sub(r"^(proj|projection)\.", "", name): value for name, value in read_tensors(weights).items()}
    return linear_from(tensors, str(weights))


def linear_from(tensors: Mapping[str, Tensor], source: str) -> nn.Linear:
    """The linear layer with the `weight` and `bias` in `tensors`.

    Raises:
        InputError: The tensors are not those of a linear layer; the message names `source`.
    """
    if "weight" not in tensors or tensors["weight"].ndim != 2:
        raise InputError(f"{source}: not a camera projection, the weight matrix is missing.")
    outputs, inputs = tensors["weight"].shape
    layer = nn.Linear(inputs, outputs, device="meta")
    fill(layer, tensors, source)
    return layer
