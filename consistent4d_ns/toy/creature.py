"""The toy itself: a wind-up cat that marches, waves a paw, looks around and wags its tail.

It faces +x, the input camera of the default layout; its left paw is on +y. The clockwork on its back is what the input
camera never sees. All of it stays within `RADIUS` of the origin at any time, and time 1 looks like time 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.toy.shapes import Box, Capsule, Ellipsoid, Shape
from consistent4d_ns.toy.textures import Texture, above, checks, gradient, plain, sectors, spots, stripes

RADIUS = 0.62
"""Radius of the ball around the origin that contains the toy at all times (world units)."""

ORANGE = plain((0.93, 0.55, 0.20))
BROWN = plain((0.45, 0.22, 0.10))
CREAM = plain((0.98, 0.89, 0.72))
INK = plain((0.10, 0.09, 0.13))
WHITE = plain((1.0, 1.0, 1.0))
PINK = plain((0.95, 0.55, 0.58))
BLUE = plain((0.16, 0.36, 0.72))
SKY = plain((0.55, 0.78, 0.95))
RED = plain((0.82, 0.17, 0.20))
TEAL = plain((0.10, 0.60, 0.55))
GOLD = plain((0.92, 0.74, 0.22))
PURPLE = plain((0.42, 0.25, 0.60))


@dataclass(frozen=True)
class Frame:
    """A rigid motion: coordinates x of the part's frame become rotation @ x + position."""

    rotation: Float[Tensor, "3 3"]
    position: Float[Tensor, "3"]

    def __matmul__(self, inner: Frame) -> Frame:
        """Composition: the frame `inner`, which is relative to this frame, relative to this frame's parent."""
        return Frame(self.rotation @ inner.rotation, self.rotation @ inner.position + self.position)


@dataclass(frozen=True)
class Part:
    """A rigid part of the toy at one time."""

    shape: Shape
    texture: Texture
    frame: Frame


def at(x: float, y: float, z: float) -> Frame:
    """A translation."""
    return Frame(torch.eye(3, dtype=torch.float64), torch.tensor((x, y, z), dtype=torch.float64))


