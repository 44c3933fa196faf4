"""Which jobs a file or a folder describes, what is refused, and which commands they become."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from consistent4d_ns.batching.counting import Frames, counted
from consistent4d_ns.batching.jobs import Common, Export, Job, jobs_in, read_jobs
from consistent4d_ns.batching.planning import EXPORTS, work_of
from consistent4d_ns.batching.slurm import script
from consistent4d_ns.batching.sources import needs_preparing, sequences_in
from consistent4d_ns.cli.batch import checked
from consistent4d_ns.cli.option_checks import COMMANDS
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.names import absolute

TWO = "jobs: [{name: a, data: a.mp4, method: consistent4d-mini}, {name: b, data: b.mp4, method: consistent4d-mini}]"


def read(folder: Path, text: str) -> list[Job]:
    """The jobs of a file in a folder with two videos."""
    for name in ("a.mp4", "b.mp4"):
        (folder / name).touch()
    (folder / "jobs.yaml").write_text(text)
    jobs = read_jobs(folder / "jobs.yaml", lambda path: path.name == "a.mp4")
    jobs = [checked(job) for job in jobs]
    for job in jobs:
        work_of(job, folder / "out", folder, 2)
    return jobs


def test_defaults_and_what_jobs_say(tmp_path: Path):
    a, b = read(
        tmp_path,
        """
defaults:
  method: consistent4d-mini
  options: {max_num_iterations: 100, machine.seed: 1}
  exports: [web]
jobs:
  - {name: a, data: a.mp4}
  - name: b
    data: b.mp4
    method: consistent4d
    prepare: {frames: 16, box: [0, 0, 9, 9]}
    options: {--machine.seed: 7}
    truth: .
    evaluate: {metrics: [psnr, ssim]}
    exports: {mesh: {faces: 5000, lit: true}, video: {format: webm}, web:}
""",
    )
    assert (a.data, a.prepare, a.exports) == (tmp_path / "a.mp4", {}, {"web": {}})
    assert b.options == {"max-num-iterations": "100", "machine.seed": "7"}
    assert (b.method, b.truth) == ("consistent4d", tmp_path)
    work = work_of(b, tmp_path / "out", tmp_path, 2)
    prepare, train, evaluate, mesh, video, web = work.steps
    place = tmp_path / "out" / "b"
    run = str(place / "consistent4d" / "run")
    assert prepare.arguments[2:5] == ("prepare", str(tmp_path / "b.mp4"), str(place / "frames"))
    assert prepare.arguments[5:] == ("--frames", "16", "--box", "0", "0", "9", "9")
    training = json.loads(train.arguments[-1])
    assert training["data"] == str(place / "frames")
    assert training["assignments"] == ["max-num-iterations=100", "machine.seed=7"]
    assert str(place / train.output) == run
    assert evaluate.arguments[2:] == (
        *("eval", "--gt", str(tmp_path), "--run", run, "--objects", "b"),
        *("--out", str(place / "metrics"), "--metrics", "psnr", "ssim"),
    )
    assert mesh.arguments[2:] == ("export", "mesh", run, str(place / "mesh.glb"), "--faces", "5000", "--lit")
    assert video.output == "video.webm"
    assert web.arguments[2:] == ("export", "web", run, str(place / "page.html"))
    assert work.total == 100


def test_what_steps_read(tmp_path: Path):
    """Footage with its masks, prepared frames, truth, and what options name."""
    for name in ("toy/input", "toy/eval_0", "clip/JPEGImages/480p", "clip/Annotations", "masks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "camera.json").touch()
    footage, frames = read(
        tmp_path,
        f"""
defaults: {{method: consistent4d-mini}}
jobs:
  - {{name: a, data: clip, prepare: {{masks: masks, key: "{"x" * 5000}"}}, exports: {{video: {{path: camera.json}}}}}}
  - {{name: b, data: toy, prepare: false, truth: toy, exports: [web]}}
