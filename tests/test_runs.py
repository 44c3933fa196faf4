"""Opening finished runs, and what is said when that cannot be done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

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
    assert "the frames of this run are no longer at" in message(run)
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
    kind = "consistent4d_ns.trainer_config.Consistent4DTrainerConfig"
    config.write_text(f"!!python/object:{kind}\nmethod_name: [{call.format(trace)}]")
    assert "cannot be read as a configuration" in message(config)
    assert not trace.exists()


def hostile_config(run: Path, field: tuple[str, ...], yaml_text: str) -> str:
    """The run's config.yml with a field replaced by a piece of YAML; tags are not resolved."""
    root = yaml.compose((run / "config.yml").read_text())
    node = root
    for name in field[:-1]:
        node = next(value for key, value in node.value if key.value == name)
    replacement = yaml.compose(yaml_text)
    node.value = [(key, replacement if key.value == field[-1] else value) for key, value in node.value]
    text = yaml.serialize(root)
    (run / "config.yml").write_text(text)
    return text


TRAIN_FROM_FILE = """!!python/object:nerfstudio.engine.trainer.TrainerConfig
_target: !!python/name:nerfstudio.scripts.train.main ''
data: null
prompt: null
pipeline: !!python/object:nerfstudio.configs.base_config.LoggingConfig
  datamanager: !!python/object:nerfstudio.configs.base_config.LoggingConfig {}
  model: !!python/object:nerfstudio.configs.base_config.LoggingConfig {}
load_config: !!python/object/apply:pathlib.PosixPath [extra.yml]
"""
"""As a data parser: a trainer's configuration that would load a second file, whose YAML is not limited."""
EXPLOITS = {
    "data parser that loads a second file": (("pipeline", "datamanager", "dataparser"), TRAIN_FROM_FILE),
    "target that is a function": (("pipeline", "_target"), "!!python/name:nerfstudio.scripts.train.main ''"),
    "target of the trainer": (("_target",), "!!python/name:nerfstudio.utils.scripts.run_command ''"),
    "target of the wrong kind": (("pipeline", "model", "_target"), "!!python/name:builtins.print ''"),
    "function among the settings": (("pipeline", "datamanager", "collate_fn"), "!!python/name:builtins.exec ''"),
}


@pytest.mark.parametrize("exploit", EXPLOITS)
@pytest.mark.parametrize("command", ["ours", "Nerfstudio's"])
def test_no_code_that_a_configuration_names_is_run(run: Path, monkeypatch, capsys, exploit: str, command: str):
    """Live: what each would do is to create a file or to print, and nothing does."""
    monkeypatch.chdir(run)
    (run / "extra.yml").write_text("!!python/object/apply:os.system ['touch exploited']")
    text = hostile_config(run, *EXPLOITS[exploit])
    if command == "ours" and exploit == "data parser that loads a second file":
        assert "names nerfstudio.engine.trainer.TrainerConfig" in message(run)
    elif command == "ours":  # A class or function is not taken from the file: its own is used.
        assert load_run(run).step == 3
    else:
        with pytest.raises(InputError, match="in the configuration is") as raised:
            yaml.load(text, yaml.Loader).setup()
        assert "\n" not in str(raised.value)
    assert not (run / "exploited").exists()
    assert "Consistent4D" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["consistent4d_ns_evil", "nerfstudio_evil", "pathlib_evil", "pathlib2"])
def test_a_module_whose_name_begins_like_a_trusted_one_is_not_imported(run: Path, monkeypatch, name: str):
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    (run / f"{name}.py").write_text("open('exploited', 'w'); from pathlib import Path as Thing")
    hostile_config(run, ("data",), f"!!python/object/apply:{name}.Thing [a]")
    assert f"names {name}.Thing" in message(run)
    hostile_config(run, ("data",), f"!!python/name:{name}.Thing ''")
    load_run(run)
    assert not (run / "exploited").exists()


