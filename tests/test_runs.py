"""Opening finished runs, and what is said when that cannot be done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig

from consistent4d_ns.errors import InputError
from consistent4d_ns.runs import load_run, read_config
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Folder of a run of a few steps with two checkpoints."""
    return tiny_run(tmp_path_factory.mktemp("runs"), 4, steps_per_save=2, save_only_latest_checkpoint=False)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to damage; with it goes what the configuration says of its place."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def message(path: Path, **options) -> str:
    with pytest.raises(InputError) as raised:
        load_run(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_run_opens_by_its_folder_or_its_configuration(run: Path):
    latest = load_run(run)
    assert latest.step == 3
    assert latest.pipeline.guidance is None
    assert latest.pipeline.interpolator is None
    assert not latest.pipeline.model.training
    assert latest.pipeline.model.config == latest.config.pipeline.model
    earlier = load_run(run / "config.yml", step=2)
    assert earlier.step == 2
    first, second = (r.pipeline.model.field.levels[0].state_dict() for r in (earlier, latest))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_configuration_is_read_whole(finished: Path):
    text = (finished / "config.yml").read_text()
    assert read_config(finished / "config.yml") == yaml.load(text, yaml.Loader)


def test_moved_frames(run: Path, finished: Path, tmp_path: Path):
    data = read_config(run / "config.yml").data
    assert data is not None
    moved = shutil.copytree(data, tmp_path / "moved")
    config = (run / "config.yml").read_text().replace(data.name, "elsewhere")
    (run / "config.yml").write_text(config)
    assert "elsewhere does not exist" in message(run)
    assert len(load_run(run, data=Path(moved)).pipeline.datamanager.frames) > 1


@pytest.mark.parametrize(
    "call",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {}']",
        "!!python/object/apply:consistent4d_ns.cli.toy.toy [{}]",
        '!!python/object/apply:builtins.eval [\'open("{}", "w")\']',
        "!!python/name:os.system",
        "!!python/object:subprocess.Popen {{args: [touch, {}]}}",
    ],
)
def test_a_configuration_calls_nothing(tmp_path: Path, call: str):
    config, trace = tmp_path / "config.yml", tmp_path / "trace"
    config.write_text(f"value: {call.format(trace)}")
    assert "cannot be read as a configuration" in message(config)
    assert not trace.exists()


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: 1", "{", "!!python/object:pathlib.Path {}", "\x00"])
def test_other_files_are_no_configuration(tmp_path: Path, text: str):
    (tmp_path / "config.yml").write_text(text)
    assert "config.yml that ns-train saved" in message(tmp_path)


def test_another_method_s_configuration(tmp_path: Path):
    (tmp_path / "config.yml").write_text(yaml.dump(TrainerConfig(method_name="nerfacto")))
    assert "is a configuration of nerfacto, not of consistent4d" in message(tmp_path / "config.yml")


def test_a_checkpoint_without_its_configuration(run: Path):
    (run / "config.yml").unlink()
    assert "config.yml does not exist" in message(run)
    checkpoint = run / "nerfstudio_models" / "step-000000003.ckpt"
    assert "is a checkpoint: give the config.yml" in message(checkpoint)


def test_a_configuration_without_its_checkpoint(run: Path, finished: Path):
    assert "no checkpoint of step 7: choose from 2, 3" in message(run, step=7)
    shutil.rmtree(run / "nerfstudio_models")
    # The configuration still says where it was trained.
    assert load_run(run).step == 3
    config = (run / "config.yml").read_text()
    (run / "config.yml").write_text(config.replace(finished.name, "never"))
    assert "holds no checkpoint" in message(run)


@pytest.mark.parametrize("content", [b"", b"text", "truncated", {"step": 1}, [1]])
def test_damaged_checkpoints(run: Path, content):
    checkpoint = run / "nerfstudio_models" / "step-000000003.ckpt"
    if content == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif isinstance(content, bytes):
        checkpoint.write_bytes(content)
    else:
        torch.save(content, checkpoint)
    assert "step-000000003.ckpt is " in message(run)
