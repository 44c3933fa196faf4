"""Colours of the procedural objects: palettes, and patterns as functions of a point's position on its part.

Every object has a small table of styles, one for each role that a part can play (fur, clothes, eyes, ...). A style is
a colour with two layers over it; parts that share a role share its style, and mirror images are painted alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from training.draws import Draw

BODY, LIMB, HEAD, EXTRA, ACCENT, MUZZLE, INK, WHITE = range(8)
"""Roles of parts: torso or hull, limbs, head, clothes or wings, small things, light patches, pupils, eyes' white."""
ROLES = 8
PLAIN, STRIPES, TONE, GRADIENT, CHECKS, SPOTS, PATCHES, CAP, SECTORS = range(9)
"""Kinds of layers."""
FRONT, SIDE, UP, AXIS = range(4)
"""What a layer runs along: an axis of the object, or the part's own z."""

SHARES = (0.38, 0.13, 0.11, 0.06, 0.04, 0.09, 0.09, 0.07, 0.03)
"""Probability of each kind of layer."""
MOODS = (
    # least and greatest saturation, least and greatest value, share of the palettes
    (0.20, 0.55, 0.25, 0.75, 0.26),
    (0.12, 0.40, 0.82, 1.00, 0.16),
    (0.65, 1.00, 0.55, 1.00, 0.24),
    (0.00, 0.10, 0.20, 0.90, 0.12),
    (0.10, 0.60, 0.06, 0.30, 0.10),
    (0.00, 0.12, 0.85, 1.00, 0.12),
)
"""Natural, pastel, saturated, grey, dark and near-white colours."""
EARTH = (
    (0.45, 0.30, 0.17), (0.60, 0.42, 0.24), (0.76, 0.60, 0.38), (0.36, 0.42, 0.20), (0.50, 0.54, 0.28),
    (0.30, 0.22, 0.16), (0.85, 0.76, 0.58), (0.55, 0.52, 0.45), (0.80, 0.48, 0.18), (0.28, 0.36, 0.26),
)  # fmt: skip
"""Colours of animals, wood and earth."""
TOY = (
    (0.85, 0.15, 0.15), (0.95, 0.75, 0.15), (0.15, 0.35, 0.75), (0.20, 0.60, 0.30), (0.95, 0.50, 0.15),
    (0.95, 0.95, 0.92), (0.12, 0.12, 0.14), (0.45, 0.70, 0.90), (0.95, 0.65, 0.70), (0.45, 0.25, 0.55),
)  # fmt: skip
"""Colours of toys and uniforms."""
LEAF = ((0.20, 0.45, 0.15), (0.35, 0.60, 0.20), (0.15, 0.35, 0.22), (0.55, 0.65, 0.25), (0.70, 0.45, 0.15))
"""Colours of leaves."""
WOOD = ((0.40, 0.26, 0.14), (0.55, 0.38, 0.22), (0.30, 0.20, 0.14), (0.45, 0.42, 0.38), (0.30, 0.45, 0.18))
"""Colours of trunks and stems."""
SKIN = ((0.98, 0.84, 0.72), (0.92, 0.74, 0.58), (0.78, 0.56, 0.40), (0.55, 0.37, 0.25), (0.36, 0.24, 0.17))
"""Colours of people."""


@dataclass(frozen=True)
class Layers:
    """The layers over the ground colour, two for each style, the second on top."""

    kind: Int64[Tensor, "styles 2"]
    """PLAIN, where the layer does not show, or one of `RULES`."""
    colour: Float[Tensor, "styles 2 3"]
    """RGB in [0, 1]."""
    axis: Int64[Tensor, "styles 2"]
    """FRONT, SIDE, UP or AXIS."""
    sign: Float[Tensor, "styles 2"]
    """1 or -1: which way along the axis."""
    level: Float[Tensor, "styles 2"]
    """Where the layer begins: a threshold in [-1, 1]."""
    share: Float[Tensor, "styles 2"]
    """Share of each period that the layer covers, in (0, 1)."""
    period: Float[Tensor, "styles 2"]
    """World units."""
    phase: Float[Tensor, "styles 2"]
    """In periods, [0, 1]."""
    waves: Float[Tensor, "styles 2 4 3"]
    """Random unit vectors for spots and patches."""


