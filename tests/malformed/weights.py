"""Weights of networks, and what lies beside them, that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.malformed.cases import (
    TRAIN,
    Case,
    frames,
    link,
    pipe,
    prior,
    safetensors,
    settings,
    text,
    together,
)
from tests.malformed.runs import Payload

PRIOR = f"{TRAIN} --data frames --pipeline.guidance.prior prior"
FILE = f"{TRAIN} --data frames --pipeline.guidance.prior w.safetensors"
RIFE = (
    "ns-train consistent4d-mini --vis tensorboard --max-num-iterations 1 --data frames "
    "--pipeline.guidance.kind none --pipeline.targets.imagine.steps 0 --pipeline.interpolation.kind rife "
    "--pipeline.interpolation.weights"
)
UNET = "unet/diffusion_pytorch_model.safetensors"
ONE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def weights(content: bytes | str, name: str = "w.safetensors"):
    """Good frames, and a file of weights."""
    return together(frames(), text(name, content))


def pickled(name: str, content: object):
    """Good frames, and a file of PyTorch."""
    return together(frames(), lambda place: torch.save(content, place / name))


def removed(name: str):
    """A prior that lacks a file."""

    def make(place: Path) -> None:
        (place / name).unlink()

    return prior(make)


WEIGHT_CASES = [
    Case("a header that is longer than the file", FILE, "w.safetensors", weights(safetensors(b"{}", length=2**60))),
    Case("a header of 2^64 - 1 bytes", FILE, "w.safetensors", weights(safetensors(b"{}", length=2**64 - 1))),
    Case("a header that is no JSON", FILE, "w.safetensors", weights(safetensors(b"\xff\xfe{", b"\0" * 4))),
    Case("a header nested a hundred thousand deep", FILE, "w.safetensors", weights(safetensors(b"[" * 100_000))),
    Case(
        "tensors that begin after the end",
        FILE,
        "w.safetensors",
        weights(safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**40, 2**40 + 4]}}, bytes(4))),
    ),
    Case(
        "tensors that end before they begin",
        FILE,
        "w.safetensors",
        weights(safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4))),
    ),
    Case(
        "a shape that is larger than the data",
        FILE,
        "w.safetensors",
        weights(safetensors({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}, bytes(4))),
    ),
    Case(
        "a shape that overflows",
        FILE,
        "w.safetensors",
        weights(safetensors({"a": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 4]}}, bytes(4))),
    ),
    Case(
        "an unknown type of numbers",
        FILE,
        "w.safetensors",
        weights(safetensors({"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))),
    ),
    Case("tensors of something else", FILE, "w.safetensors", weights(safetensors(ONE, bytes(4)))),
    Case("an empty file of weights", FILE, "w.safetensors is an empty file", weights("")),
    Case(
        "a Git LFS pointer", FILE, "git lfs pull", weights("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    ),
    Case("a web page as weights", FILE, "is a web page", weights("<!doctype html><title>401</title>")),
    Case("a named pipe as weights", FILE, "w.safetensors", together(frames(), pipe("w.safetensors"))),
    Case(
        "a link to itself as weights", FILE, "w.safetensors", together(frames(), link("w.safetensors", "w.safetensors"))
    ),
    Case(
        "weights that hold code",
        f"{TRAIN} --data frames --pipeline.guidance.prior w.ckpt",
        "w.ckpt",
        pickled("w.ckpt", {"state_dict": Payload()}),
    ),
    Case(
        "a list as weights", f"{TRAIN} --data frames --pipeline.guidance.prior w.ckpt", "w.ckpt", pickled("w.ckpt", [1])
    ),
    Case(
        "an empty folder as a prior",
        PRIOR,
        "no weights in unet/",
        together(frames(), lambda place: (place / "prior").mkdir()),
    ),
    Case(
        "an address as a prior",
        f"{TRAIN} --data frames --pipeline.guidance.prior https://example.com/a",
        "https://",
        frames(),
    ),
    Case(
        "a prior that is neither file nor name",
        f"{TRAIN} --data frames --pipeline.guidance.prior ../../x",
        "../../x",
        frames(),
    ),
    Case(
        "an altered prior",
        PRIOR,
        "does not match its checksum",
        prior(lambda place: (place / UNET).write_bytes((place / UNET).read_bytes()[:-1] + b"?"), checksums=True),
    ),
    Case(
        "checksums of files elsewhere",
        PRIOR,
        "SHA256SUMS",
        prior(text("SHA256SUMS", f"{'0' * 64}  ../../etc/passwd\n")),
    ),
    Case("a prior without a configuration", PRIOR, "config.json", removed("unet/config.json")),
    Case("a billion layers", PRIOR, "unet/config.json", prior(settings("unet/config.json", layers_per_block=10**9))),
    Case("a negative number of layers", PRIOR, "unet", prior(settings("unet/config.json", layers_per_block=-1))),
    Case(
        "a width of a billion",
        PRIOR,
        "unet/config.json",
        prior(settings("unet/config.json", block_out_channels=[10**9, 10**9])),
    ),
    Case(
        "four billion pixels",
        PRIOR,
        "image_encoder/config.json",
        prior(settings("image_encoder/config.json", image_size=2**32)),
    ),
    Case(
        "a billion layers of the image encoder",
        PRIOR,
        "image_encoder/config.json",
        prior(settings("image_encoder/config.json", num_hidden_layers=10**9)),
    ),
    Case("a scaling factor of 0", PRIOR, "scaling_factor", prior(settings("vae/config.json", scaling_factor=0.0))),
    Case(
        "a scaling factor of NaN",
        PRIOR,
        "scaling_factor",
        prior(settings("vae/config.json", scaling_factor=float("nan"))),
    ),
    Case(
        "a schedule of NaN",
        PRIOR,
        "scheduler_config.json",
        prior(settings("scheduler/scheduler_config.json", beta_start=float("nan"))),
    ),
    Case(
        "a schedule of a billion steps",
        PRIOR,
        "num_train_timesteps is 1000000000, not a number from 1 to 100000",
        prior(settings("scheduler/scheduler_config.json", num_train_timesteps=10**9)),
    ),
    Case("a configuration of a list", PRIOR, "vae/config.json", prior(text("vae/config.json", "[1]"))),
    Case(
        "a configuration nested a hundred thousand deep",
        PRIOR,
        "vae/config.json",
        prior(text("vae/config.json", "[" * 10**5)),
    ),
    Case(
        "a deviation of text",
        PRIOR,
        "image_std",
        prior(settings("feature_extractor/preprocessor_config.json", image_std=["a", 1, 1])),
    ),
    Case(
        "a deviation of 0",
        PRIOR,
        "image_std",
        prior(settings("feature_extractor/preprocessor_config.json", image_std=[0, 1, 1])),
    ),
    Case(
        "image tokens of a text",
        PRIOR,
        "image_tokens",
        prior(settings("clip_camera_projection/config.json", image_tokens="many")),
    ),
    Case("weights of NaN in a prior", PRIOR, "finite", prior(lambda place: fill_nan(place / UNET))),
    Case("RIFE's weights that are missing", f"{RIFE} w.pkl", "w.pkl: no such file", frames()),
    Case("RIFE's weights that hold code", f"{RIFE} w.pkl", "w.pkl", pickled("w.pkl", {"block0": Payload()})),
    Case("RIFE's weights of another network", f"{RIFE} w.pkl", "w.pkl", pickled("w.pkl", {"a": torch.zeros(1)})),
    Case(
        "RIFE's weights with a lying header",
        f"{RIFE} w.safetensors",
        "w.safetensors",
        weights(safetensors(b"{}", length=2**60)),
    ),
    Case("a named pipe as RIFE's weights", f"{RIFE} w.pkl", "w.pkl", together(frames(), pipe("w.pkl"))),
    Case(
        "a web page to convert",
        "consistent4d weights convert w.ckpt out",
        "is a web page",
        text("w.ckpt", "<html>login</html>"),
    ),
    Case("nothing to convert", "consistent4d weights convert w.ckpt out", "w.ckpt"),
]


def fill_nan(file: Path) -> None:
    """A file of weights of which one is no number."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, file)


def as_json(content: object) -> str:
    """JSON, with NaN."""
    return json.dumps(content)
