"""YAML is read as it is written, and nothing in it is guessed, built or multiplied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.yaml_files import MAX_BYTES, read_yaml


def test_values_are_texts(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("a: no\nb: [007, 1e-3, '2']\nc: {d: 2024-01-01, e: }\n")
    assert read_yaml(file) == {"a": "no", "b": ["007", "1e-3", "2"], "c": {"d": "2024-01-01", "e": ""}}
    file.write_text("")
    assert read_yaml(file) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: &x [1]\n", "line 1: it has an anchor or an alias"),
        (b"a: 1\nb: [*x, *x]\n", "line 2: it has an anchor or an alias"),
        (b"a: !!python/object/apply:os.system [id]\n", "it has a tag"),
        (b"a: 1\na: 2\n", "line 2: a is given twice"),
        (b"? [a]\n: 1\n", "a key is no text"),
        (b"a: [1\nb", "line 2"),
        (b"a: 1\n---\na: 2\n", "expected a single document"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: \xff\xfe\n", "save it in UTF-8"),
        (b"#" * (MAX_BYTES + 1), "at most 1 are read"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, words: str):
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_yaml(file)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "a.yaml" in str(raised.value)


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        read_yaml(tmp_path / "pipe")
