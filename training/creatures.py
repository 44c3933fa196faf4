"""Layouts of animals and people."""

from __future__ import annotations

import torch

from training.kit import BOX, CYLINDER, ROUND, SPIKE, TUBE, Frame, Kit, X, Y, Z, head, limb, some_form, tail, trunk_form
from training.patterns import ACCENT, BODY, EXTRA, HEAD, INK, LIMB, MUZZLE, SKIN, WHITE, named_colours
from training.primitives import FINE, MEDIUM, SMALL, Form


def quadruped(kit: Kit) -> None:
    """Four-legged animals in a random gait, with a neck, a head and usually a tail."""
    draw = kit.draw
    long, girth = draw.uniform(0.3, 0.7), draw.uniform(0.16, 0.36)
    leg = draw.skewed(0.16, 0.8)
    trunk = kit.world().moved(z=leg + 0.6 * girth).turned(Y, draw.normal(6))
    along, shape = trunk.turned(Y, 90), trunk_form(draw)
    kit.add(BODY, along, (girth * draw.uniform(0.85, 1.2), girth, long), shape, FINE)
    chest = trunk.moved(x=draw.uniform(0.4, 0.7) * long, z=0.1 * girth)
    kit.add(BODY, chest, (1.1 * girth, 1.05 * girth, 1.1 * girth), present=draw.chance(0.4))
    _four_legs(kit, trunk, long, girth, leg)
    neck, lean = draw.skewed(0.08, 0.7), draw.uniform(5, 75)
    root = trunk.moved(x=0.8 * long, z=0.3 * girth).turned(Y, lean)
    width = girth * draw.uniform(0.35, 0.65)
    kit.add(BODY, root.moved(z=0.5 * neck), (width, width, 0.5 * neck + 0.6 * width), Form(profile=3.0, taper=-0.15))
    kit.add(ACCENT, root.moved(z=0.6 * neck), (1.25 * width, 1.25 * width, 0.3 * width), Form(ring=0.2), MEDIUM,
            draw.chance(0.15))  # fmt: skip
    poll = root.moved(z=neck + 0.5 * width).turned(Y, -lean + draw.normal(14)).turned(Z, draw.normal(28))
    head(kit, poll.moved(x=0.06), draw.uniform(0.13, 0.32), draw.chance(0.04), trunk_form(draw))
    rump = trunk.moved(x=-0.92 * long, z=0.35 * girth).turned(Y, draw.uniform(20, 130))
    tail(kit, LIMB, rump, 4, draw.skewed(0.07, 0.24), draw.uniform(0.025, 0.09))
    _on_the_back(kit, trunk, long, girth)


def _four_legs(kit: Kit, trunk: Frame, long: torch.Tensor, girth: torch.Tensor, leg: torch.Tensor) -> None:
    draw = kit.draw
    width = torch.minimum(draw.uniform(0.05, 0.14), 0.5 * girth)
    gait, knee, paw = draw.skewed(0, 40), draw.skewed(0, 45), draw.uniform(0.9, 1.7)
    shoe = torch.where(draw.chance(0.5), LIMB, EXTRA)
    shape = Form(profile=draw.pick((3.5, 3.5, 20.0)), taper=draw.pick((0.0, 0.25)))
    for end in (1, -1):
        for side in (1, -1):
            hip = trunk.moved(end * 0.72 * long, side * 0.62 * girth, -0.25 * girth).turned(Y, gait * draw.normal(0.7))
            bent = end * knee * draw.uniform(0.6, 1.0)
            reach = 0.5 * leg + 0.12 * girth
            foot = limb(kit, LIMB, hip, [reach, reach], [1.15 * width, width], [-0.5 * bent, bent], True, side, shape)
            kit.add(shoe, foot.moved(x=0.3 * width), (paw * 1.2 * width, paw * width, 0.7 * width), level=SMALL,
                    side=side)  # fmt: skip


