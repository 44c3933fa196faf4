"""Layouts of plants, vehicles, furniture, buildings, single objects and abstract assemblies."""

from __future__ import annotations

import torch

from training.kit import BOX, CONE, CYLINDER, SPIKE, TUBE, Frame, Kit, X, Y, Z, limb, some_form, vectors
from training.patterns import ACCENT, BODY, EXTRA, HEAD, INK, LEAF, LIMB, MUZZLE, WHITE, WOOD, named_colours
from training.primitives import FINE, MEDIUM, SMALL, Form


def car(kit: Kit) -> None:
    """Cars, lorries, tanks and trains: a hull on wheels with a cabin, headlamps and a load."""
    draw = kit.draw
    long, wide, high = draw.uniform(0.35, 0.75), draw.uniform(0.18, 0.35), draw.uniform(0.08, 0.22)
    wheel = draw.uniform(0.08, 0.2)
    hull = kit.world().moved(z=wheel + 0.7 * high)
    shape = Form(section=draw.pick((4.0, 20.0, 8.0)), profile=draw.pick((3.0, 6.0, 20.0)), taper=draw.normal(0.12))
    kit.add(BODY, hull.turned(Y, 90), (high, wide, long), shape, FINE)
    cabin, roof = draw.uniform(0.25, 0.6) * long, draw.uniform(0.1, 0.28)
    top = hull.moved(x=draw.normal(0.22) * long, z=high + 0.7 * roof)
    slope = Form(section=draw.pick((4.0, 20.0)), profile=draw.pick((4.0, 20.0)), taper=-draw.uniform(0.0, 0.45))
    present = draw.chance(0.9)
    kit.add(HEAD, top, (cabin, 0.88 * wide, roof), slope, MEDIUM, present)
    glass = torch.where(draw.chance(0.6), INK, WHITE)
    kit.add(glass, top.moved(x=0.05, z=0.12 * roof), (0.98 * cabin, 0.7 * wide, 0.55 * roof), slope, present=present)
    kit.add(glass, top.moved(z=0.12 * roof), (0.7 * cabin, 0.93 * wide, 0.5 * roof), slope, present=present)
    _wheels(kit, long, wide, wheel)
    lamp = hull.moved(0.97 * long, 0.65 * wide, 0.1 * high)
    big = draw.uniform(0.03, 0.07)
    kit.pair(torch.where(draw.chance(0.6), WHITE, ACCENT), lamp, (0.6 * big, big, big), level=SMALL)
    kit.add(MUZZLE, hull.moved(x=0.98 * long, z=-0.35 * high), (0.04, 0.6 * wide, 0.25 * high), BOX, SMALL,
            draw.chance(0.5))  # fmt: skip
    _load(kit, hull, long, wide, high)


def _wheels(kit: Kit, long: torch.Tensor, wide: torch.Tensor, wheel: torch.Tensor) -> None:
    draw = kit.draw
    axles, thick = draw.integers(3) + 2, draw.uniform(0.03, 0.08)
    tyre = torch.where(draw.chance(0.7), INK, LIMB)
    for i in range(4):
        place = kit.world().moved(0.72 * long * (1 - 2 * i / (axles - 1)), wide, wheel).turned(X, -90)
        kit.pair(tyre, place, (wheel, wheel, thick), Form(profile=8.0), present=axles > i)
        hub = place.moved(z=0.8 * thick)
        kit.pair(ACCENT, hub, (0.5 * wheel, 0.5 * wheel, 0.4 * thick), level=SMALL, present=axles > i)