def test_a_module_of_a_trusted_package_is_not_imported_by_name(tmp_path: Path):
    (tmp_path / "config.yml").write_text(
        "!!python/object:consistent4d_ns.trainer_config.Consistent4DTrainerConfig\n"
        "data: !!python/object/apply:nerfstudio.scripts.downloads.download_data.main []\n"
    )
    assert "names nerfstudio.scripts.downloads" in message(tmp_path)
    assert "nerfstudio.scripts.downloads.download_data" not in sys.modules


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (("max_num_iterations",), "a", "max_num_iterations in the configuration is a: expected int"),
        (("pipeline", "model", "hidden_width"), "[1]", "pipeline.model.hidden_width in the configuration is"),
        (("pipeline", "model", "channels"), "{}", "pipeline.model.channels in the configuration is {}"),
        (("pipeline", "guidance", "scale"), "null", "guidance.scale in the configuration is None: expected float"),
        (("pipeline", "datamanager"), "3", "pipeline.datamanager in the configuration is 3"),
        (("pipeline", "guidance", "kind"), "all", "pipeline.guidance.kind in the configuration is all"),
        (("experiment_name",), "3", "experiment_name in the configuration is 3: expected Optional[str]"),
        (("mixed_precision",), "!!bool maybe", "cannot be read as a configuration ('maybe')"),
        (("max_num_iterations",), "!!int ''", "cannot be read as a configuration"),
    ],
)
def test_values_of_another_type_are_named(run: Path, field: tuple[str, ...], value: str, expected: str):
    hostile_config(run, field, value)
    assert expected in message(run)


def test_fields_of_other_versions(run: Path, capsys):
    """What an earlier version did not save gets its default; what a later one added is ignored, with a warning."""
    text = (run / "config.yml").read_text().replace("    hidden_width: 16\n", "")
    (run / "config.yml").write_text(text.replace("overwrite: false\n", "new: 1\n"))
    config = read_config(run / "config.yml")
    assert config.pipeline.model.hidden_width == 32
    assert not config.overwrite
    assert "new in the configuration is unknown" in capsys.readouterr().out


@pytest.mark.parametrize("system", ["pathlib.WindowsPath", "pathlib.PosixPath", "pathlib._local.PosixPath"])
def test_a_run_that_another_system_wrote_opens(run: Path, finished: Path, system: str):
    frames = shutil.copytree(finished.parents[3] / "toy", run / "toy")
    text = (run / "config.yml").read_text().replace("apply:pathlib.Path", f"apply:{system}")
    (run / "config.yml").write_text(text.replace("\n- /\n", "\n- C:\\\n"))
    opened = load_run(run)
    assert opened.config.data == frames


