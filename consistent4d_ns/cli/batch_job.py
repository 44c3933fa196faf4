"""The process of one job of a batch: `python -m consistent4d_ns.cli.batch_job JOB`."""

from __future__ import annotations

import sys

from consistent4d_ns.batching.doing import do, heed_interrupts
from consistent4d_ns.batching.steps import Work
from consistent4d_ns.cli.endings import one_line_endings


def main() -> None:
    """Do the job that is given as JSON (see `batching.steps.Work`)."""
    heed_interrupts()
    with one_line_endings():
        sys.exit(do(Work.from_json(sys.argv[1])))


if __name__ == "__main__":
    main()