@dataclass(frozen=True)
class Styles:
    """How parts are painted: rows are objects times roles, or one for each part."""

    ground: Float[Tensor, "styles 3"]
    """Colour under the layers, RGB in [0, 1]."""
    mottle: Float[Tensor, " styles"]
    """Relative size of smooth random changes in brightness."""
    layers: Layers

    def __getitem__(self, chosen: Tensor) -> Styles:
        """Some of the rows."""
        layers = Layers(*(getattr(self.layers, field.name)[chosen] for field in fields(Layers)))
        return Styles(self.ground[chosen], self.mottle[chosen], layers)


def join_styles(styles: Sequence[Styles]) -> Styles:
    """All rows of several tables."""
    layers = (torch.cat([getattr(some.layers, field.name) for some in styles]) for field in fields(Layers))
    ground, mottle = (torch.cat([getattr(some, name) for some in styles]) for name in ("ground", "mottle"))
    return Styles(ground, mottle, Layers(*layers))


def hsv_to_rgb(
    hue: Float[Tensor, "*n"], saturation: Float[Tensor, "*n"], value: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 3"]:
    """RGB in [0, 1]; hue in turns, the rest in [0, 1]."""
    k = (hue.new_tensor((5.0, 3.0, 1.0)) + 6 * hue[..., None]).remainder(6)
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))


def draw_palettes(draw: Draw, colours: int) -> Float[Tensor, "objects colours 3"]:
    """Matching colours for each object: mostly of one mood, with related hues, or of earth or toys."""
    moods = torch.tensor(MOODS, device=draw.device)
    mood = draw.index(moods[:, 4].tolist(), 1).expand(-1, colours)
    mood = torch.where(draw.chance(0.4, colours), draw.index(moods[:, 4].tolist(), colours), mood)
    low_s, high_s, low_v, high_v, _ = moods[mood].unbind(-1)
    saturation = low_s + (high_s - low_s) * draw.uniform(0, 1, colours)
    value = low_v + (high_v - low_v) * draw.uniform(0, 1, colours)
    # Related hues: within a tenth of a turn, or that and its opposite, or thirds, or anything.
    steps = draw.pick((0.0, 0.5, 1 / 3, 0.2), 1) * draw.integers(3, colours)
    hue = draw.uniform(0, 1, 1) + steps + draw.uniform(-0.07, 0.07, colours)
    rgb = hsv_to_rgb(hue.remainder(1), saturation, value)
    source, kept = draw.index((0.55, 0.22, 0.23), 1), draw.chance(0.75, colours)
    for i, names in enumerate((EARTH, TOY), start=1):
        rgb = torch.where(((source == i) & kept)[..., None], named_colours(draw, names, colours), rgb)
    return rgb


def named_colours(
    draw: Draw, names: tuple[tuple[float, float, float], ...], colours: int
) -> Float[Tensor, "objects colours 3"]:
    """Colours near those of a list."""
    chosen = torch.tensor(names, device=draw.device)[draw.integers(len(names), colours)]
    return (chosen * draw.uniform(0.8, 1.2, colours)[..., None] + draw.normal(0.03, colours, 3)).clamp(0.02, 1)


Colours: TypeAlias = dict[int, tuple[Bool[Tensor, " objects"], Float[Tensor, "objects 3"]]]
"""For some roles: in which objects they are plain, and their colour there."""