def _load(kit: Kit, hull: Frame, long: torch.Tensor, wide: torch.Tensor, high: torch.Tensor) -> None:
    """A box or barrel at the rear, a gun, a spoiler or a funnel; often nothing."""
    draw = kit.draw
    kind = draw.index((0.35, 0.2, 0.1, 0.12, 0.12, 0.11))
    size = draw.uniform(0.12, 0.3)
    rear = hull.moved(x=-0.55 * long, z=high + 0.8 * size)
    kit.add(EXTRA, rear, (0.42 * long, 0.9 * wide, size), BOX, MEDIUM, kind == 1)
    kit.add(EXTRA, rear.turned(Y, 90), (0.8 * wide, 0.8 * wide, 0.42 * long), CYLINDER, MEDIUM, kind == 2)
    gun = hull.moved(z=high + 0.08).turned(Z, draw.normal(30)).turned(Y, 90 - draw.uniform(0, 30))
    kit.add(ACCENT, gun.moved(z=0.4), (0.04, 0.04, 0.4), CYLINDER, MEDIUM, kind == 3)
    wing = hull.moved(x=-0.9 * long, z=high + 0.15)
    kit.add(EXTRA, wing, (0.08, 1.05 * wide, 0.02), BOX, SMALL, kind == 4)
    kit.pair(EXTRA, wing.moved(y=0.6 * wide, z=-0.08), (0.05, 0.02, 0.1), BOX, SMALL, kind == 4)
    funnel = hull.moved(x=0.6 * long, z=high + 0.12)
    kit.add(ACCENT, funnel, (0.06, 0.06, 0.18), Form(profile=20.0, taper=draw.uniform(-0.2, 0.4)), MEDIUM, kind == 5)


def vessel(kit: Kit) -> None:
    """Aeroplanes, rockets and boats: a long hull with wings and fins, or with a cabin and a sail."""
    draw = kit.draw
    long, wide = draw.uniform(0.45, 0.75), draw.uniform(0.1, 0.26)
    flies = draw.chance(0.55)
    pitch = torch.where(flies, draw.normal(18) - draw.chance(0.2) * 80.0, 0.0)
    hull = kit.world().turned(Y, pitch)
    shape = Form(profile=draw.uniform(1.6, 4.0), taper=draw.normal(0.25), section=draw.pick((2.0, 2.0, 4.0)))
    kit.add(BODY, hull.turned(Y, 90), (wide * draw.uniform(0.7, 1.1), wide, long), shape, FINE)
    _wings_and_fins(kit, hull, long, wide, flies)
    _deck(kit, hull, long, wide, ~flies)


def _wings_and_fins(kit: Kit, hull: Frame, long: torch.Tensor, wide: torch.Tensor, present: torch.Tensor) -> None:
    draw = kit.draw
    span, chord, sweep = draw.uniform(0.25, 0.65), draw.uniform(0.1, 0.25), draw.uniform(-10, 40)
    root = hull.moved(draw.normal(0.1), 0.7 * wide, draw.pick((-0.3, 0.0, 0.8)) * wide)
    wing = root.turned(Z, sweep).turned(X, draw.normal(6)).moved(y=0.8 * span).turned(X, -90)
    shape = Form(profile=draw.pick((3.0, 20.0)), taper=-draw.uniform(0.0, 0.5))
    kit.pair(EXTRA, wing, (chord, 0.03, span), shape, present=present)
    pod = wing.moved(x=0.8 * chord, z=-0.1 * span).turned(Y, 90)
    kit.pair(ACCENT, pod, (0.06, 0.06, 0.15), CYLINDER, present=present & draw.chance(0.4))
    stern = hull.moved(x=-0.85 * long)
    kit.pair(EXTRA, stern.turned(Z, sweep).moved(y=0.45 * span).turned(X, -90), (0.5 * chord, 0.025, 0.45 * span),
             shape, present=present)  # fmt: skip
    fin = stern.turned(Y, -sweep).moved(z=0.4 * span)
    kit.add(ACCENT, fin, (0.55 * chord, 0.025, 0.4 * span), shape, present=present)
    glass = hull.moved(x=0.45 * long, z=0.6 * wide)
    kit.add(INK, glass, (0.25 * long, 0.55 * wide, 0.55 * wide), present=present)
    spin, bow = draw.chance(0.35) & present, hull.moved(x=1.02 * long)
    kit.add(ACCENT, bow.turned(Y, 90), (0.05, 0.05, 0.08), SPIKE, SMALL, spin)
    kit.add(INK, bow.turned(X, draw.uniform(0, 180)), (0.02, 0.035, 0.28), TUBE, SMALL, spin)


