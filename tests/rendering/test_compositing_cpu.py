"""The C kernel that composites agrees with torch in float64, and so do its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from consistent4d_ns.device import c_kernels
from consistent4d_ns.rendering import compositing_cpu
from consistent4d_ns.rendering.compositing import composite
from consistent4d_ns.rendering.sampling import PackedSamples
from tests.support.agreement import assert_agrees
from tests.support.kernel_agreement import COMPOSITE_RESULTS, COUNTS, STEP, packed, seeded, with_gradients


@pytest.mark.skipif(c_kernels.compiler() is None, reason="needs a C compiler")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("used", [(0, 1, 2, 3), (1, 2), (0,)])
@pytest.mark.parametrize("counts", [*COUNTS.values(), [9] * 500])
def test_kernel_agrees_with_torch(
    counts: list[int], used: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    samples = packed(counts)
    density = torch.exp(4 * torch.randn(2, len(samples), generator=seeded(1)) + 1)  # from empty to opaque in a segment
    density[:, ::7] = 0.0
    features = torch.randn(2, len(samples), 3, generator=seeded(2))

    def plain(density: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        doubled = PackedSamples(samples.ray_indices, samples.starts.double(), samples.points, STEP, samples.offsets)
        return tuple(vars(composite(density, features, doubled)).values())

    def in_c(density: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        return compositing_cpu.composite(density, features, samples.starts, samples.offsets, STEP)

    expected = with_gradients(plain, density.double(), features.double(), used)
    found = with_gradients(in_c, density, features, used)
    for what, ours, theirs in zip(COMPOSITE_RESULTS, found, expected, strict=True):
        assert_agrees(what, ours, theirs, 2e-6 * max(1.0, float(theirs.abs().amax()) if theirs.numel() else 0.0))
