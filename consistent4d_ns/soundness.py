"""Whether a training goes on as it should: steps that had to be skipped, an object that vanishes or becomes fog.

Everything is counted on the device and brought to the host from time to time, so that no step waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.device.cuda import fetch

GROUPS = ("the input view", "distilled views", "target views")
"""What steps fit; streaks of skipped steps are counted for each, because the kinds of steps alternate."""
LOOK_EVERY = 50
"""Steps between two looks at the counts on a device that would have to be waited for."""
FOLLOW = 0.02
"""Weight of a step in the running means of opacity."""
FIRST_LOOK = 256
"""Steps before which the object is not judged."""
VANISHED = 0.1
"""An object counts as vanished whose opacity in the input view is below this share of the frames' own."""
FOG = 0.9
"""Mean opacity of whole images from which on it counts as fog."""
USUAL = 0.2
"""Mean opacity of views of an object of which there are no frames, as far as anything is known about it."""
ROOMY = 0.6
"""Mean opacity of the frames up to which their object leaves room that fog can fill."""


class Soundness:
    """Counts of the steps that were skipped because of values that are not finite, and running means of opacity."""

    def __init__(self, device: torch.device | str, expected_opacity: float | None) -> None:
        """
        Args:
            device: Where steps are computed.
            expected_opacity: Mean opacity of the frames, in [0, 1]; None where there are no frames.
        """
        self._counts = torch.zeros(len(GROUPS), 3, device=device)  # steps skipped, in a row, most in a row
        self._opacity = torch.full(
            (len(GROUPS),), USUAL if expected_opacity is None else expected_opacity, device=device
        )
        self._expected = expected_opacity
        self._pending: Callable[[], Tensor] | None = None
        self._said_skipped = 0
        self._said_states: set[str] = set()

    @property
    def skipped(self) -> Float[Tensor, ""]:
        """Number of steps skipped so far, on the device."""
        return self._counts[:, 0].sum()

    def after_step(self, kind: StepKind, skipped: Float[Tensor, ""], opacity: Float[Tensor, ""]) -> None:
        """Take note of a training step; nothing waits for the device.

        Args:
            kind: What it rendered.
            skipped: 1 if it was skipped, else 0.
            opacity: Mean opacity of its rays, in [0, 1]; NaN is left out of the mean.
        """
        group = group_of(kind)
        skips, streak, longest = self._counts[group]
        skips += skipped
        streak.add_(1.0).mul_(skipped)
        torch.maximum(longest, streak, out=longest)
        mean = self._opacity[group]
        mean.lerp_(torch.where(opacity.isnan(), mean, opacity), FOLLOW)

    def look(self, step: int) -> list[list[float]] | None:
        """Skipped steps, longest streak and mean opacity of each group of `GROUPS`; None where it is not yet time.

        On a CUDA device those of the last time, whose way to the host has ended by now.
        """
        waits = self._opacity.is_cuda
        if waits and step % LOOK_EVERY:
            return None
        latest = fetch(torch.cat((self._counts[:, ::2], self._opacity[:, None]), dim=1))
        arrived, self._pending = (self._pending, latest) if waits else (latest, None)
        return None if arrived is None else arrived().tolist()

    def warnings(self, step: int, figures: list[list[float]]) -> list[str]:
        """What `look` gives, in words, as far as it is new and bad."""
        said = []
        total = int(sum(skipped for skipped, _, _ in figures))
        if total >= max(1, 2 * self._said_skipped):  # The first, and each time that they have doubled.
            self._said_skipped = total
            steps = ", ".join(f"{int(figures[i][0])} of {name}" for i, name in enumerate(GROUPS) if figures[i][0])
            said.append(f"training steps skipped so far, because a gradient was not finite: {total} ({steps}).")
        opacities = [opacity for _, _, opacity in figures] if step >= FIRST_LOOK else []
        for state, sentence in self._states(opacities):
            if state not in self._said_states:  # Once: figures near a limit would come and go.
                self._said_states.add(state)
                said.append(sentence)
        return said

    def _states(self, opacities: list[float]) -> Iterator[tuple[str, str]]:
        """What has become of the object, if it is nothing good, in a word and in a sentence."""
        if not opacities:
            return
        if self._expected is None:
            yield from _states_without_frames(opacities[group_of(StepKind.INDEPENDENT)])
            return
        if opacities[0] < VANISHED * self._expected:
            yield (
                "vanished",
                f"the object has all but vanished: its mean opacity in the input view is {opacities[0]:.3f}, that of "
                f"the frames {self._expected:.3f}; a lower --optimizers.field.optimizer.lr, or less weight on terms "
                f"beside rgb and mask, keeps it.",
            )
        if max(opacities) > FOG and self._expected < ROOMY:
            place = GROUPS[opacities.index(max(opacities))]
            yield (
                "fog",
                f"fog fills the space around the object: the mean opacity of {place} is {max(opacities):.3f}, that of "
                f"the frames {self._expected:.3f}; a lower --optimizers.field.optimizer.lr, or more weight on mask, "
                f"prevents it.",
            )

    @staticmethod
    def refusal(figures: list[list[float]], limit: int) -> str | None:
        """Why training cannot go on, where as many steps of one group in a row were skipped; else None."""
        for name, (_, longest, _) in zip(GROUPS, figures, strict=True):
            if longest >= limit:
                return f"{int(longest)} steps of {name} in a row had no finite gradient and were skipped"
        return None


def _states_without_frames(opacity: float) -> Iterator[tuple[str, str]]:
    """The same of an object without frames, by the mean opacity of distilled views."""
    if opacity < VANISHED * USUAL:
        yield (
            "vanished",
            f"the object has all but vanished: the mean opacity of distilled views is {opacity:.3f}; a lower "
            "--optimizers.field.optimizer.lr or --pipeline.model.loss-weights.sparsity 0 keeps it.",
        )
    if opacity > FOG:
        yield (
            "fog",
            f"fog fills the space around the object: the mean opacity of distilled views is {opacity:.3f}; a higher "
            "--pipeline.model.loss-weights.sparsity, or a lower --optimizers.field.optimizer.lr, prevents it.",
        )


def group_of(kind: StepKind) -> int:
    """Place in `GROUPS` of a kind of steps."""
    return 1 if kind.is_distilled else (0 if kind is StepKind.REFERENCE else 2)
