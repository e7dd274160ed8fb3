"""People: build, pose, skin and hair, and the room they stand in. Lengths in canvas units: 1/128 of the height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dressform_export.demo.wardrobe.drawing import Canvas, Disc, Plane, Point, between, curve, flat, tube
from dressform_export.demo.wardrobe.labels import ATR_ID

SKINS = (
    (250, 222, 200),
    (240, 200, 170),
    (224, 176, 140),
    (198, 146, 106),
    (160, 110, 76),
    (122, 80, 54),
    (92, 60, 42),
)
HAIRS = ((30, 26, 24), (62, 42, 30), (104, 68, 42), (150, 96, 50), (206, 164, 100), (168, 70, 40), (150, 148, 146))
STYLES = ("bald", "short", "bob", "long", "bun", "curly")
WALLS = (
    (226, 228, 232),
    (236, 226, 212),
    (204, 216, 226),
    (214, 226, 210),
    (232, 214, 214),
    (196, 196, 204),
    (238, 236, 230),
)
SIDES = ((-1, "Right"), (1, "Left"))  # the person's own right is at the picture's left
FLOORS = ((176, 150, 122), (150, 150, 156), (200, 186, 166), (120, 104, 92), (186, 192, 198))


@dataclass(frozen=True)
class Arm:
    """Joints of one arm."""

    shoulder: Point
    elbow: Point
    wrist: Point
    tip: Point

    @classmethod
    def posed(cls, side: int, shoulder: Point, upper: float, fore: float, scale: float = 1.0) -> Arm:
        """The picture's left (-1) or right (1) arm, its halves at angles (radians) outwards from straight down."""
        joints = [shoulder]
        for length, angle in ((18, upper), (16, fore), (6.5, fore)):
            x, y = joints[-1]
            across, down = side * length * scale * np.sin(angle), length * scale * np.cos(angle)
            joints.append((float(x + across), float(y + down)))
        return cls(*joints)


@dataclass(frozen=True)
class Body:
    """Where the parts of a body are: heights (y), half widths (``_w``), joints. ``scale`` 1 is a person's own size."""

    x: float
    lean: float
    scale: float
    head: Point
    head_w: float
    head_h: float
    neck_w: float
    neck_y: float
    shoulder_y: float
    shoulder_w: float
    chest_w: float
    waist_y: float
    waist_w: float
    hem_y: float
    hip_w: float
    crotch_y: float
    knee_y: float
    ankle_y: float
    leg_w: float
    stance: float
    arms: tuple[Arm, Arm]

    def at(self, x: float, y: float) -> Point:
        """The point ``x`` to the right of the body's axis at height ``y``: the axis leans."""
        return (self.x + x + self.lean * (self.hem_y - y), y)

    def leg(self, side: int) -> tuple[Point, Point, Point]:
        """Hip, knee and ankle of the left (-1) or right (1) leg of the picture."""
        hip = self.at(side * self.hip_w * 0.5, self.hem_y)
        ankle = (self.at(0, self.hem_y)[0] + side * self.stance, self.ankle_y)
        return hip, (between(hip, ankle, 0.5)[0] + side * 0.6, self.knee_y), ankle