def _on_the_back(kit: Kit, trunk: Frame, long: torch.Tensor, girth: torch.Tensor) -> None:
    """A saddle, a load, a shell, a hump, wings or a row of spikes; usually nothing."""
    draw = kit.draw
    kind = draw.index((0.55, 0.09, 0.1, 0.07, 0.06, 0.06, 0.07))
    top = trunk.moved(x=draw.normal(0.15) * long, z=0.95 * girth)
    kit.add(EXTRA, top.moved(z=-0.5 * girth), (0.35 * long, 1.12 * girth, 0.75 * girth), present=kind == 1)
    kit.add(EXTRA, top.moved(z=0.3 * girth), (0.4 * long, 0.7 * girth, 0.5 * girth), BOX, present=kind == 2)
    kit.add(EXTRA, top.moved(z=-0.4 * girth), (0.95 * long, 1.3 * girth, 0.9 * girth), present=kind == 3)
    kit.add(BODY, top, (0.4 * long, 0.6 * girth, 0.5 * girth), present=kind == 4)
    wing = top.moved(y=0.5 * girth).turned(X, -draw.uniform(-10, 70)).turned(Z, draw.normal(15))
    span = draw.uniform(0.25, 0.6)
    kit.pair(EXTRA, wing.moved(y=span), (0.4 * long, span, 0.03), Form(profile=2.0), present=kind == 5)
    for i in range(5):
        spike = trunk.moved(x=(0.8 - 0.4 * i) * long, z=1.05 * girth)
        kit.add(ACCENT, spike, (0.12 * long, 0.04, 0.4 * girth), SPIKE, SMALL, kind == 6)


def biped(kit: Kit) -> None:
    """People, robots and animals on two legs: posed limbs, clothes, objects on the back and in the hands."""
    draw = kit.draw
    human = draw.chance(0.3)
    tall, wide = draw.uniform(0.2, 0.42), draw.uniform(0.14, 0.32)
    leg = draw.uniform(0.16, 0.6)
    trunk = kit.world().moved(z=leg + 0.85 * tall).turned(Y, draw.normal(8))
    deep = wide * draw.uniform(0.6, 1.05)
    kit.add(BODY, trunk, (deep, wide, tall), trunk_form(draw), FINE)
    belly = draw.chance(0.25) & ~human
    kit.add(MUZZLE, trunk.moved(x=0.35 * deep, z=-0.15 * tall), (0.75 * deep, 0.7 * wide, 0.7 * tall), present=belly)
    radius = draw.uniform(0.15, 0.42)
    neck = draw.skewed(0.0, 0.18)
    nape = trunk.moved(z=0.9 * tall)
    kit.add(HEAD, nape.moved(z=0.4 * neck), (0.4 * radius, 0.4 * radius, neck + 0.1), TUBE, present=neck > 0.05)
    poll = nape.turned(Z, draw.normal(28)).turned(X, draw.normal(9)).turned(Y, draw.normal(10))
    head(kit, poll.moved(z=neck + 0.75 * radius), radius, draw.chance(0.06) & ~human, trunk_form(draw), human)
    _arms(kit, trunk, tall, wide)
    _two_legs(kit, trunk, tall, wide, leg)
    _clothes(kit, trunk, tall, wide, deep)
    _tail_and_back(kit, trunk, tall, wide, deep)
    kit.colours[HEAD] = (human, named_colours(draw, SKIN, 1)[:, 0])


def _arms(kit: Kit, trunk: Frame, tall: torch.Tensor, wide: torch.Tensor) -> None:
    draw = kit.draw
    width, reach = draw.uniform(0.04, 0.1), draw.uniform(0.13, 0.3)
    hand, palm = draw.uniform(1.0, 1.7), torch.where(draw.chance(0.6), HEAD, EXTRA)
    alike, raised = draw.chance(0.3), draw.skewed(5, 150)
    swing, odd = draw.normal(35), draw.chance(0.15)
    for side in (1, -1):
        sleeve = torch.where(odd & (side < 0), EXTRA, LIMB)
        raised = torch.where(alike, raised, draw.skewed(5, 160))
        swing = torch.where(alike, swing, draw.normal(35))
        shoulder = trunk.moved(y=side * 0.88 * wide, z=0.62 * tall).turned(X, side * raised).turned(Y, swing)
        elbow = -draw.skewed(0, 100)
        wrist = limb(kit, sleeve, shoulder, [reach, reach], [width, 0.9 * width], [0.0, elbow], True, side)
        kit.add(palm, wrist.moved(z=-0.4 * width), (hand * width, hand * width, hand * width), level=SMALL, side=side)
        _held(kit, wrist.moved(z=-0.6 * width), side)