def _deck(kit: Kit, hull: Frame, long: torch.Tensor, wide: torch.Tensor, present: torch.Tensor) -> None:
    draw = kit.draw
    plank = hull.moved(z=0.55 * wide)
    kit.add(LIMB, plank.turned(Y, 90), (0.12 * wide, 1.02 * wide, 0.9 * long), Form(profile=2.5), present=present)
    house, tall = plank.moved(x=draw.normal(0.25) * long), draw.uniform(0.08, 0.2)
    kit.add(HEAD, house.moved(z=tall), (0.3 * long, 0.7 * wide, tall), BOX, MEDIUM, present & draw.chance(0.7))
    sails = present & draw.chance(0.6)
    mast, tip = plank.moved(x=draw.normal(0.1)), draw.uniform(0.35, 0.6)
    kit.add(LIMB, mast.moved(z=tip), (0.025, 0.025, tip), CYLINDER, SMALL, sails)
    canvas = mast.turned(Z, draw.normal(30)).moved(x=-0.25, z=1.1 * tip)
    taut = Form(section=20.0, profile=20.0, taper=draw.uniform(-0.9, 0.0))
    kit.add(EXTRA, canvas, (0.25, 0.025, 0.75 * tip), taut, MEDIUM, sails)
    funnel = house.moved(x=-0.1 * long, z=2.2 * tall)
    kit.add(ACCENT, funnel, (0.07, 0.07, 0.16), CYLINDER, MEDIUM, present & ~sails)


def tree(kit: Kit) -> None:
    """Trees, palms and bushes: a leaning trunk with branches under crowns of blobs, cones or fronds."""
    draw = kit.draw
    natural = draw.chance(0.7)
    kit.colours = {
        BODY: (natural, named_colours(draw, LEAF, 1)[:, 0]),
        LIMB: (natural, named_colours(draw, WOOD, 1)[:, 0]),
    }
    tall, thick = draw.skewed(0.15, 0.9), draw.uniform(0.04, 0.14)
    foot = kit.world().turned(X, draw.normal(6)).turned(Y, draw.normal(6))
    stem = Form(profile=20.0, taper=-draw.uniform(0.0, 0.5), bend=draw.normal(0.12), noise=draw.skewed(0, 0.2))
    kit.add(LIMB, foot.moved(z=0.5 * tall), (thick, thick, 0.5 * tall + 0.05), stem)
    kind, top = draw.index((0.45, 0.25, 0.2, 0.1)), foot.moved(z=tall)
    big, lumpy = draw.uniform(0.2, 0.45), draw.uniform(0.05, 0.4)
    for i in range(6):
        place = top.turned(Z, draw.uniform(0, 360)).turned(Y, draw.uniform(0, 95)).moved(z=0.6 * big * (i > 0))
        size = big * draw.uniform(0.5, 1.0)
        kit.add(BODY, place, (size, size, 0.85 * size), Form(noise=lumpy), present=(kind == 0) & draw.chance(0.8))
        branch = (
            foot.moved(z=draw.uniform(0.5, 1.0) * tall).turned(Z, draw.uniform(0, 360)).turned(Y, draw.uniform(30, 80))
        )
        limb(kit, LIMB, branch, [-1.3 * big], [0.3 * thick], [0.0], (kind == 3) | ((kind == 0) & draw.chance(0.3)))
    _cone_crown(kit, top, big, kind == 1)
    _fronds(kit, top, big, kind == 2)
    _fruits(kit, top, big, ((kind == 0) & draw.chance(0.35)))


def _cone_crown(kit: Kit, top: Frame, big: torch.Tensor, present: torch.Tensor) -> None:
    draw = kit.draw
    tiers, rounding = draw.integers(3) + 1, draw.pick((20.0, 3.0))
    for i in range(3):
        wide = big * (1 - 0.25 * i)
        shape = Form(taper=-1.0, profile=rounding, ridges=draw.pick((5.0, 7.0)), depth=draw.skewed(0, 0.15))
        kit.add(BODY, top.moved(z=0.85 * i * big), (wide, wide, 0.8 * big), shape, present=present & (tiers > i))