def test_what_is_saved_opens_on_every_system(finished: Path):
    """Also with Nerfstudio's commands, which would fail on another system's kind of path."""
    text = (finished / "config.yml").read_text()
    assert "PosixPath" not in text
    assert "WindowsPath" not in text


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: 1", "{", "!!python/object:pathlib.Path {}", "\x00"])
def test_other_files_are_no_configuration(tmp_path: Path, text: str):
    (tmp_path / "config.yml").write_text(text)
    assert "give a run's folder or its config.yml" in message(tmp_path)


def test_another_method_s_configuration(tmp_path: Path):
    (tmp_path / "config.yml").write_text(yaml.dump(TrainerConfig(method_name="nerfacto")))
    assert "is a configuration of nerfacto, not of consistent4d" in message(tmp_path / "config.yml")


@pytest.mark.parametrize("tag", ["!!python/object:consistent4d_ns.method_configs.Consistent4DTrainerConfig", "!!map"])
def test_a_configuration_of_another_version(tmp_path: Path, tag: str):
    (tmp_path / "config.yml").write_text(f"{tag}\nmethod_name: consistent4d-mini\n")
    assert "is a configuration of another version of consistent4d: open the run" in message(tmp_path)


def test_a_checkpoint_without_its_configuration(run: Path):
    (run / "config.yml").unlink()
    assert "config.yml does not exist" in message(run)
    checkpoint = run / "nerfstudio_models" / "step-000000003.ckpt"
    assert "is a checkpoint: give a run's folder" in message(checkpoint)


def test_a_configuration_without_its_checkpoint(run: Path, finished: Path):
    assert "no checkpoint of step 7: choose from 2, 3" in message(run, step=7)
    shutil.rmtree(run / "nerfstudio_models")
    # The configuration still says where it was trained.
    assert load_run(run).step == 3
    config = (run / "config.yml").read_text()
    (run / "config.yml").write_text(config.replace(finished.name, "never"))
    assert "holds no checkpoint" in message(run)


CONTENTS = [b"", b"text", "truncated", "one bit", {"step": 1}, [1], {"step": True, "pipeline": {}}]


@pytest.mark.parametrize("content", CONTENTS)
def test_damaged_checkpoints(run: Path, content, capsys):
    checkpoint = run / "nerfstudio_models" / "step-000000003.ckpt"
    if content == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    elif content == "one bit":
        changed = bytearray(checkpoint.read_bytes())
        changed[len(changed) // 2] ^= 1
        checkpoint.write_bytes(changed)
    elif isinstance(content, bytes):
        checkpoint.write_bytes(content)
    else:
        torch.save(content, checkpoint)
    if isinstance(content, (dict, list)):
        assert "step-000000003.ckpt is not a checkpoint of a training run" in message(run)
        return
    assert "step-000000003.ckpt damaged" in message(run, step=3)
    capsys.readouterr()
    assert load_run(run).step == 2
    said = capsys.readouterr().out
    assert "step-000000003.ckpt damaged (cut off or altered); using step-000000002.ckpt." in said
    (run / "nerfstudio_models" / "step-000000002.ckpt").write_bytes(b"")
    assert "step-000000003.ckpt, step-000000002.ckpt damaged" in message(run)


class TestNerfstudiosCommands:
    """ns-render, ns-eval and ns-viewer open a run with `eval_setup`."""

    def test_a_copied_run_uses_its_own_checkpoints(self, run: Path, finished: Path):
        own = run / "nerfstudio_models"
        (own / "step-000000003.ckpt").unlink()
        config, pipeline, checkpoint, step = eval_setup(run / "config.yml", test_mode="inference")
        assert (checkpoint, step) == (own / "step-000000002.ckpt", 2)
        assert config.get_base_dir() == run
        expected = load_run(finished, step=2).pipeline.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in pipeline.state_dict().items())

    def test_a_torn_checkpoint_is_passed_over(self, run: Path):
        torn = run / "nerfstudio_models" / "step-000000003.ckpt"
        torn.write_bytes(torn.read_bytes()[:5000])
        assert eval_setup(run / "config.yml", test_mode="inference")[3] == 2

    def test_a_run_that_moved_with_its_frames(self, finished: Path, tmp_path: Path, capsys):
        whole = finished.parents[3]
        moved = tmp_path / "moved"
        shutil.copytree(whole, moved)
        here = moved / finished.relative_to(whole)
        config = here / "config.yml"
        config.write_text(config.read_text().replace(f"- {whole.name}\n", "- elsewhere\n"))
        opened = eval_setup(config, test_mode="inference")[0]
        assert opened.pipeline.datamanager.data == moved / "toy"
        assert "does not exist any more; using the frames in" in capsys.readouterr().out

    def test_without_a_checkpoint(self, run: Path):
        shutil.rmtree(run / "nerfstudio_models")
        config = run / "config.yml"
        config.write_text(config.read_text().replace("- out\n", "- never\n"))
        with pytest.raises(InputError, match="holds no checkpoint"):
            eval_setup(config, test_mode="inference")

    def test_frames_that_are_gone(self, run: Path):
        """What these commands can do about it is named: they have no --data."""
        config, frames = run / "config.yml", read_config(run / "config.yml").data
        assert frames is not None
        config.write_text(config.read_text().replace(f"- {frames.name}\n", "- gone\n"))
        expected = rf"no longer at .*gone: put them beside config.yml as {run / 'gone'}, or use `consistent4d render`"
        with pytest.raises(InputError, match=expected) as raised:
            eval_setup(config, test_mode="inference")
        assert "\n" not in str(raised.value)
