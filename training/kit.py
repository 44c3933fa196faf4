"""Building blocks of layouts: frames, limbs, heads, and a collector of the parts of many objects at once.

Objects are built facing +x, with z up and their left on +y, and are about 1 to 2 world units in size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from training.draws import Draw
from training.patterns import ACCENT, EXTRA, HEAD, INK, LIMB, MUZZLE, WHITE, Colours
from training.primitives import FINE, FORM, MEDIUM, SMALL, Form, Number, Parts, join_parts

X, Y, Z = range(3)
"""Axes of rotation."""
ROUND = Form()
TUBE = Form(profile=3.5)
CYLINDER = Form(profile=20.0)
BOX = Form(section=20.0, profile=20.0)
CONE = Form(taper=-1.0, profile=20.0)
SPIKE = Form(taper=-0.95, profile=6.0)


@dataclass(frozen=True)
class Frame:
    """A coordinate frame for each object."""

    rotation: Float[Tensor, "objects 3 3"]
    """Its axes as columns."""
    origin: Float[Tensor, "objects 3"]
    """World units."""

    def moved(self, x: Number = 0.0, y: Number = 0.0, z: Number = 0.0) -> Frame:
        """The frame shifted along its own axes."""
        offset = vectors(self.origin, x, y, z)
        return Frame(self.rotation, self.origin + (self.rotation @ offset[..., None])[..., 0])

    def turned(self, axis: int, degrees: Number) -> Frame:
        """The frame turned about one of its axes, counter-clockwise seen from the axis' tip."""
        angle = column(self.origin, degrees).deg2rad()
        c, s = angle.cos(), angle.sin()
        turn = torch.eye(3, device=angle.device).expand_as(self.rotation).clone()
        j, k = (axis + 1) % 3, (axis + 2) % 3
        turn[:, j, j], turn[:, j, k], turn[:, k, j], turn[:, k, k] = c, -s, s, c
        return Frame(self.rotation @ turn, self.origin)

    def mirrored(self) -> Frame:
        """The frame's mirror image in the xz plane, with its y axis negated so that it stays right-handed."""
        flip = self.origin.new_tensor((1.0, -1.0, 1.0))
        return Frame(flip[:, None] * self.rotation * flip, self.origin * flip)


def vectors(like: Tensor, *values: Number) -> Float[Tensor, "objects n"]:
    """Values side by side, one row for each object, on the device of `like`."""
    return torch.stack([column(like, value) for value in values], dim=-1)


def column(like: Tensor, value: Number) -> Float[Tensor, " objects"]:
    """A value for each object, on the device of `like`; a single number is created on that device, not copied to it."""
    return value.to(like).expand(len(like)) if isinstance(value, Tensor) else like.new_full((len(like),), value)


Size = tuple[Number, Number, Number]
"""Half extents of a part along its own axes."""


@dataclass
class Kit:
    """Collects the parts of `draw.count` objects."""

    draw: Draw
    colours: Colours = field(default_factory=dict)
    """Colours of roles for which the layout overrides the random palette."""
    pieces: list[Parts] = field(default_factory=list)
    present: list[Bool[Tensor, " objects"]] = field(default_factory=list)

    def world(self) -> Frame:
        """The objects' own frames."""
        origin = torch.zeros(self.draw.count, 3, device=self.draw.device)
        return Frame(torch.eye(3, device=origin.device).expand(len(origin), 3, 3), origin)

    def add(
        self,
        role: int | Int64[Tensor, " objects"],
        frame: Frame,
        size: Size,
        form: Form = ROUND,
        level: int = MEDIUM,
        present: bool | Bool[Tensor, " objects"] = True,
        side: float = 1.0,
    ) -> None:
        """Add a part, centred in a frame, to the objects in which it is present."""
        origin, count = frame.origin, self.draw.count
        whole = torch.arange(count, device=origin.device)
        piece = Parts(
            owner=whole,
            level=torch.full_like(whole, level),
            role=torch.as_tensor(role, device=origin.device).expand(count),
            side=torch.full_like(origin[:, 0], side),
            size=vectors(origin, *size).clamp_min(0.004),
            rotation=frame.rotation,
            origin=origin,
            form=vectors(origin, *(getattr(form, name) for name in FORM)),
            waves=self.draw.normal(2.2, 3, 4),
        )
        self.pieces.append(piece)
        self.present.append(torch.as_tensor(present, device=origin.device).expand(count))

    def pair(
        self,
        role: int | Int64[Tensor, " objects"],
        frame: Frame,
        size: Size,
        form: Form = ROUND,
        level: int = MEDIUM,
        present: bool | Bool[Tensor, " objects"] = True,
        about: Frame | None = None,
    ) -> None:
        """Add a part and its mirror image in the xz plane of the frame `about`, or of the objects.

        With `about`, `frame` is relative to that frame.
        """
        mirror = frame.mirrored()
        if about is not None:
            frame, mirror = within(about, frame), within(about, mirror)
        self.add(role, frame, size, form, level, present)
        self.add(role, mirror, size, form, level, present, side=-1.0)

    def parts(self) -> Parts:
        """All parts that are present in their objects."""
        return join_parts(self.pieces)[torch.cat(self.present).nonzero()[:, 0]]