def _fronds(kit: Kit, top: Frame, big: torch.Tensor, present: torch.Tensor) -> None:
    draw = kit.draw
    count, droop, wide = draw.integers(5) + 4, draw.uniform(30, 110), draw.uniform(0.06, 0.2)
    curl = draw.uniform(0.1, 0.6)
    for i in range(8):
        leaf = top.turned(Z, 360 * i / count + draw.normal(8)).turned(Y, droop + draw.normal(8))
        shape = Form(bend=curl, taper=-0.2)
        kit.add(BODY, leaf.moved(z=0.9 * big), (0.03, wide, 1.1 * big), shape, present=present & (count > i))


def _fruits(kit: Kit, top: Frame, big: torch.Tensor, present: torch.Tensor) -> None:
    draw = kit.draw
    size = draw.uniform(0.04, 0.09)
    for _ in range(8):
        place = top.turned(Z, draw.uniform(0, 360)).turned(Y, draw.uniform(0, 110)).moved(z=1.15 * big)
        kit.add(ACCENT, place, (size, size, size), level=SMALL, present=present)


def flower(kit: Kit) -> None:
    """Flowers in the ground or a pot: a stem with leaves, a blossom of petals around a disc."""
    draw = kit.draw
    natural = draw.chance(0.75)
    kit.colours = {LIMB: (natural, named_colours(draw, LEAF, 1)[:, 0])}
    tall, thick = draw.uniform(0.3, 0.9), draw.uniform(0.02, 0.05)
    potted = draw.chance(0.5)
    pot = draw.uniform(0.12, 0.28)
    shape = Form(profile=20.0, taper=draw.uniform(0.0, 0.4), section=draw.pick((2.0, 2.0, 20.0, 4.0)))
    kit.add(EXTRA, kit.world().moved(z=-0.6 * pot), (pot, pot, 0.8 * pot), shape, FINE, potted)
    stem = kit.world().turned(Z, draw.uniform(0, 360)).turned(Y, draw.normal(8))
    kit.add(LIMB, stem.moved(z=0.5 * tall), (thick, thick, 0.55 * tall), Form(profile=20.0))
    leaves, wide = draw.integers(5) + 1, draw.uniform(0.05, 0.12)
    for i in range(5):
        root = stem.moved(z=draw.uniform(0, 0.6) * tall).turned(Z, 144.0 * i).turned(Y, draw.uniform(25, 80))
        size = draw.uniform(0.1, 0.25)
        kit.add(LIMB, root.moved(z=size), (0.02, wide, size), Form(bend=0.3), present=leaves > i)
    _blossom(kit, stem.moved(z=1.05 * tall).turned(Y, draw.uniform(0, 80)))


def _blossom(kit: Kit, heart: Frame) -> None:
    draw = kit.draw
    disc, count, rise = draw.uniform(0.06, 0.16), draw.integers(8) + 4, draw.uniform(25, 100)
    long, wide = draw.uniform(0.1, 0.25), draw.uniform(0.05, 0.13)
    shape = Form(taper=draw.uniform(-0.6, 0.5), bend=draw.normal(0.2))
    kit.add(ACCENT, heart, (disc, disc, 0.6 * disc))
    for i in range(11):
        petal = heart.turned(Z, 360 * i / count).turned(Y, rise).moved(z=0.7 * disc + long)
        kit.add(BODY, petal, (0.025, wide, long), shape, present=count > i)