def turn(axis: int, degrees: float) -> Frame:
    """A rotation about a coordinate axis through the origin, counter-clockwise when the axis points at the viewer."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = torch.eye(3, dtype=torch.float64)
    j, k = (axis + 1) % 3, (axis + 2) % 3
    rotation[j, j], rotation[j, k], rotation[k, j], rotation[k, k] = c, -s, s, c
    return Frame(rotation, torch.zeros(3, dtype=torch.float64))


def wave(time: float, cycles: int, lag: float = 0.0) -> float:
    """A sine with `cycles` periods over the clip, delayed by `lag` periods."""
    return math.sin(2 * math.pi * (cycles * time - lag))


@lru_cache(maxsize=256)
def creature(time: float) -> tuple[Part, ...]:
    """All parts of the toy at a time in [0, 1]."""
    root = at(0, 0, -0.03 + 0.012 * wave(time, 4)) @ turn(2, 6 * wave(time, 1)) @ turn(0, 3 * wave(time, 2))
    neck = root @ at(0.02, 0, 0.10)
    head = neck @ turn(2, 26 * wave(time, 1, 0.1)) @ turn(0, 7 * wave(time, 2, 0.2)) @ at(0.01, 0, 0.19)
    parts = [*_body(root, time), *_head(head), *_clockwork(root, time), *_tail(root, time)]
    return (*parts, *_arms(root, time), *_legs(root, time))


def _body(root: Frame, time: float) -> list[Part]:
    back = stripes(2, 0.10, BROWN, ORANGE, share=0.4)
    fur = above(0, 0.02, spots([(0.20, 0.0, -0.02)], 0.17, CREAM, ORANGE), back)
    scarf = sectors(11, BLUE, SKY, share=0.7)
    end = root @ at(0.155, 0.07, 0.07) @ turn(1, 8 + 7 * wave(time, 2, 0.3)) @ turn(0, 14 + 5 * wave(time, 2))
    return [
        Part(Ellipsoid(0.19, 0.21, 0.25), fur, root @ at(0, 0, -0.14)),
        Part(Ellipsoid(0.165, 0.175, 0.055), scarf, root @ at(0.01, 0, 0.085)),
        Part(Capsule(0.055, 0.036), stripes(2, 0.05, BLUE, SKY, share=0.7), end @ at(0, 0, -0.06)),
    ]


def _head(head: Frame) -> list[Part]:
    mask = spots([(0.20, 0.12, 0.05)], 0.12, BROWN, ORANGE)
    crown = above(2, 0.125, stripes(1, 0.09, BROWN, ORANGE, share=0.4), mask)
    smile = [
        (0.066, y, -0.028 + 9.0 * y * y - 0.004) for y in (-0.04, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03, 0.04)
    ]
    return [
        Part(Ellipsoid(0.225, 0.26, 0.21), crown, head),
        Part(Ellipsoid(0.07, 0.10, 0.065), spots(smile, 0.012, INK, CREAM), head @ at(0.19, 0, -0.075)),
        Part(Ellipsoid(0.022, 0.034, 0.022), PINK, head @ at(0.258, 0, -0.045)),
        *(_eye(head, side) for side in (-1, 1)),
        _ear(head, -1, BROWN),
        _ear(head, 1, ORANGE),
    ]


def _eye(head: Frame, side: int) -> Part:
    shine = spots([(0.041, 0.014, 0.028)], 0.014, WHITE, INK)
    look = spots([(0.045, -0.008 * side, 0.0)], 0.046, shine, WHITE)
    return Part(Ellipsoid(0.044, 0.056, 0.068), look, head @ at(0.172, 0.10 * side, 0.04) @ turn(2, 16 * side))


def _ear(head: Frame, side: int, fur: Texture) -> Part:
    inside = spots([(0.05, 0.0, -0.005)], 0.062, PINK, fur)
    return Part(Ellipsoid(0.045, 0.08, 0.12), inside, head @ at(-0.01, 0.15 * side, 0.15) @ turn(0, -24 * side))


def _arms(root: Frame, time: float) -> list[Part]:
    swinging = root @ at(0.03, -0.18, 0.01) @ turn(1, 40 * wave(time, 2)) @ turn(0, -28)
    waving = root @ at(0.03, 0.18, 0.01) @ turn(0, 122 + 24 * wave(time, 3))
    return [*_limb(swinging, ORANGE, RED), *_limb(waving, stripes(2, 0.06, BROWN, ORANGE), TEAL)]


def _limb(shoulder: Frame, sleeve: Texture, paw: Texture) -> list[Part]:
    return [
        Part(Capsule(0.075, 0.052), sleeve, shoulder @ at(0, 0, -0.09)),
        Part(Ellipsoid(0.068, 0.068, 0.074), paw, shoulder @ at(0, 0, -0.20)),
    ]


def _legs(root: Frame, time: float) -> list[Part]:
    right = root @ at(0, -0.10, -0.33) @ turn(1, 27 * wave(time, 2, 0.5))
    left = root @ at(0, 0.10, -0.33) @ turn(1, 27 * wave(time, 2))
    return [*_leg(right, RED), *_leg(left, TEAL)]


def _leg(hip: Frame, boot: Texture) -> list[Part]:
    sole = above(2, -0.025, boot, CREAM)
    return [
        Part(Capsule(0.05, 0.06), ORANGE, hip @ at(0, 0, -0.05)),
        Part(Ellipsoid(0.105, 0.07, 0.055), sole, hip @ at(0.035, 0, -0.14)),
    ]


def _clockwork(root: Frame, time: float) -> list[Part]:
    back = root @ at(-0.17, 0, -0.09)
    key = back @ turn(0, 360 * time) @ at(-0.15, 0, 0)
    return [
        Part(Box(0.07, 0.12, 0.12), checks(0.08, PURPLE, GOLD), back),
        Part(Capsule(0.07, 0.017), GOLD, key @ at(0.03, 0, 0) @ turn(1, 90)),
        Part(Ellipsoid(0.018, 0.07, 0.05), GOLD, key @ at(-0.03, 0.065, 0)),
        Part(Ellipsoid(0.018, 0.07, 0.05), RED, key @ at(-0.03, -0.065, 0)),
    ]


def _tail(root: Frame, time: float) -> list[Part]:
    links: list[Part] = []
    joint = root @ at(-0.12, 0, -0.31) @ turn(1, -100)
    for i in range(4):
        joint = joint @ turn(1, 14.0) @ turn(0, 24 * wave(time, 2, 0.12 * i))
        links.append(Part(Capsule(0.045, 0.042), BROWN if i % 2 else ORANGE, joint @ at(0, 0, 0.045)))
        joint = joint @ at(0, 0, 0.09)
    tip = gradient(2, -0.05, 0.05, (0.98, 0.89, 0.72), (1.0, 1.0, 0.95))
    return [*links, Part(Ellipsoid(0.05, 0.05, 0.065), tip, joint @ at(0, 0, 0.02))]
