"""`consistent4d batch`: many sequences, each prepared, trained, evaluated and exported."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import tyro

from consistent4d_ns.batching.doing import renew
from consistent4d_ns.batching.jobs import Common, Export, Job, Options, default_name, jobs_in, nearest, read_jobs
from consistent4d_ns.batching.records import Record, read_record
from consistent4d_ns.batching.steps import LOG, Work, check_unchanged, rest_of
from consistent4d_ns.batching.summary import STATUS, records_of, table, write_status
from consistent4d_ns.cli import batch_job
from consistent4d_ns.cli.compare import write_page
from consistent4d_ns.cli.export import check_usd
from consistent4d_ns.cli.help_texts import NO_DEFAULT
from consistent4d_ns.cli.option_checks import plain_options
from consistent4d_ns.cli.progress import Fifths, announce, say
from consistent4d_ns.cli.splats import check_format
from consistent4d_ns.cli.sweep import check_page, places_of
from consistent4d_ns.cli.tables import aligned
from consistent4d_ns.comparing.options import CompareOptions
from consistent4d_ns.errors import FAILED, InputError
from consistent4d_ns.export.splats.options import SplatFormat
from consistent4d_ns.files.names import absolute, expanded
from consistent4d_ns.files.outputs import holds_something, make_folder, new_file
from consistent4d_ns.sweeping.methods import Method

if TYPE_CHECKING:
    from consistent4d_ns.sweeping.processes import Done, Place, Task

AUTHOR = "batch"
"""Which subcommand has written a page; others are not replaced."""
PER_PAGE = 24
"""Runs on a page."""
LOOK = 2.0
"""Seconds between two looks how far the jobs are."""
Flat = tyro.conf.arg(name="", prefix_name=False)
"""Annotation of a group of options whose names have no prefix."""


@dataclass(frozen=True)
class FolderOptions:
    """For a folder in place of a YAML file: what is done with each of its sequences."""

    method: Method | None = None
    """The preset."""
    settings: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = ()
    """Values of options of ns-train, PATH=VALUE: max-num-iterations=1000."""
    exports: Annotated[tuple[Export, ...], NO_DEFAULT] = ()
    """What is exported of each; default: nothing."""


@dataclass(frozen=True)
class EngineOptions:
    """Where jobs run."""

    devices: Annotated[tuple[int, ...], NO_DEFAULT] = ()
    """Numbers of the GPUs of this machine that are used; default: all."""
    at_once: int | None = None
    """The most jobs at once; default: one for each GPU, or one where there is no GPU."""
    address: str | None = None
    """Run the jobs as tasks of Ray (extra `ray`) on the cluster at HOST:PORT, on the one that this machine is part of
    (auto), or on this machine alone (local). All of its machines see the same folders."""
    slurm: Path | None = None
    """Run nothing: write a script for sbatch, an array with one task for each job."""
    sbatch: Annotated[tuple[str, ...], NO_DEFAULT] = ()
    """With --slurm: options of sbatch: partition=gpu time=2:00:00."""
    attempts: int = 2
    """How often a step that dies, as for lack of memory, is tried altogether, 1 to 10. What is refused is not tried
    again."""
    keep_going: bool = True
    """Whether the other jobs go on where one fails."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range, or options contradict each other."""
        if self.at_once is not None and not 1 <= self.at_once <= 1000:
            raise InputError(f"--at-once is {self.at_once}: give a number of jobs from 1 to 1000.")
        if not 1 <= self.attempts <= 10:
            raise InputError(f"--attempts is {self.attempts}: give a number from 1 to 10.")
        if self.sbatch and self.slurm is None:
            raise InputError("--sbatch is for --slurm: add it, or leave out --sbatch.")
        chosen = {"--devices": self.devices, "--address": self.address, "--slurm": self.slurm}
        given = [option for option, value in chosen.items() if value]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} name different places for the jobs: give one of them.")
        if self.address is not None:
            from consistent4d_ns.batching.cluster import check_ray

            check_ray()