def mushroom(kit: Kit) -> None:
    """Mushrooms, cacti and corals: several stems with caps or arms."""
    draw = kit.draw
    capped, count = draw.chance(0.6), draw.integers(3) + 1
    green = ~capped & draw.chance(0.7)
    leaf = named_colours(draw, LEAF, 1)[:, 0]
    kit.colours = {LIMB: (green, leaf)}
    cap = Form(profile=draw.uniform(1.5, 2.5), taper=-draw.uniform(0.2, 0.9))
    for i in range(3):
        present = count > i
        root = kit.world().turned(Z, draw.uniform(0, 360)).moved(x=0.35 * (i > 0)).turned(Y, draw.normal(9))
        tall, thick = draw.uniform(0.2, 0.6), draw.uniform(0.06, 0.16)
        kit.add(LIMB, root.moved(z=0.5 * tall), (thick, thick, 0.6 * tall), Form(profile=4.0, taper=draw.normal(0.2)),
                FINE, present)  # fmt: skip
        wide = thick * draw.uniform(1.6, 3.2)
        kit.add(
            BODY, root.moved(z=1.1 * tall), (wide, wide, wide * draw.uniform(0.4, 1.0)), cap, FINE, present & capped
        )
        for side in (1, -1):
            arm = root.moved(z=draw.uniform(0.3, 0.7) * tall).turned(Z, side * 90 + draw.normal(20)).turned(Y, 80)
            reach, armed = draw.uniform(0.12, 0.25), present & ~capped & draw.chance(0.8)
            limb(kit, LIMB, arm, [-reach, -reach], [0.5 * thick, 0.5 * thick], [0.0, -80.0], armed)
        kit.add(ACCENT, root.moved(z=1.1 * tall), (0.06, 0.06, 0.06), level=SMALL, present=present & ~capped)
    soil = draw.uniform(0.15, 0.4)
    kit.add(EXTRA, kit.world().moved(z=-0.04), (soil, soil, 0.1), CYLINDER, present=draw.chance(0.4))


def furniture(kit: Kit) -> None:
    """Tables, chairs, beds, shelves and lamps."""
    draw = kit.draw
    wooden = draw.chance(0.5)
    kit.colours = {LIMB: (wooden, named_colours(draw, WOOD, 1)[:, 0])}
    long, wide, leg = draw.uniform(0.2, 0.55), draw.uniform(0.2, 0.45), draw.uniform(0.08, 0.5)
    thick, post = draw.skewed(0.03, 0.16), draw.uniform(0.025, 0.06)
    round_top = draw.chance(0.25)
    slab = Form(section=torch.where(round_top, 2.0, 20.0), profile=draw.pick((20.0, 4.0)))
    seat = kit.world().moved(z=leg + thick)
    kit.add(BODY, seat, (long, wide, thick), slab, FINE)
    inset, splay = torch.where(round_top, 0.6, 0.88), draw.skewed(0, 14)
    for x in (1, -1):
        for y in (1, -1):
            hip = kit.world().moved(x * inset * long, y * inset * wide, leg).turned(Y, x * -splay).turned(X, y * splay)
            kit.add(
                LIMB,
                hip.moved(z=-0.5 * leg),
                (post, post, 0.52 * leg),
                Form(section=draw.pick((2.0, 20.0)), profile=20),
            )
    back, rail = draw.uniform(0.15, 0.5), draw.chance(0.55)
    board = Form(section=20, profile=draw.pick((20.0, 4.0)))
    lean = seat.moved(x=-0.9 * long).turned(Y, -draw.skewed(0, 15))
    kit.add(EXTRA, lean.moved(z=back), (0.05, 0.95 * wide, back), board, MEDIUM, rail)
    arms = rail & draw.chance(0.4)
    kit.pair(EXTRA, seat.moved(y=0.92 * wide, z=0.15), (0.9 * long, 0.06, 0.18), BOX, MEDIUM, arms)
    kit.add(ACCENT, seat.moved(z=thick + 0.04), (0.7 * long, 0.7 * wide, 0.07), Form(section=6, profile=2.5), MEDIUM,
            draw.chance(0.4))  # fmt: skip
    _on_the_table(kit, seat.moved(z=thick), long, ~rail)


def _on_the_table(kit: Kit, top: Frame, long: torch.Tensor, present: torch.Tensor) -> None:
    """A lamp, and objects of random form."""
    draw = kit.draw
    lit = present & draw.chance(0.4)
    lamp, tall = top.moved(x=draw.normal(0.3) * long), draw.uniform(0.12, 0.35)
    kit.add(LIMB, lamp.moved(z=0.5 * tall), (0.025, 0.025, 0.5 * tall), CYLINDER, SMALL, lit)
    shade = draw.uniform(0.1, 0.2)
    kit.add(EXTRA, lamp.moved(z=tall), (shade, shade, 0.7 * shade), Form(profile=20, taper=-0.4), MEDIUM, lit)
    for role in (HEAD, ACCENT):
        size = draw.uniform(0.05, 0.14)
        place = top.moved(draw.normal(0.35) * long, draw.normal(0.12), 0.8 * size)
        kit.add(
            role,
            place,
            (size, size * draw.uniform(0.6, 1.4), size),
            some_form(draw),
            MEDIUM,
            present & draw.chance(0.5),
        )


