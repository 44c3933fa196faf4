"""The compiler of the kernels for the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from consistent4d_ns.device import c_kernels, compilers


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    c_kernels.compiler.cache_clear()
    yield
    c_kernels.compiler.cache_clear()


@pytest.mark.parametrize("name", ["no-such-compiler", "false"])
def test_without_a_working_compiler_torch_is_used_and_says_so_once(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", name)
    assert not c_kernels.usable(torch.zeros(1))
    assert not c_kernels.usable(torch.zeros(1))
    output = capsys.readouterr()
    assert (output.out + output.err).count(name) == 1


def test_a_compiler_that_cannot_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "cc"
    program.write_bytes(b"\x7fgarbage")
    program.chmod(0o755)
    for name in (str(program), "'cc", " "):
        monkeypatch.setenv("CC", name)
        assert compilers.find_compiler() is None


def test_a_compiler_with_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    if compilers.find_compiler() is None:
        pytest.skip("needs a C compiler")
    monkeypatch.setenv("CC", "cc -g")
    found = compilers.find_compiler()
    assert found is not None
    assert found[1:] == ("-g",)


def test_few_items_are_not_worth_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [c_kernels.threads_for(count) for count in (0, 1, 3000, 10**6)] == [1, 1, 2, 4]
