"""Which runs a sweep consists of, what they are called, and which of them are done already."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from consistent4d_ns.cli.sweep import sweep
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import list_checkpoints
from consistent4d_ns.method_configs import PRESETS, preset
from consistent4d_ns.runs import read_config
from consistent4d_ns.sweeping.planning import is_finished, plan
from tests.support.tiny import tiny_run

CPU = "machine.device_type=cpu"


def planned(*settings: str, seeds: tuple[int, ...] = (), method: str = "consistent4d-mini") -> list[Any]:
    return plan(method, Path("frames"), Path("out"), seeds, [CPU, *settings])


def test_every_combination_in_order_with_a_name():
    jobs = planned("pipeline.guidance.scale=1,1.5", "--max-num-iterations=9", seeds=(0, 7))
    assert [job.name for job in jobs] == ["scale-1_seed-0", "scale-1_seed-7", "scale-1.5_seed-0", "scale-1.5_seed-7"]
    configs = [job.config() for job in jobs]
    assert [(one.pipeline.guidance.scale, one.machine.seed) for one in configs] == [(1, 0), (1, 7), (1.5, 0), (1.5, 7)]
    assert {one.max_num_iterations for one in configs} == {9}
    assert {one.vis for one in configs} == {"tensorboard"}
    assert configs[0].get_base_dir() == Path("out/frames/consistent4d-mini/scale-1_seed-0").absolute()
    assert [job.name for job in planned(seeds=(3, 4))] == ["seed-3", "seed-4"]


def test_names_are_plain_and_different():
    plan_of = "pipeline.datamanager.plan."
    jobs = planned(f"{plan_of}clip_views=4 4, 4 1", "pipeline.targets.imagine.steps=0,250", f"{plan_of}views=4 2")
    assert jobs[1].name == "clip-views-4-4_imagine.steps-250"
    assert jobs[2].name == "clip-views-4-1_imagine.steps-0"
    jobs = planned("pipeline.guidance.min_noise.end=0.2,0.3", "pipeline.guidance.max_noise.end=0.4,0.5")
    assert jobs[0].name == "min-noise.end-0.2_max-noise.end-0.4"
    prior = [job.name for job in planned("pipeline.guidance.prior=../up,a/b")]
    assert prior == ["prior-..-up", "prior-a-b"]


@pytest.mark.parametrize(
    ("settings", "seeds", "words"),
    [
        ((), (), "nothing to vary"),
        (("pipeline.guidance.scale=1",), (), "nothing to vary"),
        (("pipeline.guidance.scale",), (0, 1), "give PATH=VALUE,VALUE"),
        (("pipeline.guidance.scale=1,1",), (), "has 1 twice"),
        ((), (2, 2), "--seeds has 2 twice"),
        (("machine.seed=0,1",), (0, 1), "machine.seed is given twice"),
        (("max-num-iterations=3", "max_num_iterations=4"), (0, 1), "max_num_iterations is given twice"),
        (("timestamp=a,b",), (), "a sweep sets this itself"),
        (("load-dir=somewhere",), (0, 1), "a sweep sets this itself"),
        (
            ("pipeline.guidance.skale=1,2",),
            (),
            "has no option pipeline.guidance.skale: did you mean pipeline.guidance.scale?",
        ),
        (("max-num-iteration=3",), (0, 1), "has no option max-num-iteration: did you mean max-num-iterations?"),
        (("pipeline.guidance.scale=1,high",), (), "'high' is not of type float"),
        (("pipeline.guidance.scale=1,",), (), "scale"),
        (("pipeline.model.loss_weights.rgb=1,-1",), (), "loss-weights.rgb is -1"),
        ((), (0, -1), "--machine.seed is -1"),
        (("pipeline.guidance.prior=a b,a/b",), (), "two runs would get the folder prior-a-b"),
        ((f"pipeline.guidance.prior=a,{'b' * 300}",), (), "too long for a folder"),
    ],
)
def test_what_cannot_be_planned(settings: tuple[str, ...], seeds: tuple[int, ...], words: str):
    with pytest.raises(InputError) as raised:
        planned(*settings, seeds=seeds)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_knows_every_preset_for_frames():
    method = get_type_hints(sweep, include_extras=False)["method"]
    frames = (one for one in PRESETS if preset(one).has_frames)
    assert set(get_args(method)) == {one.config.method_name for one in frames}


@pytest.mark.slow
def test_what_is_done_already(tmp_path: Path):
    run = tiny_run(tmp_path, 3, timestamp="seed-0")
    trained = read_config(run)
    trained.opened_in = None

    def config(**changes: Any) -> Any:
        made = copy.copy(trained)
        vars(made).update(changes)
        return made

    assert is_finished(config())
    assert not is_finished(config(), overwrite=True)
    assert not is_finished(config(timestamp="seed-1"))
    with pytest.raises(InputError, match=r"with other options \(max-num-iterations 3\): give another --out"):
        is_finished(config(max_num_iterations=5))
    assert not is_finished(config(max_num_iterations=5), overwrite=True)
    pipeline = copy.deepcopy(trained.pipeline)
    pipeline.datamanager.dataparser.distance = None  # that of meta.json
    assert is_finished(config(pipeline=copy.deepcopy(pipeline)))
    meta = tmp_path / "toy" / "meta.json"
    text = meta.read_text()
    meta.write_text(text.replace('"distance": 2.0', '"distance": 2.5'))
    with pytest.raises(InputError, match=r"other options \(.*distance 2\)"):
        is_finished(config(pipeline=pipeline))
    meta.write_text(text)
    with pytest.raises(InputError, match=r"other options \(data .*toy\)"):
        is_finished(config(data=tmp_path / "others"))
    frame = next((tmp_path / "toy" / "input").iterdir())
    content = frame.read_bytes()
    frame.write_bytes(content + b"changed")
    with pytest.raises(InputError, match=r"a run on other frames than .*toy now holds: give another --out, or --over"):
        is_finished(config())
    frame.write_bytes(content)
    assert is_finished(config())
    (last,) = list_checkpoints(run / "nerfstudio_models").values()
    last.write_bytes(last.read_bytes()[:-100])
    assert not is_finished(config()), "its checkpoint is damaged"
    last.unlink()
    assert not is_finished(config()), "it was ended before there was one"
    shutil.rmtree(run)
    run.mkdir()
    assert not is_finished(config())
    (run / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"seed-0 is in the way .* Move it away"):
            is_finished(config(), overwrite)