def building(kit: Kit) -> None:
    """Houses, castles and towers: storeys under a roof, with a door, windows, a chimney or turrets."""
    draw = kit.draw
    long, wide, high = draw.uniform(0.2, 0.5), draw.uniform(0.2, 0.45), draw.uniform(0.12, 0.35)
    section = draw.pick((20.0, 20.0, 2.0, 1.0))
    storeys, shrink = draw.integers(3) + 1, draw.uniform(0.7, 1.0)
    top, scale = kit.world(), torch.ones_like(long)
    for i in range(3):
        present = storeys > i
        wall = Form(section=section, profile=20.0, taper=draw.normal(0.06))
        size = (long * scale, wide * scale, high)
        kit.add(BODY, top.moved(z=high), size, wall, FINE if i == 0 else MEDIUM, present)
        _windows(kit, top.moved(z=high), long * scale, wide * scale, high, present)
        top = Frame(top.rotation, top.origin + vectors(long, 0.0, 0.0, 2 * high * present))
        scale = torch.where(present & (storeys > i + 1), scale * shrink, scale)
    over = scale * draw.uniform(1.0, 1.25)
    roof = Form(section=section, profile=draw.pick((20.0, 20.0, 2.0, 3.0)), taper=draw.pick((-1.0, -1.0, -0.5, 0.0)))
    tall = draw.uniform(0.06, 0.3)
    kit.add(EXTRA, top.moved(z=0.9 * tall), (over * long, over * wide, tall), roof, MEDIUM)
    chimney = top.moved(draw.normal(0.3) * long, 0.5 * wide * scale, tall)
    kit.add(LIMB, chimney, (0.05, 0.05, 0.7 * tall + 0.08), BOX, SMALL, draw.chance(0.4))
    door = kit.world().moved(x=long, z=0.6 * high)
    kit.add(ACCENT, door, (0.03, 0.25 * wide, 0.65 * high), Form(section=20, profile=draw.pick((3.0, 20.0))), SMALL)
    turret, peak = draw.chance(0.3), high * draw.uniform(1.0, 2.6)
    corner, broad = kit.world().moved(0.85 * long, 0.9 * wide, peak), draw.uniform(0.08, 0.16)
    kit.pair(HEAD, corner, (broad, broad, peak), CYLINDER, MEDIUM, turret)
    kit.pair(EXTRA, corner.moved(z=peak + broad), (1.2 * broad, 1.2 * broad, 1.2 * broad), CONE, MEDIUM, turret)
    ground = draw.uniform(1.1, 1.6)
    kit.add(LIMB, kit.world().moved(z=-0.03), (ground * long, ground * wide, 0.04), BOX, MEDIUM, draw.chance(0.3))


def _windows(
    kit: Kit, middle: Frame, long: torch.Tensor, wide: torch.Tensor, high: torch.Tensor, present: torch.Tensor
) -> None:
    """Two windows at the front and one on each side."""
    draw = kit.draw
    glass, present = torch.where(draw.chance(0.6), INK, WHITE), present & draw.chance(0.8)
    size, rise = draw.uniform(0.03, 0.07), 0.25 * high
    kit.pair(glass, middle.moved(long, 0.55 * wide, rise), (0.02, size, 1.3 * size), BOX, SMALL, present)
    kit.pair(glass, middle.moved(0.0, wide, rise), (size, 0.02, 1.3 * size), BOX, SMALL, present)