def _held(kit: Kit, palm: Frame, side: int) -> None:
    """A stick with or without a head, a shield or a ball in the hand; usually nothing."""
    draw = kit.draw
    kind = draw.index((0.72, 0.1, 0.08, 0.05, 0.05))
    grip = palm.turned(Y, draw.uniform(60, 120)).turned(X, draw.normal(15))
    long, thin = draw.uniform(0.15, 0.5), draw.uniform(0.015, 0.04)
    stick = grip.moved(z=0.6 * long)
    kit.add(ACCENT, stick, (thin, thin * draw.pick((1.0, 3.0)), long), TUBE, present=(kind == 1) | (kind == 2))
    bulk = draw.uniform(0.05, 0.14)
    kit.add(EXTRA, stick.moved(z=long), (bulk, bulk, bulk * draw.uniform(0.5, 1.5)), some_form(draw), present=kind == 2)
    shield = draw.uniform(0.14, 0.28)
    disc = palm.moved(y=side * 0.06).turned(X, 90)
    kit.add(EXTRA, disc, (shield, shield * draw.uniform(0.8, 1.4), 0.03), Form(profile=6.0), present=kind == 3)
    kit.add(ACCENT, palm.moved(z=-bulk), (bulk, bulk, bulk), present=kind == 4)


def _two_legs(kit: Kit, trunk: Frame, tall: torch.Tensor, wide: torch.Tensor, leg: torch.Tensor) -> None:
    draw = kit.draw
    width = torch.minimum(draw.uniform(0.05, 0.13), 0.5 * wide)
    stride, boot = draw.skewed(0, 45), torch.where(draw.chance(0.4), LIMB, EXTRA)
    long, high, sitting = draw.uniform(1.1, 2.2), draw.uniform(0.5, 1.1), draw.chance(0.1)
    role, odd = torch.where(draw.chance(0.75), LIMB, EXTRA), draw.chance(0.15)
    for side in (1, -1):
        boot = torch.where(odd & (side < 0), ACCENT, boot)
        hip = trunk.moved(y=side * 0.5 * wide, z=-0.7 * tall).turned(X, side * draw.skewed(0, 22))
        swing = torch.where(sitting, -80 + draw.normal(6), side * stride * draw.uniform(0.5, 1.0))
        knee = draw.skewed(0, 50)
        half = 0.5 * leg + 0.04
        foot = limb(kit, role, hip, [half, half], [1.1 * width, width], [swing - 0.4 * knee, knee], True, side)
        shoe = foot.moved(x=0.4 * long * width)
        kit.add(boot, shoe, (long * width, 1.15 * width, high * width), Form(profile=2.5), level=MEDIUM, side=side)


def _clothes(kit: Kit, trunk: Frame, tall: torch.Tensor, wide: torch.Tensor, deep: torch.Tensor) -> None:
    """Skirts, belts, scarves."""
    draw = kit.draw
    flare, hem = draw.uniform(1.1, 1.7), draw.uniform(0.25, 0.5) * tall
    skirt = Form(profile=8.0, taper=-draw.uniform(0.1, 0.5), ridges=draw.pick((8.0, 6.0)), depth=draw.skewed(0, 0.08))
    low = trunk.moved(z=-0.75 * tall)
    kit.add(EXTRA, low, (flare * deep, flare * wide, hem), skirt, FINE, draw.chance(0.18))
    belt = trunk.moved(z=-draw.uniform(0.2, 0.5) * tall)
    kit.add(ACCENT, belt, (1.08 * deep, 1.08 * wide, 0.09 * tall), Form(profile=5.0), present=draw.chance(0.2))
    scarf = trunk.moved(z=0.85 * tall)
    kit.add(ACCENT, scarf, (0.85 * deep, 0.75 * wide, 0.16 * tall), Form(ring=0.3), present=draw.chance(0.2))


