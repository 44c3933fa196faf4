"""Training of the enhancer: seeded, on shared crops, and better than nothing."""

from __future__ import annotations

import pytest
import torch

from consistent4d_ns.enhancing.enhancer import Enhancer, enhanced_clip
from consistent4d_ns.enhancing.networks import Generator
from consistent4d_ns.enhancing.options import ClipOptions, PseudoTruthOptions, TrainingOptions
from consistent4d_ns.enhancing.training import (
    GROUP,
    as_frames,
    enlarged,
    groups,
    learning_rate,
    shared_crop,
    train_generator,
)
from consistent4d_ns.errors import InputError
from tests.support.hash_fill import images

SIZE = 32


def clip(salt: int, count: int = 6) -> torch.Tensor:
    return (255 * images(count, SIZE, SIZE, salt)).round().byte()[None]


def test_training_depends_on_its_seed_alone():
    rendered, truth, before = clip(1), clip(2), torch.get_rng_state()
    runs = [train_generator(rendered, truth, TrainingOptions(SIZE, 2, seed), "cpu", channels=8) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.get_rng_state())
    first, again, other = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["down.0.weight"], other["down.0.weight"])
    assert not runs[0].training


def test_it_learns_what_the_truth_looks_like():
    """Frames of which only the colours are wrong: after training they are nearly right, in evaluation mode."""
    rendered = clip(1, 4)
    truth = 255 - rendered
    generator = train_generator(rendered, truth, TrainingOptions(SIZE, 60), "cpu", channels=16)
    after = torch.stack(list(enhanced_clip(rendered[0], Enhancer(generator, SIZE))))
    error = (after - truth[0] / 255).abs().mean()
    assert error < 0.25 * (rendered[0].float() - truth[0].float()).abs().mean() / 255


def test_norms_are_right_after_training():
    """On the only group there is, running means give what the group's own means give (quirk 38)."""
    rendered = clip(1)
    generator = train_generator(rendered, clip(2), TrainingOptions(SIZE, 3), "cpu", channels=8)
    frames = as_frames(rendered[0])
    with torch.no_grad():
        running, own = generator(frames), generator.train()(frames)
    torch.testing.assert_close(running, own, atol=0.02, rtol=0)


def test_a_group_shares_its_crop_and_flip():
    """Frames and truth are equal, so whatever is drawn, all crops have to be equal."""
    still = enlarged(clip(5, 1)[0].expand(GROUP, 3, SIZE, SIZE).contiguous())
    margin = range(still.shape[-1] - SIZE + 1)
    places = {as_key(still[0, :, top : top + SIZE, left : left + SIZE]) for top in margin for left in margin}
    draws = torch.Generator().manual_seed(0)
    drawn, mirrored = set(), set()
    for _ in range(100):
        rendered, truth = shared_crop((still, still), SIZE, draws)
        assert torch.equal(rendered, truth)
        assert torch.equal(rendered, rendered[:1].expand_as(rendered))
        if as_key(rendered[0]) in places:
            drawn.add(as_key(rendered[0]))
        else:
            mirrored.add(as_key(rendered[0].flip(-1)))
    assert mirrored <= places
    assert min(len(drawn), len(mirrored)) > len(places) / 2


def as_key(image: torch.Tensor) -> bytes:
    return image.numpy().tobytes()


@pytest.mark.parametrize(("count", "lengths"), [(1, [1]), (9, [9]), (16, [16]), (17, [8, 9]), (32, [16, 16])])
def test_groups_cover_all_frames(count: int, lengths: list[int]):
    found = list(groups(count))
    assert [end - first for first, end in found] == lengths
    assert [frame for first, end in found for frame in range(first, end)] == list(range(count))


def test_short_trainings_have_rates_that_fall_to_zero():
    for epochs in (2, 3, 7):
        rates = [learning_rate(epoch, epochs) for epoch in range(epochs)]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] > 0
        assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_frames_are_between_minus_one_and_one():
    assert as_frames(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[[[-1.0, 1.0]]]]


def test_truth_of_another_shape_is_named():
    with pytest.raises(InputError, match=r"\(1, 5, 3, 32, 32\)"):
        train_generator(clip(1), clip(2, 5), TrainingOptions(SIZE, 2), "cpu")


def test_divergence_is_noticed(monkeypatch: pytest.MonkeyPatch):
    original = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, frames: original(self, frames) * float("nan"))
    with pytest.raises(InputError, match="diverged in epoch 1"):
        train_generator(clip(1), clip(2), TrainingOptions(SIZE, 2), "cpu", channels=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (TrainingOptions(size=100), "--size 100: give a multiple of 16"),
        (TrainingOptions(size=16), "--size 16"),
        (TrainingOptions(epochs=1), "--epochs 1"),
        (TrainingOptions(seed=-1), "--seed -1"),
        (ClipOptions(0), "--clips 0"),
        (PseudoTruthOptions(strength=0.0), "--strength 0"),
        (PseudoTruthOptions(strength=float("nan")), "--strength nan"),
        (PseudoTruthOptions(diffusion_steps=0), "--diffusion-steps 0"),
        (PseudoTruthOptions(diffusion_steps=2), "less than one step: give at least 3"),
    ],
)
def test_options_out_of_range(options: TrainingOptions | ClipOptions | PseudoTruthOptions, words: str):
    with pytest.raises(InputError, match=words):
        options.check()
