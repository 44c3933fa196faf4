"""The compiler of the kernels for the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from consistent4d_ns.device import c_kernels


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


def test_few_items_are_not_worth_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [c_kernels.threads_for(count) for count in (0, 1, 3000, 10**6)] == [1, 1, 2, 4]
