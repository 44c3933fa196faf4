"""Finished runs and camera paths that cannot be used."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import torch

from tests.malformed.cases import (
    RENDER,
    Case,
    changed_run,
    config,
    empty,
    frames,
    gone,
    link,
    path,
    path_text,
    pipe,
    read_only,
    run,
    state,
    text,
    together,
    unreadable,
)

CHUNK = "eval_num_rays_per_chunk: 16384"
CHECKPOINT = "nerfstudio_models/step-000000029.ckpt"
PATH = f"{RENDER} --path path.json"
ALIASES = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(12))
"""A text of a kilobyte that stands for a billion words."""


class Payload:
    """Creates a file where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch exploited",)


def bomb(place: Path) -> None:
    """A checkpoint of five megabytes that unpacks to a gigabyte."""
    with zipfile.ZipFile(place / CHECKPOINT, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            block = bytes(2**24)
            for _ in range(64):
                member.write(block)


def long_path(place: Path) -> None:
    """A camera path of a million frames."""
    path(camera_path=["frame"])(place)
    frame = json.dumps({"camera_to_world": [1] * 16, "fov": 50})
    file = place / "path.json"
    file.write_text(file.read_text().replace('"frame"', ",".join([frame] * 10**6)))


def saved(content: object):
    """A checkpoint that is a whole archive of something else."""
    return changed_run(lambda place: torch.save(content, place / CHECKPOINT))


def nan(content: dict) -> None:
    """Weights that are no numbers."""
    for tensor in content["pipeline"].values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))


def endless(content: dict) -> None:
    """Four bytes that pretend to be a tensor of a trillion numbers."""
    name = next(name for name, value in content["pipeline"].items() if value.is_floating_point())
    content["pipeline"][name] = torch.zeros(1).expand(10**12)


def reshaped(content: dict) -> None:
    """Weights of another shape."""
    content["pipeline"] = {name: value.reshape(-1)[:1] for name, value in content["pipeline"].items()}


RUN_CASES = [
    Case("no such run", "consistent4d render nowhere out.gif", "nowhere does not exist"),
    Case("a named pipe as a run", "consistent4d render p out.gif", "p", pipe("p")),
    Case("a named pipe as config.yml", RENDER, "config.yml", changed_run(pipe("config.yml"))),
    Case("a link to itself as config.yml", RENDER, "config.yml", changed_run(link("config.yml", "config.yml"))),
    Case("config.yml that may not be read", RENDER, "config.yml", changed_run(unreadable("config.yml"))),
    Case("config.yml of bytes", RENDER, "config.yml", changed_run(text("config.yml", b"\xff\x00\xfe"))),
    Case(
        "config.yml nested a hundred thousand deep", RENDER, "config.yml", changed_run(text("config.yml", "[" * 10**5))
    ),
    Case("config.yml of a billion aliases", RENDER, "config.yml", changed_run(text("config.yml", ALIASES))),
    Case(
        "a billion aliases in a field",
        RENDER,
        "more than 10000 values",
        config(
            "gradient_accumulation_steps: {}",
            "gradient_accumulation_steps:\n" + "".join(f"  {line}\n" for line in ALIASES.splitlines()),
        ),
    ),
    Case(
        "config.yml that holds itself",
        RENDER,
        "config",
        config("gradient_accumulation_steps: {}", "gradient_accumulation_steps: &x {field: *x}"),
    ),
    Case(
        "a text for a number in config.yml",
        RENDER,
        "max_num_iterations",
        config("max_num_iterations: 30", "max_num_iterations: a"),
    ),
    Case("NaN for a size in config.yml", RENDER, "image_size", config("image_size: 16", "image_size: .nan")),
    Case(
        "a field of a billion cells in config.yml",
        RENDER,
        "grid-resolutions",
        config("    - !!python/tuple\n      - 6\n", "    - !!python/tuple\n      - 100000\n"),
    ),
    Case("frames that are gone", f"{RENDER} --data nowhere", "nowhere", run),
    Case("frames that are others", f"{RENDER} --data run/config.yml", "config.yml", run),
    Case("no checkpoint", RENDER, "holds no checkpoint", changed_run(gone(CHECKPOINT))),
    Case("an empty checkpoint", RENDER, "damaged", changed_run(empty(CHECKPOINT))),
    Case(
        "half a checkpoint",
        RENDER,
        "damaged",
        changed_run(lambda place: (place / CHECKPOINT).write_bytes((place / CHECKPOINT).read_bytes()[:9000])),
    ),
    Case("a named pipe as a checkpoint", RENDER, "damaged", changed_run(pipe(CHECKPOINT))),
    Case("a checkpoint that unpacks to a gigabyte", RENDER, "damaged", changed_run(bomb)),
    Case("a checkpoint of code", RENDER, CHECKPOINT.rpartition("/")[2], saved({"pipeline": Payload(), "step": 1})),
    Case("a checkpoint of a list", RENDER, "is not a checkpoint", saved([1])),
    Case("a checkpoint without weights", RENDER, "does not fit this model", saved({"pipeline": {}, "step": 29})),
    Case("a step that is a text", RENDER, "is not a checkpoint", state(lambda content: content.update(step="abc"))),
    Case("a negative step", RENDER, "is not a checkpoint", state(lambda content: content.update(step=-5))),
    Case("weights of NaN", RENDER, "finite", state(nan)),
    Case("weights of another shape", RENDER, "other shapes", state(reshaped)),
    Case("four bytes as a trillion numbers", RENDER, "is not a checkpoint", state(endless)),
    Case("no rays at once", RENDER, "eval-num-rays-per-chunk", config(CHUNK, CHUNK.replace("16384", "0"))),
    Case("fewer than no rays at once", RENDER, "eval-num-rays-per-chunk", config(CHUNK, CHUNK.replace("16384", "-1"))),
    Case("a run of a frame rate of 1e308", RENDER, "fps is 1e+308", config("      fps: null", "      fps: 1.0e+308")),
    Case("a step that was not saved", f"{RENDER} --step 7", "no checkpoint of step 7", run),
]

