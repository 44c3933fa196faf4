"""A run of version 0.2.0 as it was saved, kept so that later versions open it.

`python -m tests.support.stored_run` trains it anew and replaces the files: only while version 0.2.0 is not released.
From then on module paths and field names in its config.yml, and names in its checkpoint, are an interface; a version
that changes them has to open this run nevertheless, and adds a run of its own beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from consistent4d_ns.cli.demo import train
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from consistent4d_ns.runs import Run, load_run
from consistent4d_ns.toy import write_sequence
from consistent4d_ns.trainer_config import ConfigDumper
from tests.support.tiny import tiny_config

FOLDER = Path(__file__).parent.parent / "fixtures" / "run_0_2"
"""The run: config.yml, checkpoint, the frames it was trained on, and `IMAGE`."""
IMAGE = "image.png"
"""What the last evaluation camera saw when the run was saved, in colour."""
STEPS = 30
ELSEWHERE = Path("/somewhere/else")
"""Where config.yml says that everything is: not on the machine that opens it."""


def stored_config(data: Path, out: Path) -> Consistent4DTrainerConfig:
    """The smallest training with both levels and without priors, to be recognised in its image nevertheless."""
    config = tiny_config(data)
    config.output_dir, config.vis, config.timestamp = out, "tensorboard", "stored"
    config.max_num_iterations, config.steps_per_eval_image = STEPS, 0
    config.pipeline.datamanager.dataparser.image_size = 16
    model = config.pipeline.model
    model.grid_resolutions, model.channels, model.hidden_width = ((6, 6, 6, 3), (10, 10, 10, 5)), (4,), 8
    model.samples_per_ray, model.occupancy_resolution = 24, 8
    return config


def render(run: Run) -> np.ndarray:
    """Colours of the last evaluation camera, 8 bits each, [height, width, 3]."""
    cameras: Cameras = run.pipeline.datamanager.eval_dataset.cameras
    with torch.no_grad():
        rgb = run.pipeline.model.get_outputs_for_camera(cameras[-1:])["rgb"]
    return (rgb.numpy() * 255).round().astype(np.uint8)


def write() -> None:
    """Train the run and store it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with TemporaryDirectory() as scratch:
        write_sequence(Path(scratch) / "toy", size=16, frames=4)
        shutil.copytree(Path(scratch) / "toy" / "input", FOLDER / "frames")
        trained = train(stored_config(FOLDER / "frames", Path(scratch) / "out")).config.get_base_dir()
        config = yaml.load((trained / "config.yml").read_text(), yaml.Loader)
        shutil.copytree(trained / "nerfstudio_models", FOLDER / "nerfstudio_models")
    config.use_data(ELSEWHERE / "frames")
    config.output_dir, config.machine.device_type = ELSEWHERE / "out", "cpu"
    (FOLDER / "config.yml").write_text(yaml.dump(config, Dumper=ConfigDumper))
    Image.fromarray(render(load_run(FOLDER))).save(FOLDER / IMAGE)


if __name__ == "__main__":
    write()