@dataclass(frozen=True)
class Batch:
    """All that a call of the command is about."""

    name: str
    """What to call it."""
    out: Path
    """Folder of all jobs."""
    jobs: Sequence[Job]
    """The jobs."""
    works: Sequence[Work]
    """What there is to do for each, in the same order."""

    def records(self, overwrite: bool = True) -> dict[str, Record]:
        """What is known about each job; see `summary.records_of`."""
        return records_of(self.works, overwrite)


def batch(
    jobs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="JOBS")],
    /,
    each: Annotated[FolderOptions, Flat],
    engine: Annotated[EngineOptions, Flat],
    film: Annotated[CompareOptions, Flat],
    out: Path | None = None,
    only: Annotated[tuple[str, ...], NO_DEFAULT] = (),
    page: bool = True,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Prepare, train, evaluate and export many sequences: those of a YAML file, or all videos and frames in a folder.

    Repeat the command after Ctrl-C, a failure or the death of a machine: what is done is not done again, and a training
    goes on from its latest checkpoint. A job that fails stops no other; the exit code is then 1.

    Args:
        jobs: The YAML file, or the folder.
        each: What is done with the sequences of a folder.
        engine: Where jobs run.
        film: What the page shows.
        out: Folder of all results: OUT/NAME for each job, status.json and comparison.html; default: outputs/ and the
            name of JOBS.
        only: Names of jobs; the others are left alone; default: all jobs.
        page: Whether to write the page that compares the runs.
        overwrite: Do steps again that were done with other options or other data.
        dry_run: Show what is done and what is left, and run nothing.
    """
    engine.check()
    jobs = expanded(jobs)
    if not jobs.exists():
        raise InputError(f"{jobs} does not exist: give a YAML file of jobs, or a folder of videos.")
    out = absolute(expanded(out) if out else Path("outputs") / default_name(jobs.resolve()))
    holds_something(out)  # Raises where it can be no folder.
    announce(f"Reading {jobs}")
    found = find(jobs, each)
    announce("Loading PyTorch and Nerfstudio")
    from consistent4d_ns.comparing import film as films

    films.check_options(film)
    whole = plan(jobs, found, out, engine, overwrite)
    chosen = choose(whole, only)
    records = chosen.records(overwrite)
    left = [work for work in chosen.works if rest_of(work, records[work.name]).left]
    path = None if engine.slurm is None else expanded(engine.slurm)
    script = None if path is None else (path, script_of(path, engine, jobs, chosen, each, film, page, overwrite))
    if script is None:
        check_places(whole, left, engine)
    if dry_run:
        print("\n".join(aligned(table(chosen.works, records, {}))))
        return
    if script is not None:
        write_script(*script, chosen)
        return
    announce(
        f"{len(chosen.works)} jobs in {whole.out}, {len(chosen.works) - len(left)} of them done; doing {len(left)}"
    )
    for work in chosen.works:
        renew(work, records[work.name])
    reasons = run(whole, chosen, left, engine)
    show(whole, chosen, reasons)
    if page:
        write_pages(whole, bool(left), bool(only), film)
    unfinished = [work for work in chosen.works if rest_of(work, chosen.records()[work.name]).left]
    if reasons or unfinished:
        raise SystemExit(FAILED)


def find(jobs: Path, each: FolderOptions) -> list[Job]:
    """The jobs that a file or a folder describes.

    Raises:
        InputError: something in it cannot be used.
    """

    def needs_preparing(path: Path) -> bool:
        from consistent4d_ns.batching import sources  # slow, and rarely asked for a file

        return sources.needs_preparing(path)

    if not jobs.is_dir():
        if given := [name for name, value in vars(each).items() if value]:
            option = {"settings": "set"}.get(given[0], given[0])
            raise InputError(f"--{option} is for a folder: write it into {jobs}, under defaults.")
        return read_jobs(jobs, needs_preparing)
    if each.method is None:
        raise InputError(f"{jobs} is a folder: say with --method how its sequences are trained.")
    common = Common(each.method, settings_of(each), each.exports)
    from consistent4d_ns.batching.sources import sequences_in

    return jobs_in(jobs, sequences_in(jobs), common, needs_preparing)


def plan(jobs: Path, found: Sequence[Job], out: Path, engine: EngineOptions, overwrite: bool) -> Batch:
    """What there is to do for all jobs; relative paths in options begin at the folder of their file.

    Raises:
        InputError: an option of a step is unknown or cannot have its value.
    """
    from consistent4d_ns.batching.planning import work_of

    found = [checked(job) for job in found]
    base = Path.cwd() if jobs.is_dir() else absolute(jobs).parent
    works = [work_of(job, out, base, engine.attempts, overwrite) for job in found]
    return Batch(jobs.resolve().name, out, found, works)


def checked(job: Job) -> Job:
    """Check the options of the commands of a job, and that what these need is installed.

    Returns:
        The job, with these options spelt plainly.

    Raises:
        InputError: an option is unknown or cannot have its value, or a package is not installed.
    """
    given: dict[str, Options] = {"prepare": job.prepare or {}, "evaluate": job.evaluate, **job.exports}
    for step, options in given.items():
        try:
            given[step] = plain_options(step, options)
            if step != "prepare" or job.prepare is not None:
                check_packages(step, options)
        except InputError as error:
            raise InputError(f"{job.name}: {error}") from error
    prepare = None if job.prepare is None else given["prepare"]
    exports = {export: given[export] for export in job.exports}
    return dataclasses.replace(job, prepare=prepare, evaluate=given["evaluate"], exports=exports)


def check_packages(step: str, options: Options) -> None:
    """Raises: InputError: a package that a step needs is not installed."""
    if step in ("usd", "usdz"):
        check_usd(Path(step))
    elif step == "splats":
        check_format(Path(step), cast(SplatFormat, options.get("format", "ply")))
    elif step == "prepare":
        from consistent4d_ns.preparing.matting import check_matting

        check_matting()


def settings_of(each: FolderOptions) -> dict[str, str]:
    """Options of training by name.

    Raises:
        InputError: one has no value.
    """
    found = {}
    for setting in (setting for group in each.settings for setting in group):
        path, equals, value = setting.partition("=")
        if not (path and equals):
            raise InputError(f"--set {setting}: give PATH=VALUE, as in max-num-iterations=1000.")
        found[path.removeprefix("--")] = value
    return found


def choose(whole: Batch, only: Sequence[str]) -> Batch:
    """The jobs of these names; all of them where none is given.

    Raises:
        InputError: there is no job of such a name.
    """
    names = [job.name for job in whole.jobs]
    if strange := [name for name in only if name not in names]:
        raise InputError(f"--only: {nearest(strange[0], names)}")
    places = [place for place, name in enumerate(names) if not only or name in only]
    return dataclasses.replace(
        whole, jobs=[whole.jobs[place] for place in places], works=[whole.works[place] for place in places]
    )


def check_places(whole: Batch, left: Sequence[Work], engine: EngineOptions) -> None:
    """Raises: InputError: this machine has no such GPU, or something is in the place of a page."""
    for path in pages_of(whole):
        check_page(path, AUTHOR)
    if left and engine.address is None:
        places_for(engine)


def script_of(
    path: Path,
    engine: EngineOptions,
    jobs: Path,
    chosen: Batch,
    each: FolderOptions,
    film: CompareOptions,
    page: bool,
    overwrite: bool,
) -> str:
    """The script for Slurm, which is to be written to `path`.

    Raises:
        InputError: that exists, or an option cannot be written into it.
    """
    from consistent4d_ns.batching import slurm
    from consistent4d_ns.batching.planning import COMMAND

    command = [sys.executable, "-m", COMMAND, "batch", str(jobs.absolute()), "--out", str(chosen.out)]
    command += ["--attempts", str(engine.attempts), *(["--overwrite"] if overwrite else [])]
    command += [] if page else ["--no-page"]
    if each.method is not None:
        command += ["--method", each.method]
    for name, value in settings_of(each).items():
        command += ["--set", f"{name}={value}"]
    command += ["--exports", *each.exports] if each.exports else []
    for name in ("size", "seconds", "fps"):
        if getattr(film, name) is not None:
            command += [f"--{name}", str(getattr(film, name))]
    command += [] if film.figures else ["--no-figures"]
    if path.exists():  # --overwrite is for what the tasks do; the script may have been edited.
        raise InputError(f"{path} exists: give another name, or remove it.")
    return slurm.script([job.name for job in chosen.jobs], command, chosen.out, engine.sbatch, engine.at_once)


def write_script(path: Path, text: str, chosen: Batch) -> None:
    """Write the script for Slurm.

    Raises:
        InputError: it cannot be written.
    """
    with new_file(path) as file:
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
    make_folder(chosen.out)  # Slurm writes there, and makes no folders.
    print(f"{path}: {len(chosen.jobs)} tasks; start it with sbatch. The last task that ends writes the page.")


def run(whole: Batch, chosen: Batch, left: Sequence[Work], engine: EngineOptions) -> dict[str, str]:
    """Do jobs; returns why some failed, by their names. A line on standard error tells of everything.

    Args:
        whole: All jobs.
        chosen: Those that are to be done in the end.
        left: Those that are not done yet.
        engine: Where they run.
    """
    tasks = [task_of(work) for work in left]
    progress, reasons = Progress(left), dict[str, str]()
    try:
        with events_of(tasks, engine, progress.began) as events:
            try:
                for event in events:
                    progress.look()
                    if event is not None and _note(event, progress, reasons) and not engine.keep_going:
                        say("Stopping the others, as --no-keep-going asks for.")
                        break
            except KeyboardInterrupt:
                say("Stopping what is being done; Ctrl-C again ends it at once. Repeat the command to go on.")
                raise
        reasons |= _changed_meanwhile([work for work in chosen.works if work.name not in reasons])
    finally:
        make_folder(whole.out)
        write_status(whole.out, whole.works, whole.records(), reasons)
    return reasons


def _changed_meanwhile(works: Sequence[Work]) -> dict[str, str]:
    """Tell which jobs were done with data that have changed since; and how, by their names."""
    found = {}
    for work in works:
        try:
            check_unchanged(work, read_record(work.place) or Record())
        except InputError as error:
            found[work.name] = str(error)
            say(f"{work.name}: failed, {error}")
    return found


def task_of(work: Work) -> Task:
    """The process that does a job; its output goes to the job's log."""
    from consistent4d_ns.sweeping.processes import Task

    make_folder(work.place)
    return Task(work.name, [sys.executable, "-m", batch_job.__name__, work.to_json()], work.place / LOG, append=True)