PATH_CASES = [
    Case("no such camera path", PATH, "cannot read path.json", run),
    Case("a named pipe as a camera path", PATH, "path.json", together(run, pipe("path.json"))),
    Case("a link to itself as a camera path", PATH, "path.json", together(run, link("path.json", "path.json"))),
    Case("a camera path that may not be read", PATH, "path.json", together(path(), unreadable("path.json"))),
    Case("a camera path that is no JSON", PATH, "path.json", path_text("{")),
    Case("a camera path of bytes", PATH, "path.json", path_text(b"\xff\xfe\x00")),
    Case("a camera path of a list", PATH, "path.json", path_text("[]")),
    Case("a camera path nested a hundred thousand deep", PATH, "path.json", path_text("[" * 100_000)),
    Case("a camera path without frames", PATH, "no frames", path(camera_path=[])),
    Case("a camera path of a text", PATH, "path.json", path(camera_path="abc")),
    Case("a million frames", PATH, "frames", long_path),
    Case("a pose of zeros", PATH, "path.json", path(frame={"camera_to_world": [0] * 16})),
    Case("a pose of NaN", PATH, "path.json", path(frame={"camera_to_world": [float("nan")] * 16})),
    Case("a pose that is flat", PATH, "path.json", path(frame={"camera_to_world": [1, 1, 0, 0] * 4})),
    Case("a pose of 15 numbers", PATH, "path.json", path(frame={"camera_to_world": [1] * 15})),
    Case(
        "a camera a million units away",
        PATH,
        "path.json",
        path(frame={"camera_to_world": [1, 0, 0, 1e30, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}),
    ),
    Case("a pose that is nested", PATH, "path.json", path(frame={"camera_to_world": [[[1] * 4] * 4] * 4})),
    Case("a field of view of 0", PATH, "path.json", path(frame={"fov": 0})),
    Case("a field of view of 180 degrees", PATH, "path.json", path(frame={"fov": 180})),
    Case("a field of view of 720 degrees", PATH, "path.json", path(frame={"fov": 720})),
    Case("an infinite field of view", PATH, "path.json", path(frame={"fov": float("inf")})),
    Case("a field of view of 1e-30", PATH, "path.json", path(frame={"fov": 1e-30})),
    Case("an aspect of 0", PATH, "aspect", path(frame={"aspect": "0"})),
    Case("an aspect of NaN", PATH, "aspect", path(frame={"aspect": float("nan")})),
    Case("a time of 2", PATH, "time 2", path(frame={"render_time": 2})),
    Case("a time of NaN", PATH, "render_time is nan", path(frame={"render_time": float("nan")})),
    Case(
        "times for some frames",
        PATH,
        "render_time in",
        path_text(
            '{"camera_type": "perspective", "render_width": 16, "render_height": 16, "seconds": 1, "camera_path": ['
            '{"camera_to_world": [1,0,0,2,0,1,0,0,0,0,1,0,0,0,0,1], "fov": 50, "render_time": 0},'
            '{"camera_to_world": [1,0,0,2,0,1,0,0,0,0,1,0,0,0,0,1], "fov": 50}]}'
        ),
    ),
    Case("infinite seconds", PATH, "path.json", path(seconds=float("inf"))),
    Case("0 seconds", PATH, "path.json", path(seconds=0)),
    Case("seconds so short that the rate is infinite", PATH, "--fps is inf", path(seconds=1e-320)),
    Case("images of 8193 pixels", PATH, "8193", path(render_width=8193)),
    Case("images of 10^30 pixels", PATH, "pixels", path(render_width=10**30)),
    Case("images of infinitely many pixels", PATH, "path.json", path(render_width=float("inf"))),
    Case("images of a negative size", PATH, "-16", path(render_height=-16)),
    Case("a camera type of two images", PATH, "camera_type", path(camera_type="omnidirectionalstereo_l")),
    Case(
        "a crop of NaN",
        PATH,
        "crop",
        path(
            crop={"crop_center": [float("nan")] * 3, "crop_scale": [1, 1, 1], "crop_bg_color": {"r": 0, "g": 0, "b": 0}}
        ),
    ),
    Case("a crop without a size", PATH, "path.json", path(crop={"crop_center": [0, 0, 0]})),
    Case("a camera path with a suffix that is none", f"{RENDER} --path path.txt", "no camera path path.txt", run),
]

WRITING_CASES = [
    Case(
        "a video in a folder that may not be written",
        "consistent4d render run ro/out.gif --outputs rgb --frames 1",
        "ro",
        together(run, read_only("ro")),
    ),
    Case("a video in /sys", "consistent4d render run /sys/out.gif --outputs rgb --frames 1", "/sys/out.gif", run),
    Case(
        "a mesh in a folder that may not be written",
        "consistent4d export mesh run ro/out.glb --resolution 16 --frames 1 --texture-size 64",
        "ro",
        together(run, read_only("ro")),
    ),
    Case("a camera path in a file", "consistent4d camera-path orbit f/path.json", "f", text("f", "x")),
    Case(
        "a video below a link to itself",
        "consistent4d render run loop/out.gif --outputs rgb --frames 1",
        "loop",
        together(run, link("loop", "loop")),
    ),
    Case(
        "a video in the place of its own run",
        "consistent4d render run run/config.yml --format gif --overwrite",
        "is where a run has its configuration",
        run,
    ),
    Case("a named pipe as an output", "consistent4d camera-path orbit p --overwrite", "no regular file", pipe("p")),
    Case(
        "a manifest of names that are none",
        "consistent4d prepare frames out --overwrite",
        "not an earlier output",
        together(frames(), text("out/manifest.json", '{"written_by": "consistent4d prepare", "files": ["a\\u0000b"]}')),
    ),
    Case("an output that exists", "consistent4d camera-path orbit a.json", "a.json exists", text("a.json", "x")),
    Case("an output whose name is too long", f"consistent4d camera-path orbit {'x' * 300}.json", "too long"),
    Case("a toy in a folder of others", "consistent4d toy there", "there", text("there/mine.txt", "x")),
    Case("a toy in a file", "consistent4d toy there", "there", text("there", "x")),
]