def draw_styles(draw: Draw, colours: Colours) -> Styles:
    """A style for each role of each object, except where `colours` says otherwise."""
    palette = draw_palettes(draw, 6)
    # Roles mostly take their own entry of the palette; head and limbs often go with the body.
    entry = torch.tensor((0, 1, 1, 2, 3, 4, 5, 5), device=draw.device).expand(len(palette), -1).clone()
    entry[:, HEAD] = torch.where(draw.chance(0.65), 0, entry[:, HEAD])
    entry[:, LIMB] = torch.where(draw.chance(0.55), 0, entry[:, LIMB])
    ground = palette.gather(1, entry[..., None].expand(-1, -1, 3))
    ground[:, MUZZLE] = torch.lerp(ground[:, HEAD], torch.ones_like(ground[:, HEAD]), draw.uniform(0.2, 0.8, 1))
    ground[:, INK] = draw.uniform(0.02, 0.16, 3)
    ground[:, WHITE] = draw.uniform(0.9, 1.0, 1)
    layers = _draw_layers(draw, palette)
    for role, (chosen, colour) in colours.items():
        ground[:, role] = torch.where(chosen[:, None], colour, ground[:, role])
        layers.kind.view(-1, ROLES, 2)[:, role] *= ~chosen[:, None]
    mottle = draw.pick((0.0, 0.0, 0.08, 0.16), 1).expand(-1, ROLES)
    return Styles(ground.flatten(0, 1), mottle.flatten(), layers)


def _draw_layers(draw: Draw, palette: Float[Tensor, "objects colours 3"]) -> Layers:
    """Two layers for each role; eyes have none, and what goes with the body is patterned like it."""
    shape = (ROLES, 2)
    kind = draw.index(SHARES, *shape)
    kind[..., 1] = torch.where(draw.chance(0.55, ROLES), PLAIN, kind[..., 1])
    like_body = draw.chance(0.7)[:, None]
    for role in (LIMB, HEAD):
        kind[:, role] = torch.where(like_body, kind[:, BODY], kind[:, role])
    kind[:, (INK, WHITE)] = PLAIN
    kind[:, MUZZLE] = torch.where(draw.chance(0.7)[:, None], PLAIN, kind[:, MUZZLE])
    # Light bellies and dark backs: a second layer that lies below or in front.
    chosen = draw.integers(palette.shape[1], *shape)
    colour = palette.gather(1, chosen.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, shape)
    shade = draw.uniform(0.25, 1.6, *shape)[..., None]
    own = palette[:, :1, None] * shade
    colour = torch.where(draw.chance(0.4, *shape)[..., None], own.clamp(0, 1), colour)
    layers = Layers(
        kind=kind,
        colour=colour,
        axis=draw.index((0.2, 0.15, 0.35, 0.3), *shape),
        sign=draw.pick((-1.0, 1.0), *shape),
        level=draw.uniform(-0.5, 0.6, *shape),
        share=draw.uniform(0.25, 0.65, *shape),
        period=draw.uniform(0.12, 0.36, 1, 1).expand(-1, *shape) * draw.uniform(0.8, 1.25, *shape),
        phase=draw.uniform(0, 1, *shape),
        waves=F.normalize(draw.normal(1.0, *shape, 4, 3), dim=-1),
    )
    return Layers(*(getattr(layers, field.name).flatten(0, 1) for field in fields(layers)))


@dataclass(frozen=True)
class Spots:
    """Where the painted points lie."""

    offset: Float[Tensor, "parts points 3"]
    """From the part's centre, along the object's axes, mirrored back for mirror images; world units."""
    unit: Float[Tensor, "parts points 3"]
    """The same divided by the part's extents along its own axes, within about [-1, 1]^3."""
    frame: Float[Tensor, "parts 3 3"]
    """The part's own axes as columns, mirrored back too."""

    def __getitem__(self, chosen: Int64[Tensor, " chosen"]) -> Spots:
        """Some of the parts."""
        return Spots(self.offset[chosen], self.unit[chosen], self.frame[chosen])


