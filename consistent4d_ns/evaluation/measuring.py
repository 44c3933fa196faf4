"""All metrics of an object, twice: as the original's scripts compute them, and correctly (method.md section 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.evaluation import scores
from consistent4d_ns.evaluation.backbones import Backbones, features
from consistent4d_ns.evaluation.frechet import frechet_distance, one_clip_distance
from consistent4d_ns.evaluation.i3d import I3D, SHORTEST, original_average, published_average
from consistent4d_ns.evaluation.images import SIDE, Picture, as_tensor, held, i3d_input, resized
from consistent4d_ns.evaluation.layout import Clip, Note, check_pair, frame_pairs
from consistent4d_ns.evaluation.orders import ORDERS

Metric = Literal["clip", "lpips", "ssim", "psnr", "fvd"]
"""What can be asked for."""
ORIGINAL_VIEWS = tuple(f"eval_{i}" for i in range(4))
"""The views that the original's scripts take."""
ORIGINAL_DIVISOR = 4
"""By which the original's script divides sums over views, however many there are."""
ORIGINAL_FRAMES = 32
"""Frames of the clips in published figures."""
Values = dict[str, float]
"""Values by metric; what could not be computed is missing."""
Progress = Callable[[Sequence[Any], str], Iterable[Any]]
"""Yields the items while it shows how many are done, under a title."""
ClipSets = dict[str, tuple[Float[np.ndarray, "clips classes"], Float[np.ndarray, "clips classes"]]]
"""Features of the predicted and of the true clips of each kind of FVD."""


@dataclass(frozen=True)
class ObjectScores:
    """What was measured of an object."""

    name: str
    """Name of the object, or of the run."""
    views: dict[str, dict[str, Values]]
    """By view, then "original" or "correct"."""
    original: Values
    """As the original's scripts compute it."""
    correct: Values
    """With the true number of views and fixed data ranges; FVD over sets of clips."""
    clip_sets: ClipSets = field(default_factory=dict, repr=False)
    """For FVD over several objects."""


@dataclass(frozen=True)
class Compared:
    """The views of an object that truth and prediction have in common."""

    name: str
    """Name of the object."""
    views: Sequence[str]
    """Names of the views."""
    predicted: dict[str, Clip]
    """The predicted images."""
    truth: dict[str, Clip]
    """The true images."""
    note: Note
    """Is told what is not as it should be."""
    progress: Progress
    """Shows what is done."""


def measure(
    name: str,
    predicted: dict[str, Clip],
    truth: dict[str, Clip],
    metrics: Sequence[Metric],
    backbones: Backbones,
    note: Note,
    progress: Progress,
) -> ObjectScores:
    """Compare the views of an object.

    Args:
        name: Its name.
        predicted, truth: Its views by name.
        metrics: What to compute; what needs a network that is not there is left out.
        backbones: The networks.
        note: Is told what is not as it should be, in one line each.
        progress: Shows what is done.

    Raises:
        InputError: there is nothing to compare.
    """
    common = check_pair(name, predicted, truth, note)
    views: dict[str, dict[str, Values]] = {view: {"correct": {}} for view in common}
    for view in (view for view in common if view in ORIGINAL_VIEWS):
        views[view]["original"] = {}
    if set(metrics) - {"fvd"}:
        jobs = image_jobs(common, predicted, truth)
        done = {
            job: image_scores(predicted[job[0]][job[1]], truth[job[0]][job[2]], metrics, backbones)
            for job in progress(jobs, f"{name}: images")
        }
        for view in common:
            for protocol, values in views[view].items():
                pairs = PAIRS[protocol](predicted[view], truth[view])
                values.update(means([done[(view, *pair)][protocol] for pair in pairs]))
    sets: ClipSets = {}
    if "fvd" in metrics and backbones.i3d is not None:
        compared = Compared(name, common, predicted, truth, note, progress)
        for view, value in original_fvd(compared, backbones.i3d).items():
            views[view]["original"]["fvd"] = value
        sets = clip_sets(compared, backbones.i3d)
    original = original_mean(name, [of["original"] for of in views.values() if "original" in of], note)
    correct = means([of["correct"] for of in views.values()]) | distances(sets)
    return ObjectScores(name, views, original, correct, sets)


# Images


def order_pairs(predicted: Clip, truth: Clip) -> list[tuple[int, int]]:
    """Numbers of the frames that the original compares: in order, as many as both sides have."""
    return list(zip(predicted, truth, strict=False))


PAIRS = {"original": order_pairs, "correct": frame_pairs}
"""Which frames are compared."""


def image_jobs(views: Sequence[str], predicted: dict[str, Clip], truth: dict[str, Clip]) -> list[tuple[str, int, int]]:
    """View, predicted and true frame of all comparisons of images, each once."""
    pairs = [
        (view, pair) for view in views for pairing in PAIRS.values() for pair in pairing(predicted[view], truth[view])
    ]
    return list(dict.fromkeys((view, *pair) for view, pair in pairs))


