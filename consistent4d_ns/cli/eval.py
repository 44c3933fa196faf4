"""`consistent4d eval`: the metrics of the paper, from renderings or straight from runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from consistent4d_ns.cli.help_texts import NO_DEFAULT
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.cli.tables import aligned
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.outputs import check_new_folder, new_folder

if TYPE_CHECKING:
    from consistent4d_ns.evaluation.layout import Clip
    from consistent4d_ns.evaluation.measuring import ObjectScores
    from consistent4d_ns.evaluation.rendering import Cameras

Metric = Literal["clip", "lpips", "ssim", "psnr", "fvd"]
COMMAND = "eval"
"""This subcommand, in manifests."""
RENDERS = "eval renders"
"""What a manifest says about renderings that are kept."""
SIZES = range(16, 4097)
"""Accepted image sizes in pixels."""


@dataclass(frozen=True)
class Options:
    """Options of the evaluation."""

    gt: Path
    """Truth: a folder with OBJECT/eval_V/0.png, 1.png, ... for each object and view, or the folder of one object."""
    pred: Path | None = None
    """Renderings in the same layout. Give this or --run."""
    run: Annotated[tuple[Path, ...], NO_DEFAULT] = ()
    """Finished runs (each by its config.yml, or its folder), which are rendered at the cameras of the truth."""
    out: Path | None = None
    """Folder to write: metrics.csv, metrics.json, metrics.md and metrics.tex."""
    keep: Path | None = None
    """With --run: folder to write the renderings to, as OBJECT/eval_V/i.png on white."""
    metrics: tuple[Metric, ...] = ("clip", "lpips", "ssim", "psnr", "fvd")
    """What to compute. clip, lpips and fvd need weights, which `consistent4d weights metrics` fetches."""
    objects: Annotated[tuple[str, ...], NO_DEFAULT] = ()
    """With --run: the object of each run; default: the name of the folder that it was trained on."""
    azimuths: tuple[float, ...] = (-75.0, 15.0, 105.0, 195.0)
    """With --run: where the truth has no meta.json, degrees of eval_0, eval_1, ... from the input view,
    counter-clockwise seen from above."""
    elevation: float = 0.0
    """With --run: where the truth has no meta.json, degrees of these cameras above the horizon."""
    size: int | None = None
    """With --run: side of the renderings in pixels; default: that of the truth."""
    step: int | None = None
    """With --run: training step of the checkpoint; default: the latest."""
    data: Path | None = None
    """With one --run: where its frames are now, if they were moved."""
    device: Literal["cuda", "cpu"] | None = None
    """Where to compute; default: CUDA if there is one."""
    overwrite: bool = False
    """Replace earlier output."""


@dataclass(frozen=True)
class Subject:
    """Something to be compared with the truth."""

    name: str
    """Name in the tables."""
    truth: Path
    """The truth's folder of its object."""
    predict: Callable[[dict[str, Clip]], dict[str, Clip]]
    """Its views, given those of the truth."""


@dataclass
class Notes:
    """What was not as it should be; each line is said once, as a warning."""

    lines: list[str] = field(default_factory=list)
    """All lines."""

    def __call__(self, line: str) -> None:
        """Say a line."""
        from consistent4d_ns.messages import warn

        if line not in self.lines:
            self.lines.append(line)
            warn(line)