def random_body(rng: np.random.Generator) -> Body:
    """A varied build in a varied pose, wholly within a canvas of 128 × 96 units."""
    build = rng.uniform(-1, 1)
    x = 48 + rng.uniform(-5, 5)
    lean = rng.uniform(-0.06, 0.06)
    shift = rng.uniform(-1.5, 2.0)
    shoulder_w = 16.0 + 1.8 * build + rng.uniform(-1, 1)
    hip_w = 13.6 + 2.0 * build + rng.uniform(-1, 1)
    shoulder_y, hem_y = 30.5 + shift, 70.0 + shift + rng.uniform(-1, 1)

    def axis(y: float) -> float:
        return float(x + lean * (hem_y - y))

    arms = []
    for side in (-1, 1):
        shoulder = (axis(shoulder_y) + side * (shoulder_w - 2.6), shoulder_y + 2.6)
        arms.append(_arm(rng, side, shoulder))
    return Body(
        x=x,
        lean=lean,
        scale=1.0,
        head=(axis(15 + shift) + rng.uniform(-0.8, 0.8), 15.0 + shift),
        head_w=7.0 + 0.4 * build + rng.uniform(-0.4, 0.4),
        head_h=8.9 + rng.uniform(-0.4, 0.4),
        neck_w=3.4 + 0.4 * build,
        neck_y=27.6 + shift,
        shoulder_y=shoulder_y,
        shoulder_w=shoulder_w,
        chest_w=13.8 + 2.0 * build,
        waist_y=53.0 + shift,
        waist_w=11.6 + 2.6 * build + rng.uniform(-0.8, 0.8),
        hem_y=hem_y,
        hip_w=hip_w,
        crotch_y=hem_y + 7,
        knee_y=95.0 + shift,
        ankle_y=116.0 + shift,
        leg_w=6.0 + 0.9 * build,
        stance=hip_w * 0.5 + rng.uniform(-0.5, 3.0),
        arms=(arms[0], arms[1]),
    )


def _arm(rng: np.random.Generator, side: int, shoulder: Point) -> Arm:
    """Hanging, held away, or with the hand towards the hip."""
    pose = rng.choice(3, p=(0.5, 0.3, 0.2))
    upper = np.radians((rng.uniform(8, 20), rng.uniform(20, 36), rng.uniform(32, 44))[pose])
    fore = np.radians((rng.uniform(2, 18), rng.uniform(5, 35), rng.uniform(-32, -16))[pose])
    return Arm.posed(side, shoulder, upper, fore)


@dataclass(frozen=True)
class Person:
    """A body with its looks, and the room."""

    body: Body
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    style: str
    shoes: tuple[float, float, float]
    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    room_seed: int


def random_person(rng: np.random.Generator) -> Person:
    """A person in a room."""
    return Person(
        body=random_body(rng),
        skin=_shade(rng, SKINS, 8),
        hair=_shade(rng, HAIRS, 10),
        style=str(rng.choice(STYLES, p=(0.08, 0.26, 0.18, 0.22, 0.12, 0.14))),
        shoes=_shade(rng, ((40, 40, 44), (236, 236, 236), (120, 76, 44), (150, 40, 44), (60, 80, 130)), 8),
        wall=_shade(rng, WALLS, 12),
        floor=_shade(rng, FLOORS, 12),
        room_seed=int(rng.integers(2**31)),
    )


def _shade(rng: np.random.Generator, of: tuple[tuple[int, int, int], ...], jitter: float) -> tuple[float, float, float]:
    red, green, blue = np.array(of[int(rng.integers(len(of)))]) + rng.uniform(-jitter, jitter)
    return float(red), float(green), float(blue)


def draw_room(canvas: Canvas, person: Person) -> None:
    """Wall, floor, a picture or lamp now and then, and the person's shadow."""
    rng = np.random.default_rng(person.room_seed)
    w, horizon = canvas.width, rng.uniform(98, 112)
    tilt, glow_x = rng.uniform(-0.1, 0.1), rng.uniform(0.2, 0.8) * w

    def wall(x: Plane, y: Plane) -> Plane:
        light = 1.04 - 0.12 * np.hypot((x - glow_x) / w, (y - 30) / 128) + tilt * (x / w - 0.5)
        return np.array(person.wall, np.float32) * light[..., None]

    canvas.paint(canvas.shape([(0, 0), (w, 0), (w, 128), (0, 128)]), wall, depth=0)
    for _ in range(int(rng.integers(0, 3))):
        left, top, side = rng.uniform(-6, w - 14), rng.uniform(4, 50), rng.uniform(12, 26)
        tint = np.array(person.wall) * rng.uniform(0.72, 1.08) + rng.uniform(-14, 14, 3)
        frame = [(left, top), (left + side, top), (left + side, top + 1.3 * side), (left, top + 1.3 * side)]
        canvas.paint(canvas.shape(frame), flat(tint), depth=0.06, round_=2)

    def floor(x: Plane, y: Plane) -> Plane:
        return np.array(person.floor, np.float32) * (0.92 + 0.12 * (y[..., None] - horizon) / 20 + 0 * x[..., None])

    canvas.paint(canvas.shape([(0, horizon), (w, horizon), (w, 129), (0, 129)]), floor, depth=0)
    body = person.body
    foot = [(body.x + dx, body.ankle_y + 5 + dy) for dx, dy in ((-18, 0), (0, -2.5), (18, 0), (0, 2.5))]
    canvas.shadow(canvas.shape(foot), 2.0, 0.55)