def image_scores(
    predicted: Picture, truth: Picture, metrics: Sequence[Metric], backbones: Backbones
) -> dict[str, Values]:
    """The metrics of one image by protocol."""
    one, other = resized(predicted, SIDE), resized(truth, SIDE)
    values: dict[str, Values] = {"original": {}, "correct": {}}
    for name, network in (("clip", backbones.clip), ("lpips", backbones.lpips)):
        if name in metrics and network is not None:
            values["original"][name] = values["correct"][name] = network(one, other)
    images = as_tensor(one), as_tensor(other)
    if "ssim" in metrics:
        values["original"]["ssim"], values["correct"]["ssim"] = scores.original_ssim(*images), scores.ssim(*images)
    if "psnr" in metrics:
        values["original"]["psnr"], values["correct"]["psnr"] = scores.original_psnr(*images), scores.psnr(*images)
    return values


def means(rows: Sequence[Values]) -> Values:
    """Mean of each metric that all rows have."""
    names = [name for name in (rows[0] if rows else ()) if all(name in row for row in rows)]
    return {name: fmean(row[name] for row in rows) for name in names}


def original_mean(name: str, views: Sequence[Values], note: Note) -> Values:
    """Over the views as the original computes it: sums of image metrics divided by 4, and the true mean of FVD."""
    if not views:
        note(f"{name}: none of eval_0 to eval_3 is there, which are all that the original's scripts take.")
        return {}
    if len(views) != ORIGINAL_DIVISOR:
        note(
            f"{name}: {len(views)} of the views eval_0 to eval_3 are there; the original's scripts still divide by "
            f"{ORIGINAL_DIVISOR}, so that their image metrics come out too small."
        )
    factor = len(views) / ORIGINAL_DIVISOR
    return {metric: value if metric == "fvd" else value * factor for metric, value in means(views).items()}


# Clips


def original_fvd(of: Compared, i3d: I3D) -> Values:
    """The original's FVD of each of its views: all frames of one predicted and of one true clip."""
    chosen = [view for view in of.views if view in ORIGINAL_VIEWS]
    sides = (of.predicted, of.truth)
    lengths = [len(clips[view]) for clips in sides for view in chosen]
    if lengths and min(lengths) < SHORTEST:
        of.note(
            f"{of.name}: the original's FVD needs clips of at least {SHORTEST} frames, not {min(lengths)}: left out."
        )
        return {}
    if set(lengths) - {ORIGINAL_FRAMES}:
        of.note(f"{of.name}: FVD depends on the length of clips; published figures are of {ORIGINAL_FRAMES} frames.")
    values = {}
    for view in of.progress(chosen, f"{of.name}: clips, as the original"):
        clips = [torch.stack([i3d_input(image) for image in side[view].values()], dim=1) for side in sides]
        one, other = (original_average(features(i3d, clip)[None])[0].numpy() for clip in clips)
        values[view] = one_clip_distance(one, other)
    return values


def clip_sets(of: Compared, i3d: I3D) -> ClipSets:
    """Features of the clips of all kinds of FVD, through frames that all views have."""
    pairs = [frame_pairs(of.predicted[view], of.truth[view]) for view in of.views]
    shortest = min(map(len, pairs))
    if len({tuple(pair) for pair in pairs}) > 1:
        shared = set(pairs[0]).intersection(*pairs[1:])
        pairs = [[pair for pair in row if pair in shared] for row in pairs]
        if not shared:
            of.note(f"{of.name}: no frame is there in all views, so FVD is left out.")
            return {}
        of.note(f"{of.name}: FVD takes the {len(shared)} frames that all views have, of {shortest} or more.")
    cells = [
        [(i3d_input(of.predicted[view][one]), i3d_input(of.truth[view][other])) for one, other in row]
        for view, row in zip(of.views, pairs, strict=True)
    ]
    jobs = [(kind, order) for kind, orders in ORDERS.items() for order in orders(len(of.views), len(pairs[0]))]
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for kind, order in of.progress(jobs, f"{of.name}: clips"):
        both = [[cells[view][time][side] for view, time in order] for side in range(2)]
        one, other = (published_average(features(i3d, held(clip, SHORTEST))[None])[0] for clip in both)
        found.setdefault(kind, []).append((one, other))
    return {
        kind: (np.stack([one.numpy() for one, _ in clips]), np.stack([other.numpy() for _, other in clips]))
        for kind, clips in found.items()
    }


def distances(sets: ClipSets) -> Values:
    """FVD of each kind, where there are at least two clips."""
    return {kind: frechet_distance(*both) for kind, both in sets.items() if len(both[0]) > 1}


# Several objects


def overall(objects: Sequence[ObjectScores]) -> dict[str, Values]:
    """Over all objects by protocol: means; for the correct FVD the distance of the sets of all objects' clips."""
    kinds = [kind for kind in ORDERS if all(kind in of.clip_sets for of in objects)]
    pooled = {
        kind: tuple(np.concatenate([of.clip_sets[kind][side] for of in objects]) for side in range(2)) for kind in kinds
    }
    correct = means([of.correct for of in objects])
    images = {metric: value for metric, value in correct.items() if metric not in ORDERS}
    sets: Any = pooled
    return {"original": means([of.original for of in objects]), "correct": images | distances(sets)}