def paint(styles: Styles, spots: Spots) -> Float[Tensor, "parts points 3"]:
    """Colours in [0, 1] of points, with one style for each part."""
    colours = styles.ground[:, None].expand_as(spots.offset)
    for i in range(2):
        layer = {field.name: getattr(styles.layers, field.name)[:, i] for field in fields(Layers)}
        cover = _coverage(layer, spots)
        colours = torch.lerp(colours, layer["colour"][:, None].expand_as(colours), cover[..., None])
    grain = (spots.offset @ styles.layers.waves[:, 0].transpose(1, 2) * 14).sin().mean(-1)
    return (colours * (1 + styles.mottle[:, None] * grain)[..., None]).clamp(0, 1)


def _coverage(layer: dict[str, Tensor], spots: Spots) -> Float[Tensor, "parts points"]:
    """How much of a layer is seen at each point, in [0, 1]."""
    cover = torch.zeros_like(spots.offset[..., 0])
    for kind, rule in RULES.items():
        chosen = (layer["kind"] == kind).nonzero()[:, 0]
        cover[chosen] = rule({name: value[chosen] for name, value in layer.items()}, spots[chosen])
    return cover


def _axes(layer: dict[str, Tensor], spots: Spots) -> Float[Tensor, "parts 3"]:
    """Unit vectors that the layers run along, in the object's frame."""
    choices = torch.cat((torch.eye(3, device=spots.frame.device).expand_as(spots.frame), spots.frame[..., 2:].mT), 1)
    axes = choices[torch.arange(len(choices), device=choices.device), layer["axis"]]
    return axes * layer["sign"][:, None]


def _along(layer: dict[str, Tensor], spots: Spots) -> Float[Tensor, "parts points"]:
    """Offset along the layer's axis in world units."""
    return (spots.offset @ _axes(layer, spots)[..., None])[..., 0]


def _relative(layer: dict[str, Tensor], spots: Spots) -> Float[Tensor, "parts points"]:
    """Offset along the layer's axis, from -1 to 1 over the part."""
    along = _along(layer, spots)
    return along / along.abs().amax(1, keepdim=True).clamp_min(1e-6)


def _stripes(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    place = _along(layer, spots) / layer["period"][:, None] + layer["phase"][:, None]
    return (place.remainder(1) < layer["share"][:, None]).float()


def _tone(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    return (_relative(layer, spots) > layer["level"][:, None]).float()


def _gradient(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    return (0.5 + 0.6 * _relative(layer, spots)).clamp(0, 1)


def _checks(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    cells = (spots.offset / layer["period"][:, None, None] + layer["phase"][:, None, None]).floor()
    return (cells.sum(-1).remainder(2) < 1).float()


def _ripples(layer: dict[str, Tensor], spots: Spots, scale: float) -> Tensor:
    """Mean of four waves with the layer's period times `scale`."""
    turns = spots.offset @ layer["waves"].mT / (scale * layer["period"][:, None, None]) + layer["phase"][:, None, None]
    return (2 * math.pi * turns).cos().mean(-1)


def _dots(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    return (_ripples(layer, spots, 1.0) > 0.5 - 0.5 * layer["share"][:, None]).float()


def _patches(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    return (_ripples(layer, spots, 3.0) > 0.5 * layer["level"][:, None]).float()


def _cap(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    direction = F.normalize(spots.unit, dim=-1)
    toward = (direction @ (_axes(layer, spots)[:, None] @ spots.frame).mT)[..., 0]
    return (toward > 0.55 + 0.5 * layer["level"][:, None]).float()


def _sectors(layer: dict[str, Tensor], spots: Spots) -> Tensor:
    turns = torch.atan2(spots.unit[..., 1], spots.unit[..., 0]) / (2 * math.pi) + layer["phase"][:, None]
    count = (1.2 / layer["period"]).round().clamp(2, 8)
    return ((turns * count[:, None]).remainder(1) < layer["share"][:, None]).float()


RULES = {
    STRIPES: _stripes,
    TONE: _tone,
    GRADIENT: _gradient,
    CHECKS: _checks,
    SPOTS: _dots,
    PATCHES: _patches,
    CAP: _cap,
    SECTORS: _sectors,
}
"""Coverage of every kind of layer that is not plain."""