def tower(kit: Kit) -> None:
    """Stacks of simple solids in random order, such as columns, cakes, fountains, chess pieces and snowmen."""
    draw = kit.draw
    count, base = draw.integers(5) + 3, kit.world()
    wide, lean = draw.uniform(0.15, 0.4), draw.normal(4)
    for i in range(7):
        present = count > i
        width, half = wide * draw.uniform(0.45, 1.0), draw.uniform(0.04, 0.2)
        role = draw.pick((BODY, BODY, HEAD, EXTRA, LIMB, ACCENT)).long()
        ring = draw.chance(0.12) * 0.3
        form = some_form(draw)
        shape = Form(form.section, form.profile, form.taper, twist=draw.normal(0.3), ring=ring)
        base = base.turned(Z, draw.normal(25)).turned(Y, lean)
        kit.add(role, base.moved(z=0.9 * half), (width, width * draw.uniform(0.8, 1.0), half), shape, FINE, present)
        base = base.moved(z=1.8 * half)
        wide = wide * draw.uniform(0.75, 1.05)


def vase(kit: Kit) -> None:
    """Lathe-turned objects: vases, bottles, cups, bells, balls; some with handles, a spout or a lid."""
    draw = kit.draw
    wide, tall = draw.uniform(0.2, 0.45), draw.uniform(0.2, 0.6)
    shape = Form(
        section=draw.pick((2.0, 2.0, 2.0, 4.0, 1.2)),
        profile=draw.pick((2.0, 2.5, 6.0, 20.0)),
        taper=draw.normal(0.35),
        twist=draw.chance(0.3) * draw.normal(1.0),
        ridges=draw.pick((5.0, 6.0, 8.0)),
        depth=draw.chance(0.4) * draw.uniform(0.03, 0.2),
        swell=draw.chance(0.7) * draw.uniform(-0.35, 0.35),
        swells=draw.pick((1.0, 1.5, 2.0, 3.0)),
    )
    kit.add(BODY, kit.world(), (wide, wide, tall), shape, FINE)
    neck = kit.world().moved(z=tall)
    slim = wide * draw.uniform(0.2, 0.6)
    rise = draw.chance(0.5) * draw.uniform(0.06, 0.25)
    kit.add(BODY, neck, (slim, slim, rise), CYLINDER, present=rise > 0)
    kit.add(ACCENT, neck.moved(z=rise + 0.02), (slim, slim, 0.06), some_form(draw), present=draw.chance(0.4))
    kit.add(LIMB, kit.world().moved(z=-tall), (0.7 * wide, 0.7 * wide, 0.06), CYLINDER, present=draw.chance(0.4))
    loop = Form(ring=draw.uniform(0.1, 0.2))
    grip, both = kit.world().moved(y=0.95 * wide).turned(Y, 90), draw.chance(0.5)
    held, size = draw.chance(0.5), draw.uniform(0.4, 0.7) * tall
    kit.add(EXTRA, grip, (size, 0.7 * size, 0.035), loop, MEDIUM, held)
    kit.add(EXTRA, grip.mirrored(), (size, 0.7 * size, 0.035), loop, MEDIUM, held & both, side=-1.0)
    spout = kit.world().moved(y=-0.9 * wide).turned(X, draw.uniform(30, 60)).moved(z=0.2)
    kit.add(EXTRA, spout, (0.05, 0.05, 0.25), Form(profile=20.0, taper=-0.3), MEDIUM, held & ~both)