def within(outer: Frame, inner: Frame) -> Frame:
    """The frame `inner`, given relative to the frame `outer`, in the coordinates of `outer`'s parent."""
    origin = outer.origin + (outer.rotation @ inner.origin[..., None])[..., 0]
    return Frame(outer.rotation @ inner.rotation, origin)


def some_form(draw: Draw) -> Form:
    """Random forms: round, boxy or pointed."""
    return Form(
        section=draw.pick((2.0, 2.0, 2.0, 2.5, 4.0, 20.0, 1.1)),
        profile=draw.pick((2.0, 2.0, 3.0, 5.0, 20.0, 1.2)),
        taper=draw.pick((0.0, 0.0, 1.0)) * draw.normal(0.35),
        bend=draw.pick((0.0, 0.0, 1.0)) * draw.normal(0.2),
    )


def trunk_form(draw: Draw) -> Form:
    """Forms of bodies and heads: mostly round, sometimes boxy."""
    blocky = draw.chance(0.2)
    section = torch.where(blocky, draw.pick((4.0, 20.0)), draw.uniform(1.8, 2.8))
    profile = torch.where(blocky, draw.pick((5.0, 20.0)), draw.uniform(1.8, 3.2))
    return Form(section=section, profile=profile, taper=draw.normal(0.2), noise=draw.skewed(0.0, 0.12))


def limb(
    kit: Kit,
    role: int | Int64[Tensor, " objects"],
    joint: Frame,
    lengths: Sequence[Number],
    widths: Sequence[Number],
    bends: Sequence[Number],
    present: bool | Bool[Tensor, " objects"] = True,
    side: float = 1.0,
    form: Form = TUBE,
) -> Frame:
    """A chain of segments hanging down from a joint.

    Args:
        lengths: Lengths of the segments in world units; negative ones point upwards.
        widths: Half widths of the segments in world units.
        bends: Rotation about the y axis before each segment, in degrees; negative swings forwards.
        form: Form of the segments.

    Returns:
        The frame at the end of the chain.
    """
    for length, width, bend in zip(lengths, widths, bends, strict=True):
        joint = joint.turned(Y, bend)
        middle, half = joint.moved(z=-0.5 * length), 0.5 * abs(length) + 0.5 * width
        kit.add(role, middle, (width, width, half), form, present=present, side=side)
        joint = joint.moved(z=-1.0 * length)
    return joint


def tail(kit: Kit, role: int, root: Frame, segments: int, length: Number, width: Number) -> None:
    """A curling, wagging chain along the root's -z axis; a third of the objects have a tuft at its end."""
    draw = kit.draw
    present, tuft = draw.chance(0.75), draw.chance(0.33)
    curl, wag = draw.normal(28), draw.normal(22)
    joint = root.turned(X, draw.normal(15))
    for i in range(segments):
        joint = joint.turned(Y, curl).turned(X, wag)
        present = present & (draw.uniform(0, 1) < 1.2 - 0.25 * i)
        thin = width * (1 - 0.13 * i)
        kit.add(role, joint.moved(z=-0.5 * length), (thin, thin, 0.6 * length), TUBE, present=present)
        joint = Frame(joint.rotation, torch.where(present[:, None], joint.moved(z=-1.0 * length).origin, joint.origin))
    kit.add(EXTRA, joint, (1.6 * width, 1.6 * width, 2.0 * width), present=tuft, level=SMALL)


