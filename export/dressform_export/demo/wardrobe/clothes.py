"""Clothes on a body: their shapes, and cloth laid over them with shading and folds.

A garment laid flat is the same drawing on an empty body, enlarged: so pattern and cut are the very same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from dressform_export.demo.wardrobe.drawing import Canvas, Colouring, Disc, Plane, Point, between, curve, flat, tube
from dressform_export.demo.wardrobe.garments import Garment
from dressform_export.demo.wardrobe.labels import ATR_ID
from dressform_export.demo.wardrobe.people import Arm, Body

LAID_OUT = {
    "t-shirt": (1.62, 28.5, 70.0),
    "long-sleeved shirt": (1.5, 28.5, 70.0),
    "tank top": (1.62, 28.5, 70.0),
    "dress": (1.36, 26.0, 90.0),
    "skirt": (1.9, 58.5, 93.0),
    "trousers": (1.62, 58.5, 117.0),
}
"""Of each kind laid flat: by how much it is enlarged, and between which heights of a body it lies."""

LABELS = {"upper": "Upper-clothes", "overall": "Dress", "skirt": "Skirt", "trousers": "Pants"}


def label_of(garment: Garment) -> int:
    """The ATR label of a garment."""
    return ATR_ID[LABELS.get(garment.kind) or LABELS[garment.category]]


def draw_lower(canvas: Canvas, body: Body, garment: Garment) -> None:
    """A skirt or trousers."""
    if garment.kind == "skirt":
        _draw_skirt(canvas, body, garment)
    else:
        _draw_trousers(canvas, body, garment)


def draw_top(canvas: Canvas, body: Body, garment: Garment) -> None:
    """The torso of a shirt, tank top or dress; sleeves come after the arms (`draw_sleeves`)."""
    long = garment.kind == "dress"
    mask = _torso(canvas, body, garment, to_knee=long)
    collar = _neckline(canvas, body, garment)
    cloth = _cloth(garment, body, body.at(0, body.shoulder_y), spread=body.chest_w, folds="skirt" if long else "torso")
    label = label_of(garment)
    if _is_flat(body):  # the back of the collar shows through the neckline
        back = ImageChops.multiply(collar, canvas.shape(_collar_back(body)))
        canvas.paint(back, flat(np.multiply(garment.colour_rgb, 0.62)), label=label, depth=0)
    canvas.paint(ImageChops.subtract(mask, collar), cloth, label=label, round_=5, depth=0.26)


def draw_sleeves(canvas: Canvas, body: Body, garment: Garment) -> None:
    """The sleeves of a shirt or dress, over the arms."""
    if garment.kind == "tank top":
        return
    for side, arm in zip((-1, 1), body.arms):
        _draw_sleeve(canvas, body, garment, side, arm)


def _draw_sleeve(canvas: Canvas, body: Body, garment: Garment, side: int, arm: Arm) -> None:
    z = body.scale
    label = label_of(garment)
    top = (arm.shoulder[0] - side * 0.6 * z, arm.shoulder[1] - 0.2 * z)
    if garment.kind != "long-sleeved shirt":
        cuff = between(arm.shoulder, arm.elbow, 0.62)
        shape = canvas.shape(Disc(top, 4.7 * z), tube(top, cuff, 4.7 * z, 4.9 * z))
        canvas.paint(shape, _cloth(garment, body, top, towards=cuff, folds="sleeve"), label=label, round_=3, depth=0.26)
        return
    fore = _cloth(garment, body, arm.elbow, towards=arm.wrist, folds="sleeve", start=18)
    lower = canvas.shape(tube(arm.elbow, arm.wrist, 4.0 * z, 3.2 * z))
    canvas.paint(lower, fore, label=label, round_=3, depth=0.26)
    upper = canvas.shape(Disc(top, 4.7 * z), tube(top, arm.elbow, 4.7 * z, 4.0 * z), Disc(arm.elbow, 4.0 * z))
    canvas.paint(
        upper, _cloth(garment, body, top, towards=arm.elbow, folds="sleeve"), label=label, round_=3, depth=0.22
    )


def _torso(canvas: Canvas, body: Body, garment: Garment, *, to_knee: bool) -> Image.Image:
    z = body.scale
    ease = (0.9 + 0.9 * (garment.kind != "tank top")) * z
    shoulder = body.shoulder_w - (5.6 * z if garment.kind == "tank top" else 1.0 * z)
    outline = []
    for side in (1, -1):
        points = [
            body.at(side * (body.neck_w + 1.6 * z), body.neck_y + 0.2 * z),
            body.at(side * shoulder, body.shoulder_y - 0.4 * z),
            body.at(side * (body.chest_w + 0.4 * z), body.shoulder_y + 11 * z),
            body.at(side * (body.waist_w + ease), body.waist_y),
            body.at(side * (body.hip_w + ease), body.hem_y),
        ]
        if garment.kind == "tank top":
            points.insert(2, body.at(side * (shoulder - 0.6 * z), body.shoulder_y + 6 * z))
        if to_knee:
            points[-1] = body.at(side * (body.hip_w + ease + 0.6 * z), body.hem_y)
            points.append(body.at(side * (body.hip_w + 5.5 * z), body.knee_y - 5 * z))
        smooth = [points[0], *curve(points[1:])]
        outline += smooth if side == 1 else smooth[::-1]
        if side == 1:  # the hem hangs a little lower in the middle
            outline.append(body.at(0, (body.knee_y - 4 * z) if to_knee else body.hem_y + 1.2 * z))
    return canvas.shape(outline)


def _neckline(canvas: Canvas, body: Body, garment: Garment) -> Image.Image:
    z = body.scale
    deep = {"tank top": 8.5, "dress": 6.5}.get(garment.kind, 3.6)
    x, y = body.at(0, body.neck_y - 0.4 * z)
    w = body.neck_w + 1.4 * z + (1.0 * z if garment.kind in ("tank top", "dress") else 0)
    return canvas.shape([(x + w * np.cos(a), y + deep * z * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 32)])


def _collar_back(body: Body) -> list[Point]:
    x, y = body.at(0, body.neck_y + 1.0 * body.scale)
    w, h = 9 * body.scale, 12 * body.scale
    return [(x - w, y), (x + w, y), (x + w, y + h), (x - w, y + h)]


def _draw_skirt(canvas: Canvas, body: Body, garment: Garment) -> None:
    z = body.scale
    top = body.waist_y + 7 * z
    right = [
        body.at(body.waist_w + 0.5 * z, top),
        body.at(body.hip_w + 1.5 * z, body.hem_y),
        body.at(body.hip_w + 6 * z, body.knee_y - 3 * z),
    ]
    shape = canvas.shape(_both_sides(body, right, bottom=body.knee_y - 1.6 * z))
    cloth = _cloth(garment, body, body.at(0, top), spread=body.hip_w, folds="skirt")
    canvas.paint(shape, cloth, label=label_of(garment), round_=5, depth=0.26)


def _draw_trousers(canvas: Canvas, body: Body, garment: Garment) -> None:
    z = body.scale
    top = body.waist_y + 7 * z
    right = [
        body.at(body.waist_w + 0.5 * z, top),
        body.at(body.hip_w + 0.9 * z, body.hem_y),
        body.at(body.hip_w + 0.8 * z, body.crotch_y),
    ]
    hips = _both_sides(body, right, bottom=body.crotch_y + 2 * z)
    label = label_of(garment)
    for side in (-1, 1):
        hip, knee, ankle = body.leg(side)
        thigh, calf, cuff = body.leg_w + 1.3 * z, body.leg_w * 0.8 + 1.3 * z, 4.6 * z
        start = (hip[0], body.crotch_y - 2 * z)
        low = (ankle[0], ankle[1] + 0.5 * z)
        leg = canvas.shape(tube(start, knee, thigh, calf), Disc(knee, calf), tube(knee, low, calf, cuff))
        leg = ImageChops.lighter(leg, canvas.shape(_half(hips, body, side)))
        origin = body.at(0, top)
        canvas.paint(leg, _cloth(garment, body, origin, folds="leg"), label=label, round_=4.5, depth=0.28)


def _both_sides(body: Body, right: list[Point], bottom: float) -> list[Point]:
    """A smooth outline down the points ``right``, through the body's axis at ``bottom``, and up their mirror image."""
    left = [(2 * body.at(0, y)[0] - x, y) for x, y in reversed(right)]
    return [*curve(right), body.at(0, bottom), *curve(left)]