@contextmanager
def events_of(
    tasks: Sequence[Task], engine: EngineOptions, began: Callable[[Task], None]
) -> Iterator[Generator[Done | None, None, None]]:
    """What happens while tasks run, on this machine or on a cluster; none of them is left running at the end."""
    if engine.address is not None and tasks:
        from consistent4d_ns.batching.cluster import connected, run_on_cluster

        with connected(engine.address), closing(run_on_cluster(tasks, engine.at_once, began)) as events:
            yield events
        return
    from consistent4d_ns.sweeping.processes import run_all

    places = places_for(engine) if tasks else []
    with closing(run_all(tasks, places, lambda task, _: began(task))) as events:
        yield events


def places_for(engine: EngineOptions) -> list[Place]:
    """Where jobs run on this machine: on its GPUs, of which each has several where more jobs are to run at once than
    there are GPUs; without a GPU, jobs share the processors.

    Raises:
        InputError: there is no such GPU.
    """
    import torch

    from consistent4d_ns.sweeping.processes import Place

    places = places_of(engine.devices or tuple(range(torch.cuda.device_count())))
    if engine.at_once is None:
        return places
    if not places[0].name and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // engine.at_once)
        places = [Place("", {"OMP_NUM_THREADS": str(threads)})]
    return [dataclasses.replace(places[index % len(places)]) for index in range(engine.at_once)]