def head(
    kit: Kit,
    frame: Frame,
    radius: Float[Tensor, " objects"],
    beak: Bool[Tensor, " objects"],
    form: Form,
    human: bool | Bool[Tensor, " objects"] = False,
) -> None:
    """A head around a frame, with a face on +x, ears or horns, hair or a hat.

    Args:
        radius: Radius in world units.
        beak: Whether it has a beak instead of a snout.
        form: Form of the skull.
        human: Whether it is human: no snout, usually no protruding ears, often hair.
    """
    draw = kit.draw
    size = tuple(radius * draw.uniform(low, high) for low, high in ((0.85, 1.2), (0.85, 1.2), (0.8, 1.15)))
    kit.add(HEAD, frame, (size[X], size[Y], size[Z]), form, FINE)
    _eyes(kit, frame, size)
    human = torch.as_tensor(human, device=radius.device)
    _snout(kit, frame, size, beak, ~human)
    _ears(kit, frame, size, ~(beak | human) | draw.chance(0.15))
    _headgear(kit, frame, size, human)


def _on_skull(size: tuple[Tensor, ...], frame: Frame, turn: Tensor, rise: Tensor, reach: float = 1.0) -> Frame:
    """A point on the skull's ellipsoid, `turn` degrees left of the front and `rise` degrees up, facing outwards.

    The result is relative to the head's frame; of `frame`, only shape and device matter.
    """
    t, e = turn.deg2rad(), rise.deg2rad()
    direction = torch.stack((e.cos() * t.cos(), e.cos() * t.sin(), e.sin()), dim=-1)
    place = Frame(
        torch.eye(3, device=frame.origin.device).expand_as(frame.rotation), reach * direction * torch.stack(size, -1)
    )
    return place.turned(Z, turn).turned(Y, -rise)


def _eyes(kit: Kit, frame: Frame, size: tuple[Tensor, ...]) -> None:
    draw = kit.draw
    present, white = draw.chance(0.92), draw.chance(0.5)
    place = _on_skull(size, frame, draw.uniform(16, 48), draw.uniform(-2, 30), 0.96)
    big = size[Z] * draw.uniform(0.13, 0.3)
    tall = draw.uniform(0.8, 1.5)
    kit.pair(WHITE, place, (0.4 * big, big, big * tall), level=SMALL, present=present & white, about=frame)
    pupil = torch.where(white, 0.6, 1.0) * big
    look = place.moved(x=torch.where(white, 0.25, 0.0) * big, y=draw.normal(0.1) * big)
    kit.pair(INK, look, (0.4 * pupil, pupil, pupil * tall), level=SMALL, present=present, about=frame)
    glint = place.moved(x=0.38 * big, y=0.2 * big, z=0.45 * big)
    shine = (0.16 * big, 0.28 * big, 0.28 * big)
    kit.pair(WHITE, glint, shine, level=SMALL, present=present & ~white & draw.chance(0.5), about=frame)


def _snout(kit: Kit, frame: Frame, size: tuple[Tensor, ...], beak: Tensor, allowed: Tensor) -> None:
    draw = kit.draw
    present, long = (draw.chance(0.75) & allowed) | beak, draw.skewed(0.1, 0.85) * size[X]
    drop = draw.uniform(-0.45, -0.1)
    wide = size[Y] * draw.uniform(0.2, 0.55)
    muzzle = frame.moved(x=0.82 * size[X], z=drop * size[Z])
    kit.add(MUZZLE, muzzle, (0.2 * size[X] + long, wide, 0.8 * wide), Form(profile=2.6), present=present & ~beak)
    tip = muzzle.moved(x=0.18 * size[X] + long, z=0.35 * wide)
    nose = torch.where(draw.chance(0.7), INK, ACCENT)
    kit.add(nose, tip, (0.3 * wide, 0.4 * wide, 0.3 * wide), level=SMALL, present=present & ~beak & draw.chance(0.8))
    mouth = frame.moved(x=0.93 * size[X], z=(drop - 0.15) * size[Z])
    bare = ~present & draw.chance(0.6)
    kit.add(INK, mouth, (0.08 * size[X], 0.3 * size[Y], 0.06 * size[Z]), level=SMALL, present=bare)
    bill = frame.moved(x=size[X] + 0.6 * long, z=0.5 * drop * size[Z]).turned(Y, 90 + draw.normal(12))
    flat = wide * draw.uniform(0.3, 1.0)
    kit.add(ACCENT, bill, (flat, 0.8 * wide, 0.2 * size[X] + long), SPIKE, present=beak)


