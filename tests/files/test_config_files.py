"""Where a run's configuration is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.config_files import config_file


def test_a_run_is_given_by_its_configuration_or_its_folder(tmp_path: Path):
    for wrong in (tmp_path, tmp_path / "config.yml", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"does not exist: give a run's folder or its config\.yml"):
            config_file(wrong)
    (tmp_path / "config.yml").write_text("")
    assert config_file(tmp_path) == config_file(tmp_path / "config.yml") == tmp_path / "config.yml"
    (tmp_path / "step-000000005.ckpt").write_text("")
    with pytest.raises(
        InputError, match=r"is a checkpoint: give a run's folder or its config\.yml \(two folders above it\)"
    ):
        config_file(tmp_path / "step-000000005.ckpt")
