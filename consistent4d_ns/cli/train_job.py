"""The process of one training: `python -m consistent4d_ns.cli.train_job JOB [--resume] [--overwrite]`."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Train the job that is given as JSON, as `ns-train` would.

    With `--overwrite`, anew in the folder of an earlier run. With `--resume`, from the newest checkpoint, if there is
    one; where nothing is left to train, nothing is done.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # As the command does.
    from consistent4d_ns.cli.demo import train
    from consistent4d_ns.files.config_files import CONFIG_FILE
    from consistent4d_ns.sweeping.planning import Job, is_finished

    fields = json.loads(sys.argv[1])
    job = Job(**{**fields, "assignments": tuple(fields["assignments"])})
    config = job.config()
    config.overwrite = "--overwrite" in sys.argv[2:]
    resume = "--resume" in sys.argv[2:]
    # A training that was killed while it made its folder has left no configuration.
    if resume and (config.get_base_dir() / CONFIG_FILE).is_file() and is_finished(config):
        print(f"{config.get_base_dir()} is trained to its end.")
        return
    config.resume = resume
    train(config)


if __name__ == "__main__":
    main()
