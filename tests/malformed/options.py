"""Options that cannot work, and folders given to the other commands."""

from __future__ import annotations

from tests.malformed.cases import TRAIN, Case, frames, link, pipe, run, text, together

FRAMES = f"{TRAIN} --data frames"
MESH = "consistent4d export mesh run out.glb"

OPTION_CASES = [
    Case("a learning rate of NaN", f"{FRAMES} --optimizers.field.optimizer.lr nan", "lr is nan", frames()),
    Case("a negative seed", f"{FRAMES} --machine.seed -1", "machine.seed", frames()),
    Case("no iterations", f"{FRAMES} --max-num-iterations 0", "max-num-iterations", frames()),
    Case("a port of 80000", f"{FRAMES} --viewer.websocket-port 80000", "80000", frames()),
    Case("a weight of NaN", f"{FRAMES} --pipeline.model.loss-weights.sparsity nan", "sparsity", frames()),
    Case("a negative weight", f"{FRAMES} --pipeline.model.loss-weights.sparsity -1", "sparsity", frames()),
    Case(
        "a billion samples on a ray",
        f"{FRAMES} --pipeline.model.samples-per-ray 1000000000",
        "samples-per-ray",
        frames(),
    ),
    Case(
        "an occupancy grid of a million cells a side",
        f"{FRAMES} --pipeline.model.occupancy-resolution 1000000",
        "occupancy-resolution",
        frames(),
    ),
    Case("a hidden width of a billion", f"{FRAMES} --pipeline.model.hidden-width 1000000000", "hidden-width", frames()),
    Case("a guidance scale of NaN", f"{FRAMES} --pipeline.guidance.scale nan", "scale", frames()),
    Case("a named pipe to resume from", f"{FRAMES} --load-dir p", "p", together(frames(), pipe("p"))),
    Case("a link to itself to resume from", f"{FRAMES} --load-dir l", "l", together(frames(), link("l", "l"))),
    Case("a toy of a billion frames", "consistent4d toy t --frames 1000000000", "frames"),
    Case("a toy of a million pixels", "consistent4d toy t --size 1000000", "size"),
    Case("a toy of a negative size", "consistent4d toy t --size -3", "size"),
    Case("an export of a billion frames", f"{MESH} --frames 1000000000", "--frames", run),
    Case("an export at the time NaN", f"{MESH} --times nan", "time nan", run),
    Case("an export of a billion cells", f"{MESH} --resolution 1000000000", "--resolution", run),
    Case("an export of an infinite density", f"{MESH} --density inf", "--density", run),
    Case("an export of a texture of 0", f"{MESH} --texture-size 0", "--texture-size", run),
    Case("a mesh in an unknown format", "consistent4d export mesh run out.stl", "out.stl", run),
    Case("a billion points", "consistent4d export points run out.ply --count 1000000000", "--count", run),
    Case("a billion frames of a camera path", "consistent4d camera-path orbit a.json --frames 1000000000", "--frames"),
    Case(
        "a camera path of images of a million pixels", "consistent4d camera-path orbit a.json --size 1000000", "--size"
    ),
    Case("a camera inside of the object", "consistent4d camera-path orbit a.json --distance 0.1", "distance"),
    Case("a camera at NaN degrees", "consistent4d camera-path orbit a.json --elevation nan", "elevation"),
    Case("a video at no speed", "consistent4d render run a.mp4 --fps 0", "--fps", run),
    Case(
        "forty panels of 8192 pixels", f"consistent4d render run a --size 8192 --outputs {'rgb ' * 40}", "pixels", run
    ),
    Case("a viewer's port that does not exist", "consistent4d view run --port 80000", "80000", run),
    Case(
        "a viewer at another machine's address",
        "consistent4d view run --host 203.0.113.1 --port 7007",
        "203.0.113.1",
        run,
    ),
    Case("an enhancer that is none", "consistent4d render run a.gif --outputs rgb --enhance run", "run", run),
    Case(
        "a named pipe as an enhancer's settings",
        "consistent4d render run a.gif --outputs rgb --enhance e",
        "e",
        together(run, text("e/x", "x"), pipe("e/settings.json")),
    ),
    Case("nothing to prepare", "consistent4d prepare nowhere out", "nowhere"),
    Case("a text to prepare", "consistent4d prepare a.mp4 out", "a.mp4", text("a.mp4", "no video")),
    Case("a named pipe to prepare", "consistent4d prepare p.mp4 out", "p.mp4", pipe("p.mp4")),
    Case("preparing at 1e308 frames a second", "consistent4d prepare frames out --fps 1e308", "--fps", frames()),
    Case("nothing to measure", "consistent4d eval --pred nowhere --gt frames", "nowhere", frames()),
    Case("nothing to measure with", "consistent4d eval --pred frames --gt nowhere --metrics psnr", "nowhere", frames()),
    Case(
        "a run to measure that is none",
        "consistent4d eval --run frames --gt frames --metrics psnr",
        "holds no views",
        frames(),
    ),
    Case("runs to compare that are none", "consistent4d compare frames nowhere", "config.yml", frames()),
    Case("a run to train further that is none", "consistent4d finetune nowhere", "nowhere"),
    Case("training further for no steps", "consistent4d finetune run --steps 0", "steps", run),
    Case(
        "a sweep over an unknown option",
        "consistent4d sweep consistent4d-mini --data frames --seeds 0 --set nothing=1",
        "nothing",
        frames(),
    ),
    Case(
        "a sweep over a seed that is negative",
        "consistent4d sweep consistent4d-mini --data frames --seeds 0 -1",
        "-1",
        frames(),
    ),
]