def draw_legs(canvas: Canvas, person: Person) -> None:
    """Bare legs and shoes."""
    body = person.body
    for side, name in SIDES:
        hip, knee, ankle = body.leg(side)
        leg = canvas.shape(
            tube(hip, knee, body.leg_w, body.leg_w * 0.7),
            Disc(knee, body.leg_w * 0.7),
            tube(knee, ankle, body.leg_w * 0.7, 2.9),
        )
        canvas.paint(leg, flat(person.skin), label=ATR_ID[f"{name}-leg"], round_=4, depth=0.22)
        x, y = ankle
        toe = curve(
            [
                (x - 3.4, y - 1),
                (x - 3.8 + side, y + 5.4),
                (x + side, y + 6.2),
                (x + 3.8 + side, y + 5.4),
                (x + 3.4, y - 1),
            ]
        )
        canvas.paint(canvas.shape(toe), flat(person.shoes), label=ATR_ID[f"{name}-shoe"], round_=2.5, depth=0.3)


def draw_chest(canvas: Canvas, person: Person) -> None:
    """The skin of shoulders and chest, which ATR has no label for: it counts as the arm of its side."""
    body = person.body
    for side, name in SIDES:
        half = [body.at(0, body.neck_y), body.at(side * (body.shoulder_w - 1.6), body.shoulder_y)]
        half += [body.at(side * body.chest_w, body.shoulder_y + 13), body.at(0, body.shoulder_y + 13)]
        canvas.paint(canvas.shape(half), flat(person.skin), label=ATR_ID[f"{name}-arm"], depth=0)


def draw_arms(canvas: Canvas, person: Person) -> None:
    """Bare arms, without hands."""
    for (_, name), arm in zip(SIDES, person.body.arms):
        shape = canvas.shape(
            Disc(arm.shoulder, 4.0),
            tube(arm.shoulder, arm.elbow, 4.0, 3.3),
            Disc(arm.elbow, 3.3),
            tube(arm.elbow, arm.wrist, 3.3, 2.4),
            Disc(arm.wrist, 2.4),
        )
        canvas.paint(shape, flat(person.skin), label=ATR_ID[f"{name}-arm"], round_=3.4, depth=0.24)


def draw_hands(canvas: Canvas, person: Person) -> NDArray[np.bool_]:
    """Hands, over the sleeves; where they are, [H, W]."""
    before = canvas.labels.copy()
    canvas.labels[:] = 0
    for (_, name), arm in zip(SIDES, person.body.arms):
        palm = between(arm.wrist, arm.tip, 0.45)
        shape = canvas.shape(
            tube(arm.wrist, palm, 2.4, 2.9), Disc(palm, 2.9), tube(palm, arm.tip, 2.8, 1.5), Disc(arm.tip, 1.5)
        )
        canvas.paint(shape, flat(person.skin), label=ATR_ID[f"{name}-arm"], round_=3, depth=0.2)
    hands = canvas.label_map() > 0
    canvas.labels[canvas.labels == 0] = before[canvas.labels == 0]
    return hands


def draw_neck(canvas: Canvas, person: Person) -> None:
    """The neck, down to the collar."""
    body = person.body
    x, y = body.head
    base = body.at(0, body.neck_y + 1.6)
    canvas.paint(
        canvas.shape(tube((x, y + 4), base, body.neck_w, body.neck_w + 0.9)),
        flat(np.multiply(person.skin, 0.87)),
        label=ATR_ID["Face"],
        depth=0.1,
    )