def _half(outline: list[Point], body: Body, side: int) -> list[Point]:
    """The half of a symmetric outline on one side of the body's axis, a little beyond it."""
    limits = [body.at(side * -0.4 * body.scale, y)[0] for _, y in outline]
    return [(max(x, limit) if side == 1 else min(x, limit), y) for (x, y), limit in zip(outline, limits)]


def _cloth(
    garment: Garment,
    body: Body,
    origin: Point,
    *,
    towards: Point | None = None,
    spread: float = 12.0,
    folds: str,
    start: float = 0.0,
) -> Colouring:
    """The garment's cloth with ``origin`` at the top, running down the body (or ``towards`` a point), with folds."""
    along = np.array([-body.lean, 1.0]) if towards is None else np.subtract(towards, origin)
    along = along / np.hypot(*along)
    across = np.array([along[1], -along[0]])
    z = body.scale
    rng = np.random.default_rng((garment.fold_seed, len(folds)))
    a, b, c = rng.uniform(0, 2 * np.pi, 3)
    hang = rng.uniform(0.6, 1.2)

    def colouring(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        dx, dy = (x - origin[0]) / z, (y - origin[1]) / z
        u, v = dx * across[0] + dy * across[1], start + dx * along[0] + dy * along[1]
        shade, bend = _folds(folds, u, v, (a, b, c), hang, spread / z)
        cloth = garment.cloth(u + 0.5 * bend, v + bend, printed=towards is None)
        return cloth * shade[..., None]

    return colouring


def _folds(
    kind: str, u: Plane, v: Plane, phases: tuple[float, float, float], hang: float, spread: float
) -> tuple[Plane, Plane]:
    """Brightness (about 1) and how far the cloth is drawn aside (cloth units), at cloth coordinates."""
    a, b, c = phases
    if kind == "torso":
        drag = np.sin(0.42 * u + 0.30 * v + a) * np.exp(-(((v - 26) / 10) ** 2)) + 0.6 * np.sin(0.5 * u - 0.34 * v + b)
        return 1 + 0.055 * hang * drag, -1.6 * (u / spread) ** 2 + 0.35 * drag
    if kind == "skirt":
        grow = np.clip((v - 4) / 30, 0, 1.2)
        pleats = np.sin(0.62 * u / (1 + 0.25 * grow) + a) + 0.4 * np.sin(1.05 * u + b)
        return 1 + 0.10 * hang * grow * pleats, -1.2 * (u / spread) ** 2 + 0.5 * grow * pleats
    if kind == "leg":
        knee = np.exp(-(((v - 34) / 5) ** 2)) * np.sin(0.9 * v + 0.4 * u + a)
        return 1 + 0.06 * hang * np.sin(0.55 * np.abs(u) + b) + 0.07 * knee, 0.3 * knee
    drag = np.sin(0.75 * v + 0.5 * u + c)
    return 1 + 0.06 * hang * drag, 0.5 * np.abs(u / 4.5) ** 2 + 0.2 * drag


def draw_flat(canvas: Canvas, garment: Garment) -> None:
    """The garment alone, laid out on white with a soft shadow, filling the canvas."""
    body = _dummy(garment)
    if garment.category == "lower":
        draw_lower(canvas, body, garment)
    else:
        draw_top(canvas, body, garment)
        draw_sleeves(canvas, body, garment)
    shape = Image.fromarray((canvas.labels > 0).astype(np.uint8) * 255)
    canvas.shadow(ImageChops.offset(shape, 0, round(1.2 * canvas.scale)), 1.6, 0.16)


def _is_flat(body: Body) -> bool:
    return body.scale != 1.0


def _dummy(garment: Garment) -> Body:
    """A middling body with spread arms, enlarged and moved so that the garment fills a canvas of 96 × 128 units."""
    z, top, bottom = LAID_OUT[garment.kind]
    middle = 64 - z * (top + bottom) / 2

    def y(value: float) -> float:
        return middle + z * value

    spread = (0.42, 0.16) if garment.kind == "long-sleeved shirt" else (0.62, 0.62)
    arms = [Arm.posed(side, (48 + side * 13.4 * z, y(33.1)), *spread, scale=z) for side in (-1, 1)]
    return Body(
        x=48.0, lean=0.0, scale=z, head=(48, y(15)), head_w=7 * z, head_h=9 * z, neck_w=3.4 * z, neck_y=y(27.6),
        shoulder_y=y(30.5), shoulder_w=16 * z, chest_w=13.8 * z, waist_y=y(53), waist_w=12.4 * z, hem_y=y(70),
        hip_w=13.8 * z, crotch_y=y(77), knee_y=y(95), ankle_y=y(116), leg_w=6 * z, stance=8.0 * z,
        arms=(arms[0], arms[1]),
    )  # fmt: skip
