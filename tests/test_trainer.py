"""Starting, saving, resuming and stopping a training."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.scripts import train as nerfstudio_train
from nerfstudio.viewer.viewer import Viewer

from consistent4d_ns import trainer as trainer_module
from consistent4d_ns import trainer_config as trainer_config_module
from consistent4d_ns.cli.demo import train
from consistent4d_ns.errors import ENDING, InputError
from consistent4d_ns.files.checkpoints import list_checkpoints, read_checkpoint, write_checkpoint
from consistent4d_ns.files.locks import TrainingLock
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.record.history import read_history
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.runs import load_run
from consistent4d_ns.targets.config import HoldConfig, ImagineConfig
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig, create_folder
from tests.support.one_order import deterministic
from tests.support.tiny import attach_priors, contents, tiny_config, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consistent4DTrainerConfig:
    """A training of three steps that draws no pictures."""
    monkeypatch.setattr(TrainingReport, "finish", lambda self, step: self.save_history())
    made = tiny_config(data)
    made.output_dir, made.vis, made.max_num_iterations, made.timestamp = tmp_path / "out", "tensorboard", 3, "a"
    return made


def refusal(config: Consistent4DTrainerConfig) -> str:
    """What is said instead of starting; nothing is written."""
    with pytest.raises(InputError) as raised:
        config.set_timestamp()
    assert "\n" not in str(raised.value)
    assert not config.output_dir.exists()
    return str(raised.value)


OPTIONS = [
    ("max_num_iterations", 0, "--max-num-iterations is 0: give at least 1"),
    ("max_num_iterations", -5, "--max-num-iterations is -5"),
    ("steps_per_save", -1, "--steps-per-save is -1: give at least 0"),
    ("max_skipped_steps", 0, "--max-skipped-steps is 0: give at least 1"),
    ("logging.steps_per_log", 0, "--logging.steps-per-log is 0: give at least 1"),
    ("logging.max_buffer_size", 0, "--logging.max-buffer-size is 0"),
    ("machine.device_type", "mps", "--machine.device-type mps: this method has not been made to run on a Mac's GPU"),
    ("machine.num_devices", 2, "--machine.num-devices is 2: of kind cpu this machine has 1"),
    ("machine.num_devices", 0, "--machine.num-devices is 0"),
    ("machine.machine_rank", 3, "--machine.machine-rank is 3: give 0 to 0"),
    ("machine.seed", -1, "--machine.seed is -1: give 0 to"),
    ("viewer.websocket_port", 80000, "--viewer.websocket-port is 80000"),
    ("gradient_accumulation_steps", {"field": 0}, "--gradient-accumulation-steps field is 0"),
    ("pipeline.model.samples_per_ray", 0, "samples-per-ray"),
    ("pipeline.datamanager.plan.stage_steps", (5,), "stage-steps"),
    ("pipeline.guidance.max_noise.end", 0.15, "max-noise"),
    ("pipeline.targets.hold.rays", 0, "targets.hold.rays is 0: give 1 to 1048576"),
    ("load_dir", Path("nowhere"), "nowhere does not exist: give a run's folder"),
]


@pytest.mark.parametrize(("name", "value", "expected"), OPTIONS)
def test_wrong_options_are_one_line_at_the_start(config: Any, name: str, value: Any, expected: str):
    config.machine.device_type, config.pipeline.guidance.kind = "cpu", "zero123"
    *owners, field = name.split(".")
    owner: Any = config
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, field, value)
    assert expected in refusal(config)


def test_frames_have_to_be_named(config: Consistent4DTrainerConfig):
    """Nerfstudio would take the current folder."""
    config.data = config.pipeline.datamanager.data = None
    config.pipeline.datamanager.dataparser.data = Path()
    assert refusal(config).endswith(" reads frames: give a folder of RGBA frames or one animated file with --data.")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_learning_rates_that_cannot_work(config: Consistent4DTrainerConfig, rate: float):
    config.optimizers["field"]["optimizer"].lr = rate
    assert "--optimizers.field.optimizer.lr is" in refusal(config)


def test_a_device_that_is_not_there(config: Consistent4DTrainerConfig, monkeypatch: pytest.MonkeyPatch):
    config.machine.device_type = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--machine.device-type cuda: PyTorch finds no CUDA device" in refusal(config)


def test_sums_in_one_order_that_nobody_promises(config: Consistent4DTrainerConfig, monkeypatch: pytest.MonkeyPatch):
    config.machine.device_type, config.deterministic = "cuda", True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(trainer_config_module, "has_triton", lambda: False)
    assert "--deterministic True needs Triton on a GPU" in refusal(config)
    config.pipeline.interpolation.kind, config.pipeline.interpolation.grad_through_rife = "rife", True
    assert "--pipeline.interpolation.grad-through-rife at False" in refusal(config)
    config.pipeline.model.implementation = "tcnn"
    assert "tinycudann does not promise the same sums" in refusal(config)


def test_sums_are_taken_in_one_order_on_a_gpu_where_asked_for(config: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(trainer_module, "use_device", lambda device: None)
    for case in (("cpu", True), ("cuda", False), ("cuda", True)):
        config.machine.device_type, config.deterministic = case
        monkeypatch.setattr(trainer_module, "take_sums_in_one_order", partial(asked.append, case))
        config.setup()
    assert asked == [("cuda", True)]


@pytest.mark.parametrize("when", ["setup", "train_iteration"])
def test_a_function_of_torch_without_an_order_of_sums_is_named(
    config: Consistent4DTrainerConfig, monkeypatch: pytest.MonkeyPatch, when: str
):
    """As said by torch itself, about a function that has none on a CPU either."""

    def without_order(*_: Any) -> None:
        with deterministic():
            torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))

    monkeypatch.setattr(trainer_module.Trainer, when, without_order)
    with pytest.raises(InputError, match=r"--deterministic True: torch .* has no deterministic put_, which"):
        train(config)


def test_paths_are_saved_absolute(config: Consistent4DTrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    toy_folder(tmp_path).rename(tmp_path / "frames")
    (tmp_path / "prior").mkdir()
    config.data = config.pipeline.datamanager.data = Path("~/frames")
    config.output_dir, config.pipeline.interpolation.weights = Path("out"), Path("rife.pkl")
    config.pipeline.guidance.prior = "prior"
    config.save_config()
    saved = yaml.load((tmp_path / "out/frames/consistent4d-mini/a/config.yml").read_text(), yaml.Loader)
    assert saved.data == saved.pipeline.datamanager.data == tmp_path / "frames"
    assert saved.output_dir == tmp_path / "out"
    assert saved.pipeline.interpolation.weights == tmp_path / "rife.pkl"
    assert saved.pipeline.guidance.prior == str(tmp_path / "prior")
    parser = saved.pipeline.datamanager.dataparser
    assert (parser.elevation, parser.distance, parser.fovy) == (0.0, 2.0, 49.1), "those of meta.json, which may change"
    assert saved.relative_model_dir == Path("nerfstudio_models")


def test_a_run_is_not_trained_over(config: Consistent4DTrainerConfig, tmp_path: Path):
    """Neither with its time stamp nor with its config.yml, unless that is asked for."""
    folder = train(deepcopy(config)).config.get_base_dir()
    kept = [path for path in folder.rglob("*") if path.suffix in (".ckpt", ".jsonl", ".yml")]
    before = {path: path.read_bytes() for path in kept}
    assert len(before) == 3
    again = [deepcopy(config), yaml.load((folder / "config.yml").read_text(), yaml.Loader)]
    for other in again:
        for start in (other.set_timestamp, other.save_config):
            with pytest.raises(InputError, match=r"exists already: leave out --timestamp .* give --load-dir") as raised:
                start()
            assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in kept} == before
    # With the option, old checkpoints and losses do not mix with new ones.
    config.overwrite, config.max_num_iterations = True, 2
    train(config)
    assert list(list_checkpoints(folder / "nerfstudio_models")) == [1]
    assert [row["step"] for row in read_history(folder / "losses.jsonl")] == [0, 1]
    assert not yaml.load((folder / "config.yml").read_text(), yaml.Loader).overwrite


def test_a_resumed_run_is_not_trained_over_with_its_configuration(config: Consistent4DTrainerConfig):
    """Its config.yml does not say that it was resumed, hence it does not reuse its folder a second time."""
    config.load_dir = train(deepcopy(config)).config.get_base_dir()
    config.max_num_iterations = 4
    folder = train(config).config.get_base_dir()
    assert folder == config.get_base_dir()
    assert config.load_checkpoint is not None
    again = yaml.load((folder / "config.yml").read_text(), yaml.Loader)
    assert again.load_checkpoint is None
    for start in (again.set_timestamp, again.save_config):
        with pytest.raises(InputError, match="exists already: leave out --timestamp"):
            start()


def test_a_run_that_is_being_trained_is_neither_resumed_nor_replaced(config: Consistent4DTrainerConfig):
    folder = train(deepcopy(config)).config.get_base_dir()
    before = contents(folder)
    held, config.max_num_iterations = TrainingLock(folder), 4
    for change in ({"load_dir": folder}, {"overwrite": True}):
        other = deepcopy(config)
        vars(other).update(change)
        with pytest.raises(InputError, match="another process is training in"):
            other.save_config()
    with pytest.raises(InputError, match="another process is training in"):
        config.setup(local_rank=0, world_size=1).setup()
    assert contents(folder) == before
    held.release()


def test_the_checkpoint_that_is_named_at_the_end_is_whole(tmp_path: Path):
    (tmp_path / "step-000000009.ckpt").write_bytes(b"half")
    assert trainer_module.kept(tmp_path) == "There is no checkpoint yet."
    write_checkpoint(tmp_path / "step-000000004.ckpt", {"step": 4})
    assert trainer_module.kept(tmp_path).endswith("step-000000004.ckpt.")


def test_trainings_that_start_in_the_same_second(config: Consistent4DTrainerConfig, tmp_path: Path):
    config.timestamp = "{timestamp}"
    config.set_timestamp()
    configs = [deepcopy(config) for _ in range(4)]
    assert len({other.timestamp for other in configs}) == 1
    with ThreadPoolExecutor() as pool:
        list(pool.map(Consistent4DTrainerConfig.save_config, configs))
    folders = {other.get_base_dir() for other in configs}
    assert len(folders) == 4
    assert all((folder / "config.yml").stat().st_size for folder in folders)


def test_a_folder_is_claimed_by_one_process(tmp_path: Path):
    with ProcessPoolExecutor(4) as pool:
        claimed = list(pool.map(create_folder, [tmp_path / "a" / "b"] * 16))
    assert [folders[0] for folders in claimed if folders] == [tmp_path / "a" / "b"]


@pytest.mark.slow
def test_a_full_disk_while_saving(config: Consistent4DTrainerConfig, monkeypatch: pytest.MonkeyPatch, capsys):
    """Training goes on, the last whole checkpoint stays, and is replaced when there is room again."""
    config.max_num_iterations, config.steps_per_save = 6, 2
    save, full = torch.save, {4}

    def save_until_full(state: Any, path: Path) -> None:
        if state["step"] in full:
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
        save(state, path)

    monkeypatch.setattr(torch, "save", save_until_full)
    folder = train(deepcopy(config)).config.get_base_dir() / "nerfstudio_models"
    said = capsys.readouterr().out
    assert "cannot write" in said
    assert f"The last checkpoint is {folder / 'step-000000002.ckpt'}." in said
    assert list(list_checkpoints(folder)) == [5]
    full |= {5}
    config.timestamp = "b"
    with pytest.raises(InputError, match=r"cannot write .*step-000000005.ckpt"):
        train(config)
    last = folder.parent.parent / "b" / "nerfstudio_models"
    assert [path.name for path in last.iterdir()] == ["step-000000002.ckpt"]


def interrupt_at(
    step: int, monkeypatch: pytest.MonkeyPatch, times: int = 1, number: signal.Signals = signal.SIGINT
) -> None:
    """Press Ctrl-C, or send another signal, in the middle of a training step."""
    original = trainer_module.Trainer.train_iteration

    def train_iteration(self: Any, current: int) -> Any:
        if current == step:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(self, current)

    monkeypatch.setattr(trainer_module.Trainer, "train_iteration", train_iteration)


def test_memory_of_a_cpu_is_returned_from_time_to_time(config: Consistent4DTrainerConfig, monkeypatch):
    called: list[int] = []
    monkeypatch.setattr(trainer_module, "return_freed_memory_now_and_then", lambda: called.append(1))
    train(config)
    assert len(called) == config.max_num_iterations


def test_ctrl_c_saves_a_checkpoint_and_the_losses(config: Consistent4DTrainerConfig, monkeypatch, capsys):
    """Through Nerfstudio's own launcher; the step is finished, one line is said, the exit code is 130."""
    config.max_num_iterations = 1000
    interrupt_at(4, monkeypatch)
    with pytest.raises(SystemExit) as raised:
        nerfstudio_train.main(config)
    assert raised.value.code == 130
    said = capsys.readouterr().out
    folder = config.get_base_dir()
    checkpoint = folder / "nerfstudio_models" / "step-000000004.ckpt"
    assert f"Stopped after step 4. The last checkpoint is {checkpoint}. To go on, add --resume True to the" in said
    assert "Traceback" not in said
    assert read_checkpoint(checkpoint)["step"] == 4
    assert [row["step"] for row in read_history(folder / "losses.jsonl")] == list(range(5))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_training_as_ctrl_c_does(config: Consistent4DTrainerConfig, monkeypatch, capsys, number):
    """Schedulers send one before they kill, and `timeout` sends it twice."""
    interrupt_at(1, monkeypatch, 2, number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as raised:
        train(config)
    assert raised.value.code == 128 + number
    assert "Stopped after step 1. The last checkpoint is " in capsys.readouterr().out
    assert list(list_checkpoints(config.get_checkpoint_dir())) == [1]
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_what_is_resumed_after_ctrl_c_equals_an_uninterrupted_run(config: Consistent4DTrainerConfig, monkeypatch):
    config.max_num_iterations = 8
    whole = train(deepcopy(config)).config.get_base_dir()
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        config.timestamp = "b"
        with pytest.raises(SystemExit):
            train(deepcopy(config))
    config.load_dir = whole.parent / "b"
    folder = train(config).config.get_base_dir()
    assert read_history(folder / "losses.jsonl") == read_history(whole / "losses.jsonl")
    first, second = (read_checkpoint(each / "nerfstudio_models" / "step-000000007.ckpt") for each in (whole, folder))
    assert all(torch.equal(value, second["pipeline"][name]) for name, value in first["pipeline"].items())


@pytest.mark.parametrize("stopped", [5, 9])
def test_what_is_resumed_inside_a_round_of_target_views_equals_an_uninterrupted_run(
    config: Consistent4DTrainerConfig, monkeypatch, stopped: int
):
    """Imagined views at steps 0 to 3 and 4 to 7, held ones at 8 to 11, with a falling learning rate.

    The steps between them fit random pixels of the input view.
    """
    monkeypatch.setattr(Consistent4DPipeline, "load_priors", lambda self, _: attach_priors(self))
    targets = config.pipeline.targets
    targets.imagine = ImagineConfig(steps=4, views=4, sampling_steps=2, rays=100, image_size=8)
    targets.hold = HoldConfig(steps=4, begin_step=8, views=4, rays=100, image_size=8)
    config.pipeline.datamanager.plan.reference_rays = 100
    config.pipeline.guidance.kind, config.max_num_iterations = "zero123", 13
    whole = train(deepcopy(config)).config.get_base_dir()
    with monkeypatch.context() as patch:
        interrupt_at(stopped, patch)
        config.timestamp = "b"
        with pytest.raises(SystemExit):
            train(deepcopy(config))
    config.load_dir = whole.parent / "b"
    half = read_checkpoint(config.load_dir / "nerfstudio_models" / f"step-{stopped:09d}.ckpt")
    assert half["targets"]["begin"] == stopped // 4 * 4
    assert load_run(config.load_dir, device="cpu").step == stopped
    folder = train(config).config.get_base_dir()
    assert read_history(folder / "losses.jsonl") == read_history(whole / "losses.jsonl")
    first, second = (read_checkpoint(each / "nerfstudio_models" / "step-000000012.ckpt") for each in (whole, folder))
    assert "targets" not in first
    assert all(torch.equal(value, second["pipeline"][name]) for name, value in first["pipeline"].items())


def test_updates_are_scaled_beside_a_scheduler():
    """Two steps of gradient descent, the second with a tenth of the rate that the scheduler set."""
    value, factors = torch.nn.Parameter(torch.zeros(1)), iter((1.0, 0.1))
    optimizer = torch.optim.SGD([value], lr=1.0)
    trainer_module.scale_updates(optimizer, lambda: next(factors))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    moves = []
    for _ in range(2):
        before = float(value)
        value.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        moves.append(before - float(value))
    assert moves == pytest.approx([1.0, 0.05])
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("step", "times", "said"), [(0, 1, "Stopped in step 0. There is no checkpoint yet."), (2, 2, "Stopped in step 2.")]
)
def test_ctrl_c_at_once(config: Consistent4DTrainerConfig, monkeypatch, capsys, step: int, times: int, said: str):
    """In the first step there is nothing to save; the second time nothing is waited for."""
    interrupt_at(step, monkeypatch, times)
    with pytest.raises(SystemExit) as raised:
        train(config)
    assert raised.value.code == 130
    assert said in capsys.readouterr().out
    assert not list_checkpoints(config.get_checkpoint_dir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_that_is_asked_for_while_the_last_checkpoint_is_written(
    config: Consistent4DTrainerConfig, monkeypatch, capsys, number: signal.Signals
):
    """It is written to its end, and nobody is told to go on with a training that is complete."""
    write = trainer_module.write_checkpoint

    def interrupted(path: Path, state: Any) -> None:
        if state["step"] == config.max_num_iterations - 1:
            os.kill(os.getpid(), number)
        write(path, state)

    monkeypatch.setattr(trainer_module, "write_checkpoint", interrupted)
    with pytest.raises(SystemExit) as raised:
        train(config)
    assert raised.value.code == 128 + number
    said = " ".join(capsys.readouterr().out.split())
    assert "All steps are done; stopped before the plot and the contact sheet" in said
    assert "--resume" not in said
    assert list(list_checkpoints(config.get_checkpoint_dir())) == [config.max_num_iterations - 1]


def test_ctrl_c_while_loading(config: Consistent4DTrainerConfig, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(config.pipeline), "setup", interrupt)
    with pytest.raises(SystemExit) as raised:
        train(config)
    assert raised.value.code == 130
    assert "stopped before the first step" in capsys.readouterr().out
    assert not config.output_dir.exists()


def test_a_training_that_cannot_begin_leaves_no_folder(config: Consistent4DTrainerConfig, tmp_path: Path):
    """Neither its own nor those above it, unless they were there or hold something else."""
    config.pipeline.datamanager.data = config.data = tmp_path / "frames"
    config.data.mkdir()
    with pytest.raises(InputError, match="holds no frames"):
        train(deepcopy(config))
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    config.get_base_dir().mkdir(parents=True)
    config.overwrite = True
    with pytest.raises(InputError, match="holds no frames"):
        train(config)
    assert config.get_base_dir().is_dir()


def test_resuming_with_another_model_is_one_line(config: Consistent4DTrainerConfig):
    config.load_dir = train(deepcopy(config)).config.get_base_dir()
    config.timestamp, config.max_num_iterations, config.pipeline.model.hidden_width = "b", 4, 8
    with pytest.raises(
        InputError, match=r"000002\.ckpt does not fit this method and its options: the checkpoint's parameters"
    ):
        train(config)


@pytest.mark.slow
def test_the_log_is_one_line_per_logged_step(config: Consistent4DTrainerConfig, capsys: pytest.CaptureFixture[str]):
    """Where the output is no terminal; the last step is logged, and is 100 %, also of a resumed run."""
    config.max_num_iterations, config.logging.steps_per_log = 8, 5
    folder = train(deepcopy(config)).config.get_base_dir()
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    steps = [line.split(", ")[0].removeprefix("step ") for line in lines]
    assert steps == ["1 of 8 (12.50%)", "6 of 8 (75.00%)", "8 of 8 (100.00%)"]
    assert "Train Rays / Sec" in lines[-1]
    assert "\x1b" not in said
    config.load_dir, config.timestamp, config.max_num_iterations = folder, "b", 16
    train(config)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 9 of 16 (56.25%)")
    assert lines[-1].startswith("step 16 of 16 (100.00%)")


def test_on_a_terminal_the_table_stays(config: Consistent4DTrainerConfig, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train(config)
    said = capsys.readouterr().out
    assert "Step (% Done)" in said
    assert "3 (100.00%)" in said


def test_a_viewer_that_stays_open_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    viewer = Viewer.__new__(Viewer)
    viewer.viser_server = SimpleNamespace(get_port=lambda: 7123)  # type: ignore[assignment]
    trainer = trainer_module.Consistent4DTrainer.__new__(trainer_module.Consistent4DTrainer)
    monkeypatch.setattr(trainer_module.Trainer, "_train_complete_viewer", lambda _: None)
    trainer.viewer_state = None
    trainer._train_complete_viewer()
    assert capsys.readouterr().out == ""
    trainer.viewer_state = viewer
    trainer._train_complete_viewer()
    assert capsys.readouterr().out == "The viewer stays open at http://localhost:7123; Ctrl-C ends it.\n"