def evaluate(options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Compare renderings, or runs, with the truth: CLIP, LPIPS, SSIM, PSNR, FVD, and SV4D's variants of FVD.

    Everything is computed twice: as the original's scripts do, which published tables are made of, and correctly.
    """
    check(options)
    announce("Loading PyTorch")
    from consistent4d_ns.device.cuda import usable_device
    from consistent4d_ns.evaluation.backbones import load_backbones
    from consistent4d_ns.evaluation.layout import read_clips
    from consistent4d_ns.evaluation.measuring import measure

    device = usable_device(options.device)
    notes = Notes()
    subjects = list(find_runs(options, device, notes) if options.run else find_renderings(options, notes))
    networks = {"clip": "clip", "lpips": "lpips", "fvd": "i3d"}
    wanted: Any = [networks[metric] for metric in options.metrics if metric in networks]
    backbones, absent = load_backbones(wanted, device)
    for line in absent:
        notes(f"{line.rstrip('.')}; what needs them is left out.")
    check_something_left(options, absent)
    scores: list[ObjectScores] = []
    for subject in subjects:
        truth = read_clips(subject.truth, notes)
        predicted = subject.predict(truth)
        scores.append(measure(subject.name, predicted, truth, options.metrics, backbones, notes, counted))
    report(options, scores, notes)


def check(options: Options) -> None:
    """Raises: InputError: options contradict each other, or something would be replaced."""
    if (options.pred is None) == (not options.run):
        raise InputError("give either --pred, a folder of renderings, or --run, finished runs.")
    for name in ("keep", "objects", "size", "step", "data"):
        if options.pred is not None and getattr(options, name) not in (None, ()):
            raise InputError(f"--{name} is for --run: leave it out with --pred.")
    if options.size is not None and options.size not in SIZES:
        raise InputError(f"--size {options.size}: give a number of pixels from {SIZES.start} to {SIZES.stop - 1}.")
    if options.data is not None and len(options.run) > 1:
        raise InputError("--data is for one --run: evaluate the runs one by one.")
    if options.objects and len(options.objects) != len(options.run):
        raise InputError(f"--objects has {len(options.objects)} names for {len(options.run)} runs: name one for each.")
    if not options.metrics:
        raise InputError("--metrics is empty: name at least one of clip, lpips, ssim, psnr, fvd.")
    for folder in filter(None, (options.gt, options.pred)):
        if not expanded(folder).is_dir():
            raise InputError(f"{folder} is no folder: give one with OBJECT/eval_V/0.png, 1.png, ...")
    if options.out is not None:
        check_new_folder(options.out, COMMAND, options.overwrite)


def check_something_left(options: Options, absent: list[str]) -> None:
    """Raises: InputError: all metrics need weights that are not there."""
    needing = [metric for metric in options.metrics if metric in ("clip", "lpips", "fvd")]
    if len(needing) == len(set(options.metrics)) == len(absent):
        raise InputError("nothing is left to compute: get the weights with `consistent4d weights metrics`.")


def find_renderings(options: Options, notes: Notes) -> Iterator[Subject]:
    """The objects that truth and renderings have in common.

    Raises:
        InputError: there is none.
    """
    from consistent4d_ns.evaluation.layout import find_objects, read_clips

    assert options.pred is not None
    gt, pred = expanded(options.gt), expanded(options.pred)
    truth, predicted = find_objects(gt), find_objects(pred)
    if gt in truth.values() and pred in predicted.values():
        predicted = dict(zip(truth, predicted.values(), strict=True))
    for name in (name for name in truth if name not in predicted):
        notes(f"{pred} lacks {name}, which is left out.")
    for name in (name for name in predicted if name not in truth):
        notes(f"{gt} lacks {name}, which is left out.")
    common = [name for name in truth if name in predicted]
    if not common:
        raise InputError(f"{gt} and {pred} have no object in common ({', '.join(truth)}; {', '.join(predicted)}).")
    for name in common:
        yield Subject(name, truth[name], lambda _, folder=predicted[name]: read_clips(folder, notes))


def find_runs(options: Options, device: str, notes: Notes) -> Iterator[Subject]:
    """The runs with the truth of their objects; each is loaded when it is rendered.

    Raises:
        InputError: a configuration cannot be read, or the truth of an object is not there.
    """
    from consistent4d_ns.evaluation.layout import find_objects
    from consistent4d_ns.evaluation.rendering import Cameras

    truth = find_objects(expanded(options.gt))
    single = expanded(options.gt) in truth.values()
    configs = [config_file(expanded(path)) for path in options.run]
    named = options.objects or tuple(trained_on(config, options.data) for config in configs)
    given = Cameras(options.azimuths, options.elevation)
    for config, name in zip(configs, named, strict=True):
        if not single and name not in truth:
            raise InputError(
                f"{config}: {options.gt} holds no {name}, on which it was trained, but {', '.join(truth)}: "
                "name the run's object with --objects."
            )
    objects = [next(iter(truth)) if single else name for name in named]
    for label, config, name in zip(labels(objects, configs), configs, objects, strict=True):
        if options.keep is not None:
            check_new_folder(options.keep / label, RENDERS, options.overwrite)
        yield Subject(label, truth[name], renderer(config, label, truth[name], given, options, device, notes))


def labels(objects: Sequence[str], configs: Sequence[Path]) -> list[str]:
    """Names of runs in the tables: their objects; where several runs have the same one, the run's folder too.

    Raises:
        InputError: two runs would have the same name.
    """
    names = [
        name if objects.count(name) == 1 else f"{name}/{config.resolve().parent.name}"
        for name, config in zip(objects, configs, strict=True)
    ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two runs are named {twice[0]}: rename the folder of one of them, or evaluate it by itself.")
    return names


def trained_on(config: Path, data: Path | None) -> str:
    """Name of the folder or file that a run was trained on."""
    from consistent4d_ns.runs import read_config

    frames = data or read_config(config).frames_path
    if frames is None:
        raise InputError(f"{config} does not say what the run was trained on: name its object with --objects.")
    frames = expanded(frames).resolve()
    return frames.parent.name if frames.name == "input" else frames.stem


def renderer(
    config: Path, label: str, folder: Path, given: Cameras, options: Options, device: str, notes: Notes
) -> Callable[[dict[str, Clip]], dict[str, Clip]]:
    """A function that loads and renders a run, and keeps the images if that is asked for."""

    def render(truth: dict[str, Clip]) -> dict[str, Clip]:
        announce(f"Loading {config}")
        from consistent4d_ns.evaluation.rendering import render_views
        from consistent4d_ns.files.checkpoints import is_last
        from consistent4d_ns.runs import load_run

        run = load_run(config, options.step, options.data, device)
        total = run.config.max_num_iterations
        if options.step is None and not is_last(run.step, total):
            notes(f"{label}: this run was not trained to the end ({run.step + 1} of {total} steps).")
        clips = render_views(run, label, folder, truth, given, options.size, notes, counted)
        if options.keep is not None:
            write_renderings(options.keep / label, clips, options.overwrite)
        return clips

    return render


def write_renderings(folder: Path, clips: dict[str, Clip], overwrite: bool) -> None:
    """Write views as PNG files."""
    from PIL import Image

    with new_folder(folder, RENDERS, overwrite) as unfinished:
        for view, clip in clips.items():
            (unfinished / view).mkdir()
            for number, picture in clip.items():
                Image.fromarray(picture).save(unfinished / view / f"{number}.png")


def counted(items: Any, what: str) -> Iterator[Any]:
    """The items, with a progress bar."""
    return progress(items, what, len(items))


def report(options: Options, scores: list[ObjectScores], notes: Notes) -> None:
    """Print the tables, and write them if that is asked for."""
    from consistent4d_ns.evaluation.tables import PROTOCOLS, as_csv, as_json, as_latex, as_markdown, rows, table, title

    found = rows(scores)
    for protocol in PROTOCOLS:
        print(f"\n{title(found, protocol)}\n")
        print("\n".join(aligned(table(found, protocol))))
    if options.out is None:
        return
    about = {"gt": str(options.gt), "pred": str(options.pred) if options.pred else [str(path) for path in options.run]}
    written = {
        "metrics.csv": as_csv(found),
        "metrics.json": as_json(found, notes.lines, about),
        "metrics.md": as_markdown(found),
        "metrics.tex": as_latex(found),
    }
    with new_folder(options.out, COMMAND, options.overwrite) as folder:
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    print(f"\n{options.out}: {', '.join(written)}")