def draw_hair_behind(canvas: Canvas, person: Person) -> None:
    """Hair that falls behind the shoulders."""
    if person.style not in ("bob", "long"):
        return
    body = person.body
    x, y = body.head
    drop = 13 if person.style == "bob" else 24
    w = body.head_w + 2.2
    outline = curve(
        [
            (x - w, y - 2),
            (x - w - 0.8, y + 6),
            (x - w + 0.4, y + drop),
            (x, y + drop + 1),
            (x + w - 0.4, y + drop),
            (x + w + 0.8, y + 6),
            (x + w, y - 2),
        ]
    )
    canvas.paint(canvas.shape(outline), flat(np.multiply(person.hair, 0.85)), label=ATR_ID["Hair"], round_=4, depth=0.3)


def draw_head(canvas: Canvas, person: Person) -> None:
    """Face and hair."""
    body, skin = person.body, np.array(person.skin)
    x, y = body.head
    w, h = body.head_w, body.head_h
    if person.style == "curly":
        puffs = [
            Disc((x + 8.2 * np.cos(a), y - 3 + 8.0 * np.sin(a)), 4.4) for a in np.linspace(np.pi * 0.9, np.pi * 2.1, 8)
        ]
        canvas.paint(canvas.shape(*puffs), flat(person.hair), label=ATR_ID["Hair"], round_=3, depth=0.3)
    if person.style == "bun":
        canvas.paint(
            canvas.shape(Disc((x, y - h - 1.5), 4.0)), flat(person.hair), label=ATR_ID["Hair"], round_=3, depth=0.3
        )
    face = [(x + w * np.cos(a), y + h * np.sin(a) * (1 - 0.05 * abs(np.cos(a)))) for a in np.linspace(0, 2 * np.pi, 40)]
    canvas.paint(canvas.shape(face), flat(skin), label=ATR_ID["Face"], round_=5, depth=0.2)
    if person.style != "bald":
        canvas.paint(canvas.shape(_fringe(x, y, w, h)), flat(person.hair), label=ATR_ID["Hair"], round_=3, depth=0.25)
        if person.style in ("bob", "long"):
            for side in (-1, 1):
                lock = curve(
                    [
                        (x + side * (w + 1.6), y - 4),
                        (x + side * (w + 2.2), y + 5),
                        (x + side * (w + 0.4), y + 9),
                        (x + side * (w - 1.6), y + 3),
                        (x + side * (w - 1.2), y - 4),
                    ]
                )
                canvas.paint(canvas.shape(lock), flat(person.hair), label=ATR_ID["Hair"], round_=2, depth=0.2)
    dark = np.clip(skin * 0.35, 20, 255)
    for side in (-1, 1):
        canvas.paint(canvas.shape(Disc((x + side * 2.9, y + 0.6), 0.95)), flat((38, 30, 28)), depth=0)
        brow = tube((x + side * 1.7, y - 1.8), (x + side * 4.3, y - 1.7), 0.4, 0.35)
        canvas.paint(canvas.shape(brow), flat(dark), depth=0)
    canvas.paint(canvas.shape(tube((x, y + 1.2), (x + 0.5, y + 3.1), 0.35, 0.6)), flat(skin * 0.84), depth=0)
    mouth = curve([(x - 2.2, y + 5.0), (x, y + 5.5), (x + 2.2, y + 5.0), (x, y + 6.5), (x - 2.2, y + 5.0)])
    canvas.paint(canvas.shape(mouth), flat(skin * (0.80, 0.55, 0.55)), depth=0)


def _fringe(x: float, y: float, w: float, h: float) -> list[Point]:
    crown = [
        (x + (w + 1.1) * np.cos(a), y - 0.5 + (h + 1.1) * np.sin(a))
        for a in np.linspace(np.pi * 0.98, np.pi * 2.02, 24)
    ]
    line = curve(
        [
            (x + w * 0.92, y - 0.5),
            (x + w * 0.55, y - 4.0),
            (x - w * 0.1, y - 4.9),
            (x - w * 0.6, y - 3.6),
            (x - w * 0.92, y - 0.5),
        ]
    )
    return [(float(a), float(b)) for a, b in crown] + line