def _tail_and_back(kit: Kit, trunk: Frame, tall: torch.Tensor, wide: torch.Tensor, deep: torch.Tensor) -> None:
    """A tail, and perhaps a pack, barrels, wings, a cape, a shell or a winding key on the back."""
    draw = kit.draw
    kind = draw.index((0.42, 0.15, 0.08, 0.11, 0.09, 0.06, 0.09))
    back = trunk.moved(x=-0.95 * deep, z=0.15 * tall)
    pack = Form(section=draw.pick((4.0, 20.0, 2.0)), profile=draw.pick((4.0, 20.0, 2.0)))
    big = draw.uniform(0.4, 0.9)
    kit.add(EXTRA, back, (0.6 * deep, big * wide, big * tall), pack, present=kind == 1)
    kit.pair(EXTRA, back.moved(y=0.4 * wide), (0.35 * wide, 0.35 * wide, 0.7 * tall), CYLINDER, present=kind == 2)
    span = draw.uniform(0.15, 0.45)
    wing = back.moved(y=0.2 * wide).turned(Z, -draw.uniform(10, 60)).turned(X, draw.uniform(-20, 50)).moved(y=span)
    shape = Form(profile=draw.pick((2.0, 1.3, 3.0)), taper=draw.normal(0.3))
    kit.pair(EXTRA, wing, (0.03, span, draw.uniform(0.4, 1.0) * tall), shape, present=kind == 3)
    cape = trunk.moved(x=-1.05 * deep, z=-0.3 * tall).turned(Y, draw.uniform(5, 25))
    kit.add(EXTRA, cape, (0.035, 1.1 * wide, 1.2 * tall), Form(section=4, profile=20, taper=-0.25), present=kind == 4)
    kit.add(EXTRA, trunk.moved(x=-0.5 * deep), (0.9 * deep, 1.12 * wide, 1.0 * tall), ROUND, present=kind == 5)
    key = back.moved(x=-0.12)
    kit.add(ACCENT, key.turned(Y, 90), (0.025, 0.025, 0.16), CYLINDER, SMALL, kind == 6)
    turn = key.moved(x=-0.16).turned(X, draw.uniform(0, 180))
    kit.pair(ACCENT, kit.world().moved(y=0.09), (0.03, 0.1, 0.07), present=kind == 6, about=turn)
    root = trunk.moved(x=-0.7 * deep, z=-0.75 * tall).turned(Y, draw.uniform(40, 140))
    tail(kit, LIMB, root, 4, draw.skewed(0.07, 0.2), draw.uniform(0.025, 0.1))


def bird(kit: Kit) -> None:
    """Birds and dinosaurs: a body balanced on two legs, wings or small arms, a tail behind."""
    draw = kit.draw
    long, girth, leg = draw.uniform(0.25, 0.5), draw.uniform(0.16, 0.34), draw.skewed(0.06, 0.6)
    dinosaur, upright = draw.chance(0.35), draw.uniform(-75, 5)
    trunk = kit.world().moved(z=leg + girth)
    body = trunk.turned(Y, upright)
    shape = Form(profile=draw.uniform(1.7, 2.4), taper=draw.normal(0.2))
    kit.add(BODY, body.turned(Y, 90), (girth, girth * draw.uniform(0.8, 1.1), long), shape, FINE)
    breast = body.moved(x=0.2 * long, z=-0.25 * girth).turned(Y, 90)
    kit.add(MUZZLE, breast, (0.85 * girth, 0.75 * girth, 0.7 * long), present=draw.chance(0.3))
    neck, lean = draw.skewed(0.0, 0.5), draw.uniform(0, 50)
    root = body.moved(x=0.8 * long).turned(Y, -upright + lean)
    width = girth * draw.uniform(0.3, 0.6)
    kit.add(BODY, root.moved(z=0.5 * neck), (width, width, 0.5 * neck + width), Form(profile=3.0))
    poll = root.moved(z=neck + 0.5 * width).turned(Y, -lean + draw.normal(10)).turned(Z, draw.normal(30))
    head(kit, poll, draw.uniform(0.12, 0.28), ~dinosaur | draw.chance(0.2), trunk_form(draw))
    _wings(kit, body, long, girth, dinosaur)
    _bird_legs(kit, trunk, girth, leg + 0.4 * girth)
    _bird_tail(kit, body, long, girth, dinosaur)


