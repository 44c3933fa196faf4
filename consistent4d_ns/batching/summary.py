"""All jobs of a batch at a glance: a table, and a file beside their folders. Imports nothing slow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consistent4d_ns.batching.records import Record, read_record
from consistent4d_ns.batching.steps import LOG, Work, check_unchanged, rest_of
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_file, scratch_prefix

STATUS = "status.json"
"""The file of all jobs."""


def records_of(works: Sequence[Work], overwrite: bool) -> dict[str, Record]:
    """What is known about each job, by name.

    Args:
        works: The jobs.
        overwrite: Whether steps that were done with other arguments are to be done again.

    Raises:
        InputError: a folder holds something else, or a step that was done with other arguments.
    """
    found = {}
    for work in works:
        record = read_record(work.place)
        if record is None:
            _check_free(work)
        elif not overwrite:
            check_unchanged(work, record)
        found[work.name] = record or Record()
    return found


def _check_free(work: Work) -> None:
    """Raises: InputError: there are files in a job's folder, and no job has been there."""
    if work.place.exists() and not work.place.is_dir():
        raise InputError(f"{work.folder} is in the way of the job {work.name}: move it away, or give another --out.")
    names = [entry.name for entry in work.place.iterdir()] if work.place.is_dir() else []
    strange = [
        name for name in names if name != LOG and not name.startswith((".lock", scratch_prefix(Path("job.json"))))
    ]
    if strange:
        raise InputError(
            f"{work.folder} holds {strange[0]}, which no job has written: move it away, or give another --out."
        )


def table(works: Sequence[Work], records: Mapping[str, Record], reasons: Mapping[str, str]) -> list[list[str]]:
    """A row for each job, below titles.

    Args:
        works: The jobs.
        records: What is known about them.
        reasons: Why jobs failed that could not record it themselves.
    """
    rows = [["job", "state", "done", "left", "min", ""]]
    for work in works:
        record = records[work.name]
        rest = [step.name for step in rest_of(work, record).left]
        done = [step.name for step in work.steps if step.name not in rest]
        state = "failed" if work.name in reasons else record.state if rest or record.state != "waiting" else "done"
        note = reasons.get(work.name, record.reason)
        rows.append(
            [work.name, state, " ".join(done) or "-", " ".join(rest) or "-", f"{record.seconds / 60:.1f}", note]
        )
    return rows


def write_status(out: Path, works: Sequence[Work], records: Mapping[str, Record], reasons: Mapping[str, str]) -> None:
    """Write the file of all jobs, whole.

    Raises:
        InputError: it cannot be written.
    """
    titles, *rows = table(works, records, reasons)
    titles[-2:] = ["minutes", "reason"]
    described: list[dict[str, Any]] = [dict(zip(titles, row, strict=True)) for row in rows]
    for entry, work in zip(described, works, strict=True):
        record = records[work.name]
        entry |= {"minutes": round(record.seconds / 60, 2), "where": record.where, "log": str(work.place / LOG)}
        entry["begun"] = {name: step.begun for name, step in record.steps.items()}
    with new_file(out / STATUS, overwrite=True) as file:
        file.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
