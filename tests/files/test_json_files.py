"""JSON of others is read strictly."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from consistent4d_ns.files.json_files import read_json


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, text: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"^'a' is there twice$"):
        read_json(tmp_path / "a.json")


def test_many_names_and_many_objects_are_read_quickly(tmp_path: Path):
    content = [{str(i): i for i in range(100_000)}, *({"a": i, "b": [i]} for i in range(100_000))]
    (tmp_path / "a.json").write_text(json.dumps(content))
    begin = time.process_time()
    assert read_json(tmp_path / "a.json") == content
    assert time.process_time() - begin < 5
    (tmp_path / "a.json").write_text(json.dumps(content[0])[:-1] + ', "7": 1}')
    with pytest.raises(ValueError, match=r"^'7' is there twice$"):
        read_json(tmp_path / "a.json")