def _wings(kit: Kit, body: Frame, long: torch.Tensor, girth: torch.Tensor, arms: torch.Tensor) -> None:
    """Wings, folded or spread, or small arms."""
    draw = kit.draw
    spread = draw.chance(0.5)
    shoulder = body.moved(0.3 * long, 0.85 * girth, 0.2 * girth)
    lift = torch.where(spread, draw.uniform(40, 140), draw.uniform(5, 25))
    root = shoulder.turned(X, lift).turned(Y, torch.where(spread, draw.normal(15), 55 + draw.normal(10)))
    span, chord = long * draw.uniform(0.5, 1.3), long * draw.uniform(0.3, 0.6)
    shape = Form(taper=draw.uniform(0.0, 0.8), profile=2.2)
    wing = root.moved(z=-0.85 * span)
    kit.pair(EXTRA, wing, (chord, 0.04, span), shape, present=~arms)
    tip = wing.moved(x=-0.3 * chord, z=-0.5 * span)
    kit.pair(ACCENT, tip, (0.8 * chord, 0.03, 0.6 * span), shape, present=~arms & draw.chance(0.4))
    arm = shoulder.moved(0.4 * long, z=-0.5 * girth).turned(Y, -draw.uniform(10, 70))
    kit.pair(LIMB, arm.moved(z=-0.12), (0.04, 0.04, 0.16), TUBE, present=arms)


def _bird_legs(kit: Kit, trunk: Frame, girth: torch.Tensor, leg: torch.Tensor) -> None:
    draw = kit.draw
    width = draw.uniform(0.02, 0.09)
    stride, thigh, foot = draw.skewed(0, 40), draw.uniform(1.0, 2.2), draw.uniform(0.08, 0.18)
    role = torch.where(draw.chance(0.6), ACCENT, LIMB)
    for side in (1, -1):
        hip = trunk.moved(-0.05, side * 0.5 * girth, -0.4 * girth).turned(Y, side * stride)
        half = 0.5 * leg + 0.02
        toes = limb(kit, role, hip, [half, half], [thigh * width, width], [-20.0, 25.0], True, side)
        kit.add(role, toes.moved(x=0.5 * foot), (foot, 0.6 * foot, 0.03), side=side, level=SMALL)


def _bird_tail(kit: Kit, body: Frame, long: torch.Tensor, girth: torch.Tensor, dinosaur: torch.Tensor) -> None:
    """A fan of feathers, or a long tapering tail."""
    draw = kit.draw
    fan, wide = long * draw.uniform(0.3, 0.9), girth * draw.uniform(0.3, 1.2)
    root = body.moved(x=-0.85 * long).turned(Y, draw.uniform(-25, 40))
    feathers = root.moved(x=-0.7 * fan).turned(Y, -90)
    kit.add(EXTRA, feathers, (0.04, wide, fan), Form(profile=2.5, taper=draw.uniform(0.0, 0.8)), present=~dinosaur)
    joint, width = root.turned(Y, 70), 0.75 * girth
    wag, part = draw.normal(14), 0.45 * long
    for _ in range(4):
        joint = joint.turned(X, wag).turned(Y, 8.0)
        kit.add(BODY, joint.moved(z=-0.5 * part), (width, width, 0.75 * part), Form(taper=0.25), present=dinosaur)
        joint, width = joint.moved(z=-1.0 * part), 0.68 * width


