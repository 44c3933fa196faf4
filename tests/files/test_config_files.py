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


def test_no_output_takes_the_place_of_a_run_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, other = tmp_path / "run", tmp_path / "run" / "other.yml"
    (run / "nerfstudio_models").mkdir(parents=True)
    (run / "config.yml").write_text("")
    other.write_text("")
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(run)
    for config, out in (
        (run, run / "config.yml"),
        (run, tmp_path / "link" / "config.yml"),
        (run / "config.yml", Path("config.yml")),
        (run, run / "nerfstudio_models" / "step-000000005.ckpt"),
        (other, tmp_path / "link" / "other.yml"),
        (other, run / "config.yml"),  # Of another run, it may be.
    ):
        with pytest.raises(InputError, match="is where a run has its configuration or a checkpoint: give another name"):
            config_file(config, out)
    for out in (run / "a.gif", run / "frames", tmp_path / "other.yml"):
        assert config_file(other, out) == other