""",
    )
    inputs = {
        (job.name, step.name): [os.path.relpath(one.path, tmp_path) for one in step.inputs]
        for job in (footage, frames)
        for step in work_of(job, tmp_path / "out", tmp_path, 2).steps
    }
    assert inputs == {
        ("a", "prepare"): ["clip/JPEGImages", "clip/JPEGImages/480p", "clip/Annotations", "masks"],
        ("a", "train"): ["out/a/frames", "out/a/frames/prepare.json"],
        ("a", "video"): ["camera.json"],
        ("b", "train"): ["toy/input", "toy/meta.json"],
        ("b", "evaluate"): ["toy/meta.json", "toy/eval_0"],
        ("b", "web"): [],
    }


@pytest.mark.parametrize(
    ("reads", "frames", "others"),
    [
        ("frames", ["0000.png", "0001.png", "0002.png"], ["contact.png", "0003.jpg", "preview.png", "notes.json"]),
        ("footage", ["a0.jpg", "a1.jpg", "a2.png"], ["contact.png", "a3.npy", "clip.mp4"]),
        ("footage", ["0_rgba.png", "1_rgba.png"], ["0.png", "1.png", "2.png"]),
        ("views", ["0.png", "x_1.jpg"], ["contact.png", "1.npy"]),
        ("frames", ["a.png", "b.png"], []),
        ("frames", ["preview.png"], []),
        ("frames", [""], []),
    ],
)
def test_which_files_of_a_folder_are_frames(reads: Frames, frames: list[str], others: list[str]):
    assert counted(reads, [*others, *frames]) == set(frames)


SPELLINGS = (
    ("data: a.mp4", "data: ../{here}/./a.mp4"),
    ("truth: .", "truth: ../{here}/"),
    ("options: {max-num-iterations: 10}", "options: {--max_num_iterations: 010}"),
    ("options: {pipeline.guidance.scale: 3}", "options: {pipeline.guidance.scale: 3.0}"),
    ("options: {pipeline.datamanager.plan.views: 2 4}", "options: {pipeline.datamanager.plan.views: [02, 4]}"),
    ("prepare: {frames: 16, masks: masks}", "prepare: {frames: 0016, masks: ../{here}/masks/}"),
    ("exports: {mesh: {min-part: 0.1, lit: true}}", "exports: {mesh: {min-part: 1e-1, lit: True}}"),
    ("exports: {web: {times: [0, 0.5]}}", "exports: {web: {times: [0.0, .50]}}"),
)
OTHERS = (
    ("exports: {web: {title: 1}}", "exports: {web: {title: 01}}"),
    ("exports: {web: {title: a}}", "exports: {web: {title: ./a}}"),
    ("options: {pipeline.guidance.scale: 3}", "options: {pipeline.guidance.scale: 3.01}"),
    ("data: a.mp4", "data: b.mp4"),
)


@pytest.mark.parametrize(
    ("one", "other", "same"), [*((*pair, True) for pair in SPELLINGS), *((*p, False) for p in OTHERS)]
)
def test_what_means_the_same_is_the_same_however_it_is_written(tmp_path: Path, one: str, other: str, same: bool):
    (tmp_path / "masks").mkdir()
    steps = []
    for text in (one, other):
        rest = "" if text.startswith("data") else ", data: a.mp4"
        text = f"jobs: [{{name: a, method: consistent4d-mini{rest}, {text.replace('{here}', tmp_path.name)}}}]"
        (job,) = read(tmp_path, text)
        steps.append(work_of(job, tmp_path / "out", tmp_path, 2).steps)
    assert (steps[0] == steps[1]) == same


def test_a_parent_of_a_link_is_where_the_link_leads(tmp_path: Path):
    for name in ("far/inside", "near"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "inside")
    assert absolute(tmp_path / "near" / "link" / ".." / "a") == tmp_path / "far" / "a"
    assert absolute(tmp_path / "near" / "link" / "a" / "..") == tmp_path / "near" / "link"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "give defaults, jobs"),
        ("- a", "give defaults, jobs"),
        ("jobs: []", "lists no jobs"),
        ("job: []", "job is unknown; did you mean jobs?"),
        ("jobs: [{name: a, data: a.mp4}]", "job a: method is missing"),
        ("jobs: [{name: a, method: consistent4d-mini}]", "job a: data is missing"),
        ("jobs: [{data: a.mp4}]", "job 1: name is missing"),
        ("jobs: [{name: a, data: a.mp4, methode: x}]", "job 1: methode is unknown; did you mean method?"),
        ("defaults: {name: a}\njobs: [{}]", "defaults: name is unknown"),
        ("jobs: [{name: a, data: a.mp4, method: consistent4d-min}]", "did you mean consistent4d-mini"),
        ("jobs: [{name: a, data: gone.mp4, method: consistent4d-mini}]", "gone.mp4 does not exist"),
        ("jobs: [{name: a, data: [a.mp4], method: consistent4d-mini}]", "data is missing"),
        (TWO.replace("name: b", "name: A"), "a and A would share a folder"),
        (TWO.replace("name: b", "name: ../b"), "'../b' is no name for a job's folder"),
        (TWO.replace("name: b", "name: -b"), "'-b' is no name for a job's folder"),
        (TWO.replace("name: b", "name: .."), "'..' is no name for a job's folder"),
        (TWO.replace("name: b", f"name: {'b' * 151}"), "is no name for a job's folder"),
        (TWO.replace("name: b", "name: status.json"), "ends as a file of the batch does"),
        (TWO.replace("}]", ", truth: gone}]"), "truth: "),
        (TWO.replace("}]", ", prepare: maybe}]"), "give true, false, or options"),
        (TWO.replace("}]", ", prepare: {framez: 3}}]"), "b: prepare: framez is unknown; did you mean frames"),
        (TWO.replace("}]", ", prepare: {frames: many}}]"), "b: prepare: --frames many cannot be used: Error parsing"),
        (TWO.replace("}]", ", prepare: {review: true}}]"), "review is set by the batch itself"),
        (TWO.replace("}]", ", exports: [wob]}]"), "wob is unknown; did you mean web"),
        (TWO.replace("}]", ", exports: {web: {out: x}}}]"), "b: web: out is unknown"),
        (TWO.replace("}]", ", exports: {mesh: {faces: [[1]]}}}]"), "faces is not a value"),
        (TWO.replace("}]", ", evaluate: {metrics: [psmr]}}]"), "psmr"),
        (TWO.replace("}]", ", options: {machine.sed: 1}}]"), "b: options: machine.sed=1: consistent4d-mini has no"),
        (TWO.replace("}]", ", options: {machine.seed: x}}]"), "b: options: machine.seed=x: 'x' is not of type int"),
        (TWO.replace("}]", ", options: {output-dir: x}}]"), "output-dir=x is set by the batch itself"),
        (TWO.replace("}]", ", options: {a_b: 1, a-b: 2}}]"), "a-b is given twice"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str):
    with pytest.raises(InputError) as raised:
        read(tmp_path, text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_export_is_known_to_all():
    assert set(EXPORTS) == set(get_args(Export)) == set(COMMANDS) - {"prepare", "evaluate"}


def picture(path: Path, alpha: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (16, 16), (9, 9, 9, alpha)).save(path)


def test_a_folder_of_sequences(tmp_path: Path):
    """What has alpha is trained on as it is; the others are prepared."""
    picture(tmp_path / "cut" / "0.png", 0)
    picture(tmp_path / "whole" / "0.png", 255)
    picture(tmp_path / "views" / "input" / "0.png", 255)
    picture(tmp_path / "tool" / "JPEGImages" / "0.png", 255)
    picture(tmp_path / "moving.gif", 255)
    (tmp_path / "broken.mp4").write_bytes(b"none")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / "empty").mkdir()
    common = Common("consistent4d-mini", {"machine.seed": "3"}, ("web",))
    jobs = jobs_in(tmp_path, sequences_in(tmp_path), common, needs_preparing)
    prepared = {job.name: job.prepare is not None for job in jobs}
    assert prepared == {"broken": True, "cut": False, "moving": True, "tool": True, "views": False, "whole": True}
    assert all(job.options == {"machine.seed": "3"} and job.exports == {"web": {}} for job in jobs)
    (tmp_path / "cut.mov").touch()
    with pytest.raises(InputError, match="cut and cut would share a folder"):
        jobs_in(tmp_path, sequences_in(tmp_path), common, needs_preparing)
    with pytest.raises(InputError, match="holds no videos and no folders of frames"):
        jobs_in(tmp_path / "empty", sequences_in(tmp_path / "empty"), common, needs_preparing)


NAMES = ("a", "b c", "d'e", "$(touch f)", 'gé"h')


@pytest.mark.skipif(os.name != "posix", reason="needs bash")
def test_the_script_for_slurm_does_one_job_a_task(tmp_path: Path):
    """Each task is given its own job, whatever it is called."""
    echo = tmp_path / "e cho"
    echo.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    echo.chmod(0o755)
    out = tmp_path / "o 100% ut"
    text = script(NAMES, [str(echo), "batch", "a b.yaml"], out, ["partition=gpu", "--time=2:00:00", "exclusive"], 4)
    file = tmp_path / "jobs.sh"
    file.write_text(text)
    assert subprocess.run(["bash", "-n", file], check=True, capture_output=True).stderr == b""
    for index, name in enumerate(NAMES):
        env = {"SLURM_ARRAY_TASK_ID": str(index), "PATH": os.environ["PATH"]}
        said = subprocess.run(["bash", file], env=env, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        assert said == f"batch|a b.yaml|--only|{name}|"
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --array=0-4%4" in lines
    assert f'#SBATCH --output="{str(out).replace("%", "%%")}/slurm-%a.txt"' in lines
    assert {"#SBATCH --partition=gpu", "#SBATCH --time=2:00:00", "#SBATCH --exclusive", "#SBATCH --gpus=1"} <= set(
        lines
    )
    assert not (tmp_path / "f").exists()
    for bare in ("hold", "excl", "exclusive=user", "no-kill", "nice=7"):
        assert f"#SBATCH --{bare}\n" in script(NAMES, ["x"], out, [bare], None)
    for plugin in ("container-writable", "container-image=a"):  # Pyxis'
        assert f"#SBATCH --{plugin}\n" in script(NAMES, ["x"], out, [plugin], None)
    for gpus in ("gres=gpu:2", "gpus-per-t=2"):
        assert "--gpus=1" not in script(NAMES, ["x"], out, [gpus], None)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("array=0-3", "--sbatch array=0-3: the script sets array itself"),
        ("--arr=0-3", "arr may stand for array: the script sets array itself"),
        ("a=0-3", "a may stand for array"),
        ("-a=0-3", "with the long name"),
        ("no-req", "may stand for no-requeue"),
        ("a b=c", "NAME=VALUE"),
        ('comment=a"b', "quotes"),
        ("partition", "sbatch needs a value here: give partition=VALUE"),
        ("--part", "give part=VALUE"),
        ("time=", "give time=VALUE"),
        ("hold=yes", "sbatch takes no value here: give hold alone"),
    ],
)
def test_options_that_cannot_be_in_the_script(option: str, words: str):
    with pytest.raises(InputError, match=words):
        script(NAMES, ["x"], Path("/out"), [option], None)