def fish(kit: Kit) -> None:
    """Fish and whales: a flattened body with fins, and eyes on its sides."""
    draw = kit.draw
    long, deep, wide = draw.uniform(0.4, 0.7), draw.uniform(0.14, 0.45), draw.uniform(0.1, 0.3)
    body = kit.world().turned(Y, draw.normal(12))
    shape = Form(taper=draw.uniform(-0.1, 0.5), profile=draw.uniform(1.6, 2.5), bend=draw.normal(0.08))
    kit.add(BODY, body.turned(Y, 90), (deep, wide, long), shape, FINE)
    fluke, tall = draw.uniform(0.12, 0.3), draw.uniform(0.12, 0.45)
    wag, flat = draw.normal(25), torch.where(draw.chance(0.2), 90.0, 0.0)
    root = body.moved(x=-0.9 * long).turned(Z, wag).turned(X, flat)
    for sign in (1, -1):
        fin = root.turned(Y, sign * draw.uniform(25, 60)).moved(x=-0.8 * fluke - 0.3 * tall)
        kit.add(EXTRA, fin.turned(Y, -90), (0.6 * fluke, 0.03, 0.5 * tall + fluke), Form(taper=0.6, profile=3.0))
    back = body.moved(x=draw.normal(0.2) * long, z=0.9 * deep).turned(Y, -draw.uniform(10, 50))
    kit.add(EXTRA, back, (0.5 * long * draw.uniform(0.3, 1.0), 0.03, 0.5 * deep), Form(taper=-0.5), MEDIUM,
            draw.chance(0.85))  # fmt: skip
    side = body.moved(0.25 * long, 0.9 * wide, -0.3 * deep).turned(X, draw.uniform(10, 70)).turned(Y, 40)
    span = draw.uniform(0.1, 0.35)
    kit.pair(EXTRA, side.moved(z=-0.8 * span), (0.5 * span, 0.025, span), Form(taper=0.5))
    eye = draw.uniform(0.03, 0.09)
    place = body.moved(0.62 * long, 0.72 * wide, 0.25 * deep).turned(Z, 65)
    kit.pair(WHITE, place, (0.5 * eye, eye, eye), level=SMALL)
    kit.pair(INK, place.moved(x=0.35 * eye), (0.35 * eye, 0.55 * eye, 0.55 * eye), level=SMALL)
    mouth = body.moved(0.92 * long, z=-0.2 * deep)
    lips = torch.where(draw.chance(0.5), MUZZLE, ACCENT)
    kit.add(lips, mouth, (0.08 * long, 0.45 * wide, 0.15 * deep), level=SMALL, present=draw.chance(0.7))
    spout = body.moved(0.2 * long, z=deep)
    kit.add(ACCENT, spout, (0.04, 0.04, 0.1), SPIKE, SMALL, draw.chance(0.08))


def crawler(kit: Kit) -> None:
    """Insects, spiders and crabs: body segments in a row, many legs on both sides, some with feelers, claws, wings."""
    draw = kit.draw
    girth, high = draw.uniform(0.14, 0.3), draw.uniform(0.1, 0.35)
    trunk = kit.world().moved(z=high)
    kit.add(
        BODY, trunk, (girth * draw.uniform(0.9, 1.4), girth * draw.uniform(0.8, 1.4), 0.8 * girth), trunk_form(draw)
    )
    rear, rise = girth * draw.uniform(0.7, 2.0), draw.uniform(-10, 35)
    abdomen = trunk.moved(x=-0.9 * girth).turned(Y, rise).moved(x=-0.8 * rear)
    stretch = draw.uniform(0.7, 1.0)
    kit.add(BODY, abdomen.turned(Y, -90), (stretch * rear, stretch * rear, 1.1 * rear), Form(taper=draw.normal(0.2)),
            FINE, draw.chance(0.75))  # fmt: skip
    front = trunk.moved(x=1.1 * girth, z=0.15 * girth).turned(Z, draw.normal(18))
    head(kit, front, girth * draw.uniform(0.6, 1.1), draw.chance(0.1), trunk_form(draw))
    _many_legs(kit, trunk, girth, high)
    wing = abdomen.moved(z=0.6 * rear, y=0.2 * rear).turned(X, draw.uniform(0, 50)).turned(Z, -draw.uniform(10, 70))
    span = rear * draw.uniform(0.8, 1.6)
    kit.pair(EXTRA, wing.moved(y=span), (0.45 * span, span, 0.02), present=draw.chance(0.3))
    claw = trunk.moved(1.2 * girth, 0.9 * girth, -0.1).turned(Z, draw.uniform(0, 40)).moved(x=0.25)
    armed = draw.chance(0.25)
    kit.pair(LIMB, claw.moved(x=-0.12).turned(Y, 90), (0.035, 0.035, 0.16), TUBE, present=armed)
    kit.pair(EXTRA, claw.moved(x=0.06).turned(Y, 90), (0.07, 0.1, 0.14), present=armed)