def _ears(kit: Kit, frame: Frame, size: tuple[Tensor, ...], allowed: Tensor) -> None:
    """Ears, horns or antennae: round, pointed, long or drooping."""
    draw = kit.draw
    present = draw.chance(0.75) & allowed
    splay = draw.pick((12.0, 28.0, 40.0, 60.0, 110.0)) + draw.normal(8)
    rise = torch.deg2rad(90 - splay)
    shape = Form(taper=draw.pick((-0.95, -0.7, 0.0, 0.0)), profile=draw.pick((2.0, 2.0, 3.0)), bend=draw.normal(0.25))
    tall = size[Z] * draw.pick((0.35, 0.45, 0.6, 0.9, 1.3)) * draw.uniform(0.8, 1.2)
    wide = torch.minimum(tall * draw.uniform(0.25, 1.0), size[Y] * 0.6)
    thick = torch.minimum(wide * draw.uniform(0.25, 0.8), 0.25 * size[X])
    base = vectors(frame.origin, draw.normal(0.15) * size[X], 0.8 * rise.cos() * size[Y], 0.85 * rise.sin() * size[Z])
    root = (
        Frame(torch.eye(3, device=frame.origin.device).expand_as(frame.rotation), base)
        .turned(X, -splay)
        .turned(Y, draw.normal(15))
    )
    middle = root.moved(z=0.75 * tall)
    role = torch.where(draw.chance(0.6), HEAD, torch.where(draw.chance(0.5), EXTRA, LIMB))
    kit.pair(role, middle, (thick, wide, tall), shape, present=present, about=frame)
    inner = middle.moved(x=0.55 * thick, z=-0.08 * tall)
    lined = present & draw.chance(0.5)
    kit.pair(MUZZLE, inner, (0.6 * thick, 0.62 * wide, 0.72 * tall), shape, SMALL, present=lined, about=frame)


def _headgear(kit: Kit, frame: Frame, size: tuple[Tensor, ...], human: Tensor) -> None:
    """Hair or a hood that leaves the face free, a hat with a brim, a crest or a horn; often nothing."""
    draw = kit.draw
    kind = draw.index((0.5, 0.2, 0.16, 0.08, 0.06))
    kind = torch.where(human & (kind == 0) & draw.chance(0.7), 1, kind)
    hair = frame.moved(x=-0.16 * size[X], z=draw.uniform(0.08, 0.25) * size[Z])
    full = draw.uniform(1.0, 1.15)
    kit.add(
        EXTRA, hair, (full * size[X], full * size[Y], full * size[Z]), Form(noise=draw.skewed(0, 0.25)), FINE, kind == 1
    )
    top = frame.moved(z=0.8 * size[Z]).turned(Y, draw.normal(12)).turned(X, draw.normal(10))
    tall, wide = draw.uniform(0.2, 0.8) * size[Z], draw.uniform(0.5, 0.95) * size[Y]
    crown = Form(profile=draw.pick((2.0, 6.0, 20.0)), taper=draw.pick((0.0, 0.2, -0.3, -1.0)))
    kit.add(EXTRA, top.moved(z=0.6 * tall), (wide, wide, tall), crown, present=kind == 2)
    brim = wide * draw.uniform(1.1, 1.9)
    kit.add(ACCENT, top, (brim, brim, 0.06 * size[Z]), CYLINDER, present=(kind == 2) & draw.chance(0.6))
    crest = frame.moved(x=-0.1 * size[X], z=size[Z])
    kit.add(ACCENT, crest, (0.7 * size[X], 0.1 * size[Y], 0.4 * size[Z]), present=kind == 3)
    horn = frame.moved(x=0.6 * size[X], z=0.9 * size[Z]).turned(Y, draw.uniform(0, 40))
    kit.add(ACCENT, horn, (0.14 * size[X], 0.14 * size[X], draw.uniform(0.3, 0.7) * size[Z]), SPIKE, present=kind == 4)


Layout = Callable[[Kit], None]
"""Adds the parts of all objects of a kit."""
