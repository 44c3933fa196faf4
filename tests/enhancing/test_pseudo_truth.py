"""Pseudo-truth from diffusion models of random weights in the real layouts, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from consistent4d_ns.enhancing.model_folder import find_model, load_networks
from consistent4d_ns.enhancing.options import DEFAULT_MODEL, PseudoTruthOptions
from consistent4d_ns.enhancing.pseudo_truth import pseudo_truth, resized_bytes
from consistent4d_ns.errors import InputError
from tests.enhancing.models import WORDS, change_index, second_stage, stable_diffusion
from tests.support.hash_fill import images
from tests.support.hub import use_address

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `if`, `sd` and `up`."""
    folder = tmp_path_factory.mktemp("models")
    second_stage(folder / "if")
    stable_diffusion(folder / "sd")
    stable_diffusion(folder / "up", upscaler=True)
    return folder


@pytest.fixture(scope="module")
def rendered() -> torch.Tensor:
    """Two clips of three frames: six, which four at a time do not divide (quirk 40)."""
    return (255 * images(6, 32, 32, 1)).round().byte().view(2, 3, 3, 32, 32)


def options(model: Path | str, prompt: str = "a fox", strength: float | None = None) -> PseudoTruthOptions:
    return PseudoTruthOptions(str(model), prompt, strength, diffusion_steps=6)


@pytest.mark.parametrize("kind", ["if", "sd", "up"])
def test_every_frame_becomes_another(models: Path, rendered: torch.Tensor, kind: str):
    made = pseudo_truth(rendered, options(models / kind), 0, "cpu")
    assert (made.shape, made.dtype) == (rendered.shape, torch.uint8)
    assert ((made.float() - rendered.float()).abs().mean((2, 3, 4)) > 1).all()
    assert torch.equal(made, pseudo_truth(rendered, options(models / kind), 0, "cpu"))
    assert not torch.equal(made, pseudo_truth(rendered, options(models / kind), 1, "cpu"))


def test_the_second_stage_depends_on_prompt_strength_and_frame(models: Path, rendered: torch.Tensor):
    first = rendered[:1, :1]
    made = pseudo_truth(first, options(models / "if", strength=0.5), 0, "cpu").float()
    for other in (
        pseudo_truth(first, options(models / "if", "cat waves", strength=0.5), 0, "cpu"),
        pseudo_truth(first, options(models / "if", strength=1.0), 0, "cpu"),
        pseudo_truth(255 - first, options(models / "if", strength=0.5), 0, "cpu"),
    ):
        assert (made - other.float()).abs().max() > 2


def test_half_precision_weights_are_taken_where_they_are(models: Path, tmp_path: Path):
    """As on the hub: a file of each precision, or of half precision alone."""
    folder = copied(models / "if", tmp_path)
    tensors = load_file(folder / UNET)
    save_file(
        {name: value.half() + 1 for name, value in tensors.items()}, half := folder / UNET.replace(".", ".fp16.", 1)
    )
    name = "conv_in.bias"
    for dtype, expected in ((torch.float32, tensors[name]), (torch.float16, tensors[name].half() + 1)):
        unet = load_networks(find_model(options(folder)), dtype, without=("text_encoder",))["unet"]
        torch.testing.assert_close(unet.get_parameter(name), expected, rtol=0, atol=1e-3)
        assert unet.dtype == dtype
    (folder / UNET).unlink()
    unet = load_networks(find_model(options(folder)), torch.float32, without=("text_encoder",))["unet"]
    torch.testing.assert_close(unet.get_parameter(name).half(), load_file(half)[name])