def natural_thing(kit: Kit) -> None:
    """Fruit, vegetables, rocks, gems, shells: a lumpy body, perhaps with a stalk, leaves and smaller copies."""
    draw = kit.draw
    size = [draw.uniform(0.18, 0.5) for _ in range(3)]
    shape = Form(
        section=draw.uniform(1.2, 3.0),
        profile=draw.uniform(1.2, 3.0),
        taper=draw.normal(0.3),
        bend=draw.chance(0.4) * draw.normal(0.5),
        noise=draw.skewed(0.0, 0.6),
        ridges=draw.pick((5.0, 6.0, 8.0)),
        depth=draw.chance(0.3) * draw.uniform(0.05, 0.18),
    )
    tilted = kit.world().turned(Y, draw.chance(0.4) * draw.uniform(0, 90)).turned(X, draw.normal(10))
    kit.add(BODY, tilted, (size[0], size[1], size[2]), shape, FINE)
    count = draw.index((0.45, 0.2, 0.2, 0.15))
    for i in range(3):
        scale = draw.uniform(0.3, 0.8)
        place = kit.world().turned(Z, draw.uniform(0, 360)).moved(x=size[0] * (0.7 + scale), z=-(1 - scale) * size[2])
        copy = (scale * size[0], scale * size[1], scale * size[2])
        kit.add(torch.where(draw.chance(0.6), BODY, HEAD), place, copy, shape, FINE, count > i)
    stalk, top = draw.chance(0.5), tilted.moved(z=0.97 * size[2])
    kit.add(LIMB, top.turned(Y, draw.normal(20)).moved(z=0.06), (0.03, 0.03, 0.12), CYLINDER, SMALL, stalk)
    leaves, reach = draw.integers(4), draw.uniform(0.08, 0.22)
    for i in range(3):
        leaf = top.turned(Z, 120.0 * i + draw.normal(25)).turned(Y, draw.uniform(30, 90)).moved(z=reach)
        kit.add(EXTRA, leaf, (0.02, 0.5 * reach, reach), Form(bend=0.3), MEDIUM, stalk & (leaves > i))


def assembly(kit: Kit) -> None:
    """Abstract objects: random solids attached to the surfaces of earlier ones, usually with a plane of symmetry."""
    draw = kit.draw
    frame = kit.world().turned(Y, draw.uniform(-180, 180) * draw.chance(0.5))
    size = torch.stack([draw.uniform(0.12, 0.4) for _ in range(3)], dim=-1)
    kit.add(BODY, frame, (size[:, 0], size[:, 1], size[:, 2]), some_form(draw), FINE)
    frames, sizes = [frame], [size]
    symmetric, count = draw.chance(0.65), draw.integers(6) + 3
    for i in range(8):
        parent = (draw.uniform(0, 1) * draw.uniform(0, 1) * len(frames)).long()
        child, child_size = _attached(kit, frames, sizes, parent)
        half = (child_size[:, 0], child_size[:, 1], child_size[:, 2])
        role, form = draw.pick((BODY, HEAD, EXTRA, LIMB, ACCENT, MUZZLE)).long(), some_form(draw)
        shape = Form(form.section, form.profile, form.taper, form.bend, draw.normal(0.3), ring=draw.chance(0.1) * 0.25)
        kit.add(role, child, half, shape, MEDIUM, count > i)
        kit.add(role, child.mirrored(), half, shape, MEDIUM, (count > i) & symmetric, side=-1.0)
        frames.append(child)
        sizes.append(child_size)


def _attached(
    kit: Kit, frames: list[Frame], sizes: list[torch.Tensor], parent: torch.Tensor
) -> tuple[Frame, torch.Tensor]:
    """Frame and half extents of a solid on the surface of an earlier one, in a random direction from its centre."""
    draw, rows = kit.draw, torch.arange(len(parent), device=parent.device)
    rotation = torch.stack([frame.rotation for frame in frames])[parent, rows]
    origin = torch.stack([frame.origin for frame in frames])[parent, rows]
    around, rise = draw.uniform(0, 360), draw.uniform(-70, 90)
    facing = Frame(rotation, origin).turned(Z, around).turned(Y, 90 - rise)
    # Distance from the parent's centre to the surface of its ellipsoid in that direction.
    local = rotation.mT @ facing.rotation[:, :, 2:]
    reach = 1 / (local[..., 0] / torch.stack(sizes)[parent, rows]).norm(dim=-1)
    scale = draw.uniform(0.35, 0.95)
    size = (
        reach[:, None].clamp_max(0.35) * scale[:, None] * torch.stack([draw.uniform(0.35, 1.1) for _ in range(3)], -1)
    )
    long = draw.chance(0.4) * draw.uniform(0.3, 1.5)
    size[:, 2] *= 1 + long
    return facing.moved(z=reach + 0.75 * size[:, 2]).turned(X, draw.normal(15)), size.clamp_min(0.03)