def _many_legs(kit: Kit, trunk: Frame, girth: torch.Tensor, high: torch.Tensor) -> None:
    draw = kit.draw
    pairs, width = draw.integers(3) + 2, draw.uniform(0.018, 0.05)
    knee, upper, splay = draw.uniform(5, 60), draw.uniform(0.14, 0.4), draw.uniform(20, 55)
    # Knees lie above the hips; the lower leg reaches down to the ground.
    rise = upper * knee.deg2rad().sin()
    lower = (high + rise) * draw.uniform(0.95, 1.1)
    for i in range(4):
        present = pairs > i
        place = 1 - 2 * i / (pairs - 1)
        for side in (1, -1):
            step = draw.normal(7)
            hip = trunk.turned(Z, side * (90 - splay * place) + step).moved(x=0.8 * girth)
            joint = limb(kit, LIMB, hip, [upper], [width], [-90 - knee], present, side)
            limb(kit, LIMB, joint, [lower], [0.8 * width], [90 + knee - 10], present, side)


def soft_body(kit: Kit) -> None:
    """Octopuses and jellyfish: a bell with a face, surrounded by tentacles."""
    draw = kit.draw
    radius, count = draw.uniform(0.2, 0.36), draw.integers(4) + 5
    mantle = kit.world().moved(z=0.5).turned(Y, draw.normal(8))
    head(kit, mantle, radius, draw.chance(0.02), Form(profile=draw.uniform(1.8, 3.0), taper=draw.uniform(0.0, 0.25)))
    part, width = draw.uniform(0.14, 0.28), radius * draw.uniform(0.15, 0.32)
    spread, curl, sway = draw.uniform(10, 75), draw.normal(30), draw.normal(12)
    for i in range(8):
        root = mantle.turned(Z, 360 * (i + 0.5) / count).moved(x=0.55 * radius, z=-0.6 * radius).turned(X, sway)
        curls = [curl + draw.normal(10) for _ in range(2)]
        widths = [width, 0.8 * width, 0.6 * width]
        limb(kit, LIMB, root, [part, part, part], widths, [-spread, *curls], count > i)


def worm(kit: Kit) -> None:
    """Snakes, caterpillars and dragons: a chain along a winding path that tapers towards the tail."""
    draw = kit.draw
    width, gap = draw.uniform(0.07, 0.17), draw.uniform(0.7, 1.3)
    swing, phase, rear = draw.uniform(0, 32), draw.uniform(0, 6.3), draw.uniform(-14, 22)
    joint = kit.world().moved(z=0.2).turned(Y, -draw.uniform(0, 35))
    face = joint.moved(x=1.3 * width, z=0.2 * width).turned(Y, draw.uniform(0, 25))
    head(kit, face, width * draw.uniform(1.1, 1.9), draw.chance(0.04), trunk_form(draw))
    length, banded, legs = draw.integers(7) + 5, draw.chance(0.3), draw.chance(0.4)
    for i in range(11):
        present = length > i
        kit.add(torch.where(banded & (i % 2 == 1), EXTRA, BODY), joint.turned(Y, 90),
                (width, width, 0.75 * width * (0.6 + gap)), Form(profile=2.5), present=present)  # fmt: skip
        foot = kit.world().moved(y=0.8 * width, z=-0.9 * width)
        kit.pair(LIMB, foot, (0.3 * width, 0.3 * width, 0.5 * width), level=SMALL, present=present & legs, about=joint)
        joint = joint.turned(Z, swing * torch.sin(phase + 0.9 * i)).turned(Y, rear * (1 if i < 3 else -0.35))
        joint, width = joint.moved(x=-width * gap), 0.95 * width