def test_prompts_are_read_by_sentencepiece(models: Path, rendered: torch.Tensor, tmp_path: Path):
    """The published tokenizer has no other file."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra enhance")
    folder = copied(models / "if", tmp_path)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "words.txt").write_text("\n".join(" ".join(WORDS) for _ in range(50)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "words.txt"),
        model_prefix=str(folder / "tokenizer" / "spiece"),
        vocab_size=20,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    assert pseudo_truth(rendered[:1, :1], options(folder), 0, "cpu").shape == (1, 1, 3, 32, 32)


def test_images_are_brought_to_the_size_of_the_frames():
    white = torch.ones(1, 3, 64, 64)
    assert (resized_bytes(white * 1.2, 32) == 255).all()
    assert resized_bytes(white * 0.5, 32).shape == (1, 3, 32, 32)


def copied(folder: Path, into: Path) -> Path:
    return Path(shutil.copytree(folder, into / "model"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def as_pickle(file: Path) -> None:
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


def without_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    del tensors["conv_in.bias"]
    save_file(tensors, file)


def not_finite(file: Path) -> None:
    save_file({name: value * float("nan") for name, value in load_file(file).items()}, file)


def code(folder: Path) -> None:
    """A part whose class is in a file of the model; it would leave a trace if it ran."""
    (folder / "unet" / "evil.py").write_text(f"open({str(folder / 'trace')!r}, 'w')\nclass Evil: pass\n")
    change_index(folder, unet=["evil", "Evil"])


def own_pipeline(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'trace')!r}, 'w')\n")
    change_index(folder, _class_name=["evil", "Evil"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "holds no model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: change_index(folder, _class_name="IFPipeline"), "give the second stage, IF-II"),
        (lambda folder: change_index(folder, _class_name="DDPMPipeline"), "cannot be used"),
        (lambda folder: change_index(folder, _class_name=3), "names no pipeline of diffusers"),
        (lambda folder: change_index(folder, unet=["diffusers"]), "the part unet is"),
        (lambda folder: change_index(folder, **{"../unet": ["diffusers", "UNet2DConditionModel"]}), "is no folder"),
        (code, "code that comes with a model is never run"),
        (own_pipeline, "names no pipeline of diffusers"),
        (lambda folder: shutil.rmtree(folder / "unet"), "no .safetensors file, and pickles are not opened"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{}"), "unet cannot be used"),
        (lambda folder: (folder / UNET).write_text("<!doctype html>"), "is a web page"),
        (lambda folder: cut(folder / UNET), "is cut off"),
        (lambda folder: as_pickle(folder / UNET), "pickles are not opened"),
        (lambda folder: without_a_tensor(folder / UNET), "lacks 1 tensors, first conv_in.bias"),
        (lambda folder: not_finite(folder / UNET), "not finite"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "cannot be used"),
    ],
)
def test_refused_in_one_line(
    models: Path, rendered: torch.Tensor, tmp_path: Path, damage: Callable[[Path], None], words: str
):
    folder = copied(models / "if", tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=words) as raised:
        pseudo_truth(rendered[:1, :1], options(folder), 0, "cpu")
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    assert not (folder / "trace").exists()


def test_what_is_no_folder_of_a_model(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_address("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    (tmp_path / "file").touch()
    for model, words in (
        (DEFAULT_MODEL, "accept its licence at https://huggingface.co/DeepFloyd/IF-II-L-v1.0"),
        (f"https://huggingface.co/{DEFAULT_MODEL}", f"give the hub id {DEFAULT_MODEL}"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "holds no model_index.json"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            find_model(options(model))
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="leave out --strength"):
        find_model(options(models / "up", strength=0.3))


def test_a_model_in_the_hubs_cache(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As `hf download` leaves it; it is found without a network."""
    use_address("http://127.0.0.1:9", tmp_path, monkeypatch)
    repository = tmp_path / "models--someone--stage"
    shutil.copytree(models / "if", repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    found = find_model(options("someone/stage"))
    assert found.kind == json.loads((models / "if" / "model_index.json").read_text())["_class_name"]
    with pytest.raises(InputError, match="give its id"):
        find_model(options(repository))


def test_the_prompts_tokenizer_is_named_if_it_cannot_be_read(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = copied(models / "if", tmp_path)
    (folder / "tokenizer" / "spiece.model").touch()
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(InputError, match=r'pip install "consistent4d_ns\[enhance\]"'):
        find_model(options(folder))


def test_parts_that_only_judge_images_are_not_loaded(models: Path):
    """The index names them; their weights are not there."""
    networks: dict[str, Any] = load_networks(find_model(options(models / "if")), torch.float32)
    assert networks["safety_checker"] is networks["watermarker"] is None
    assert {name for name, network in networks.items() if network is not None} == {"unet", "text_encoder"}
