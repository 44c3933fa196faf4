"""The process of one training of a sweep: `python -m consistent4d_ns.cli.sweep_run JOB [--overwrite]`."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Train the job that is given as JSON, as `ns-train` would."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # As the command does.
    from consistent4d_ns.cli.demo import train
    from consistent4d_ns.sweeping.planning import Job

    fields = json.loads(sys.argv[1])
    job = Job(**{**fields, "assignments": tuple(fields["assignments"])})
    config = job.config()
    config.overwrite = "--overwrite" in sys.argv[2:]
    train(config)


if __name__ == "__main__":
    main()