def _note(done: Done, progress: Progress, reasons: dict[str, str]) -> bool:
    """Tell that a job has ended, and keep why it failed, if it did; whether it failed."""
    record = progress.ended(done.task.name)
    if not done.code:
        say(f"{done.task.name}: done in {done.seconds / 60:.1f} min, {progress.count}")
        return False
    from consistent4d_ns.sweeping.processes import failure

    recorded = record is not None and record.state == "failed" and record.reason
    reasons[done.task.name] = reason = recorded or failure(done.task.log, done.code)
    say(f"{done.task.name}: failed, {reason}; all it said is in {done.task.log}; {progress.count}")
    return True


class Progress:
    """Tells how far jobs are, by what they record."""

    def __init__(self, works: Sequence[Work]) -> None:
        """
        Args:
            works: The jobs that are to be done.
        """
        self._works = {work.name: work for work in works}
        self._running: dict[str, tuple[str, Fifths]] = {}
        """The step that was told of, by job."""
        self._ended = 0
        self._next = 0.0

    @property
    def count(self) -> str:
        """How many jobs have ended."""
        return f"{self._ended} of {len(self._works)}"

    def began(self, task: Task) -> None:
        """A job begins, or is handed to a cluster."""
        work = self._works[task.name]
        train = next(step for step in work.steps if step.name == "train")
        self._running[task.name] = "", Fifths(work.place / train.output, work.total)

    def ended(self, name: str) -> Record | None:
        """A job has ended: what it has recorded, if that can be read."""
        del self._running[name]
        self._ended += 1
        return self._record(name)

    def look(self) -> None:
        """Tell which steps have begun, and of every fifth of a training."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK
        for name, (told, fifths) in list(self._running.items()):
            record = self._record(name)
            if record is None or record.state != "running" or not record.step:
                continue
            if record.step != told:
                say(f"{name}: {record.step} on {record.where}")
                self._running[name] = record.step, fifths
            if record.step == "train" and (news := fifths.news()):
                say(f"{name}: {news}")

    def _record(self, name: str) -> Record | None:
        with suppress(InputError):
            return read_record(self._works[name].place)
        return None


def show(whole: Batch, chosen: Batch, reasons: Mapping[str, str]) -> None:
    """Print the table of jobs, and where the file of all of them is."""
    print("\n".join(aligned(table(chosen.works, chosen.records(), reasons))))
    if reasons:
        say(f"{len(reasons)} of {len(chosen.works)} jobs failed. Repeat the command to try them again.")
    print(whole.out / STATUS)


def pages_of(whole: Batch) -> list[Path]:
    """The pages of a batch, for `PER_PAGE` jobs each."""
    count = -(-len(whole.jobs) // PER_PAGE)
    return [whole.out / f"comparison{f'-{number}' if number > 1 else ''}.html" for number in range(1, count + 1)]


def write_pages(whole: Batch, something_new: bool, in_parts: bool, film: CompareOptions) -> None:
    """Write the pages that compare all runs of jobs that are done, and print where they are.

    Args:
        whole: The batch.
        something_new: Whether a job was run; else pages that exist are left as they are.
        in_parts: Whether other calls do other jobs of the batch: then the last one to end writes the pages.
        film: What they show.
    """
    from consistent4d_ns.batching.planning import run_of
    from consistent4d_ns.comparing.looking import read_runs

    records = whole.records()
    if in_parts and any(record.state not in ("done", "failed") for record in records.values()):
        return
    for number, page in enumerate(pages_of(whole)):
        part = whole.jobs[number * PER_PAGE : (number + 1) * PER_PAGE]
        done = [job for job in part if records[job.name].state == "done" and run_of(job, whole.out).is_dir()]
        if done and (something_new or not page.exists()):
            runs = dict(
                zip([job.name for job in done], read_runs([run_of(job, whole.out) for job in done]), strict=True)
            )
            failed = [job.name for job in part if records[job.name].state == "failed"]
            notices = [f"{name} failed: {records[name].reason}." for name in failed]
            title = f"{whole.name}: {len(done)} {'run' if len(done) == 1 else 'runs'}"
            write_page(page, title, runs, film, notices, AUTHOR, overwrite=True)
        elif not something_new and film != CompareOptions() and page.exists():
            say(f"{page} stays as it is, as no job was left to do; to have it made with other options, delete it.")
        if page.exists():
            print(page)
