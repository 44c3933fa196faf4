"""A folder is exactly what was saved, or the file that is not is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.checksums import LIST, verify_checksums, write_checksums

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc", the example of the standard (FIPS 180-4)."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with checksums, one of them in a folder of its own, and a text that belongs to them."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights").write_bytes(b"abc")
    (tmp_path / "index").write_bytes(b"abc")
    (tmp_path / "MODEL_CARD.md").write_text("What it can do.")
    write_checksums(tmp_path)
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        verify_checksums(folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}: ")
    assert message.endswith("reinstall consistent4d_ns for the bundled prior, download another one or convert it.")
    return message


def test_the_list_is_that_of_sha256sum(folder: Path) -> None:
    assert (folder / LIST).read_text() == f"{ABC}  index\n{ABC}  unet/weights\n"
    verify_checksums(folder)


def test_the_model_card_may_be_edited(folder: Path) -> None:
    (folder / "MODEL_CARD.md").write_text("What it cannot do.")
    verify_checksums(folder)
    write_checksums(folder)
    assert (folder / LIST).read_text() == f"{ABC}  index\n{ABC}  unet/weights\n"


def test_without_a_list_nothing_is_verified(folder: Path) -> None:
    (folder / LIST).unlink()
    (folder / "index").unlink()
    verify_checksums(folder)


@pytest.mark.parametrize("content", [b"abd", b"ab", b"", b"abc\n"])
def test_altered_file(folder: Path, content: bytes) -> None:
    (folder / "unet" / "weights").write_bytes(content)
    assert "unet/weights does not match its checksum (truncated or altered)" in refusal(folder)


def test_missing_file(folder: Path) -> None:
    (folder / "unet" / "weights").unlink()
    assert "unet/weights is missing" in refusal(folder)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a list\n",
        f"{ABC}  index\n{ABC[:-9]}".encode(),
        f"{ABC}  ../index\n".encode(),
        f"{ABC}  /dev/zero\n".encode(),
        b"\xff\xfe\n",
    ],
)
def test_damaged_list(folder: Path, damaged: bytes) -> None:
    (folder / LIST).write_bytes(damaged)
    assert LIST in refusal(folder)
