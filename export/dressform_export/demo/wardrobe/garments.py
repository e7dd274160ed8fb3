"""What a garment is: kind, colours and pattern, how it is named, and how its cloth is coloured at each point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
RGB = tuple[int, int, int]

CATEGORIES = ("upper", "lower", "overall")

KINDS = {
    "t-shirt": "upper",
    "long-sleeved shirt": "upper",
    "tank top": "upper",
    "dress": "overall",
    "skirt": "lower",
    "trousers": "lower",
}
"""Kind → category."""

PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "dots", "checks", "print")

COLOURS: dict[str, RGB] = {
    "red": (206, 38, 46),
    "orange": (240, 130, 30),
    "yellow": (246, 212, 60),
    "green": (40, 150, 70),
    "turquoise": (60, 195, 195),
    "blue": (40, 90, 200),
    "purple": (120, 60, 165),
    "pink": (240, 140, 180),
    "brown": (120, 74, 42),
    "black": (34, 34, 38),
    "grey": (140, 142, 146),
    "white": (244, 242, 238),
}
"""Name → sRGB."""

_ALIKE_PAIRS = """red-orange red-brown red-pink orange-yellow orange-brown orange-pink yellow-white green-turquoise
    green-brown turquoise-blue turquoise-grey blue-purple blue-grey purple-pink purple-black purple-grey pink-white
    brown-black brown-grey green-grey black-grey grey-white"""
_ALIKE = [set(pair.split("-")) for pair in _ALIKE_PAIRS.split()]

PRINTS: dict[str, Callable[[Plane, Plane], NDArray[np.bool_]]] = {
    "circle": lambda x, y: x * x + y * y < 0.8,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.78,
    "triangle": lambda x, y: (y < 0.75) & (abs(x) < 0.52 * (y + 1.0)),
    "heart": lambda x, y: (x * x + y * y - 0.62) ** 3 + x * x * y**3 < 0,
    "star": lambda x, y: np.hypot(x, y) < _star_radius(np.arctan2(x, -y)),
}
"""Name → whether a point is inside; the shape lies within [-1, 1] × [-1, 1], y downwards."""


def _star_radius(angle: Plane) -> Plane:
    """Radius of a five-pointed star by the angle from its upper point."""
    sector = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    inner, outer = 0.42, 1.05
    return inner * outer * np.sin(np.pi / 5) / (inner * np.sin(np.pi / 5 - sector) + outer * np.sin(sector))


@dataclass(frozen=True)
class Garment:
    """One garment. Colours are sRGB of 8 bits; lengths in cloth units, of which a person's torso is about 34 wide.

    ``period``: of stripes, dots and checks, or the print's half width. ``phase``: shift of the pattern, in periods.
    ``fold_seed`` chooses its folds.
    """

    kind: str
    pattern: str
    colour: str
    colour_rgb: RGB
    second: str | None
    second_rgb: RGB
    print_shape: str | None
    period: float
    phase: float
    fold_seed: int

    @property
    def category(self) -> str:
        """``upper``, ``lower`` or ``overall``."""
        return KINDS[self.kind]

    @property
    def caption(self) -> str:
        """The plain name, as in "a red and white striped t-shirt"."""
        return phrase(self, 0)

    def cloth(self, u: Plane, v: Plane, *, printed: bool = True) -> NDArray[np.float32]:
        """Colours [..., 3] in 0 to 255 at cloth coordinates ``u`` (across) and ``v`` (down from the garment's top).

        Not ``printed``: a piece without the printed shape, as a sleeve is.
        """
        first, second = (np.array(rgb, np.float32) for rgb in (self.colour_rgb, self.second_rgb))
        if self.pattern == "plain" or (self.pattern == "print" and not printed):
            return np.broadcast_to(first, (*u.shape, 3))
        return first + self._second_weight(u, v)[..., None] * (second - first)

    def _second_weight(self, u: Plane, v: Plane) -> Plane:
        """How much of the second colour there is at each point, 0 to 1."""
        if self.pattern == "horizontal stripes":
            return _band(v / self.period + self.phase, 0.45)
        if self.pattern == "vertical stripes":
            return _band(u / self.period + self.phase, 0.45)
        if self.pattern == "checks":
            across, down = _band(u / self.period + self.phase, 0.5), _band(v / self.period + self.phase, 0.5)
            return (0.5 * (across + down)).astype(np.float32)
        if self.pattern == "dots":
            row = np.floor(v / self.period + self.phase)
            x = (u / self.period + 0.5 * (row % 2)) % 1 - 0.5
            y = (v / self.period + self.phase) % 1 - 0.5
            return (np.hypot(x, y) < 0.31).astype(np.float32)
        centre_u, centre_v = _PRINT_CENTRES[self.kind]
        inside = PRINTS[str(self.print_shape)]
        return inside((u - centre_u) / self.period, (v - centre_v) / self.period).astype(np.float32)


_PRINT_CENTRES = {"dress": (0, 17), "skirt": (0, 19), "trousers": (-8, 22)}
_PRINT_CENTRES |= dict.fromkeys(("t-shirt", "long-sleeved shirt", "tank top"), (0, 18))


def _band(x: Plane, share: float) -> Plane:
    """1 where the fractional part of ``x`` is below ``share``."""
    return (x % 1 < share).astype(np.float32)


def random_garment(rng: np.random.Generator, category: str, unlike: Garment | None = None) -> Garment:
    """A garment of ``category``; its main colour is clearly another than that of ``unlike``."""
    kinds = [kind for kind, of in KINDS.items() if of == category]
    names = list(COLOURS)
    avoided = {unlike.colour} if unlike else set()
    if unlike:
        avoided |= {name for pair in _ALIKE for name in pair if unlike.colour in pair}
    colour = str(rng.choice([name for name in names if name not in avoided]))
    pattern = str(rng.choice(PATTERNS))
    seconds = [name for name in names if name != colour and {name, colour} not in _ALIKE]
    light = [name for name in ("white", "black", "yellow") if name in seconds]
    second = str(rng.choice(light if light and rng.random() < 0.4 else seconds))
    kind = str(rng.choice(kinds))
    return Garment(
        kind=kind,
        pattern=pattern,
        colour=colour,
        colour_rgb=_jittered(rng, COLOURS[colour]),
        second=None if pattern == "plain" else second,
        second_rgb=_jittered(rng, COLOURS[second]),
        print_shape=str(rng.choice(list(PRINTS))) if pattern == "print" else None,
        period=float(_period(rng, kind, pattern)),
        phase=float(rng.uniform()),
        fold_seed=int(rng.integers(2**31)),
    )


def _period(rng: np.random.Generator, kind: str, pattern: str) -> float:
    if pattern == "print":
        return rng.uniform(5.2, 6.0) if kind == "trousers" else rng.uniform(8.0, 10.0)
    return rng.uniform(8.5, 12.0) if pattern != "vertical stripes" else rng.uniform(7.5, 10.0)


def _jittered(rng: np.random.Generator, rgb: RGB) -> RGB:
    red, green, blue = np.clip(np.array(rgb) + rng.uniform(-1, 1, 3) * 9, 0, 255).round().astype(int)
    return int(red), int(green), int(blue)


_SYNONYMS = {
    "t-shirt": ("t-shirt", "tee", "t-shirt"),
    "long-sleeved shirt": ("long-sleeved shirt", "long sleeve shirt", "long-sleeved top"),
    "tank top": ("tank top", "sleeveless top", "tank top"),
    "dress": ("dress", "dress", "dress"),
    "skirt": ("skirt", "skirt", "skirt"),
    "trousers": ("trousers", "pants", "trousers"),
}

_TEMPLATES = {
    "plain": ("{a} {k}", "plain {a} {k}", "{k} in {a}"),
    "horizontal stripes": ("{a} and {b} striped {k}", "{k} with {a} and {b} stripes", "{a} {k} with {b} stripes"),
    "vertical stripes": (
        "{a} and {b} vertically striped {k}",
        "{k} with {a} and {b} vertical stripes",
        "{a} {k} with {b} vertical stripes",
    ),
    "dots": ("{a} {k} with {b} dots", "{a} {k} with {b} polka dots", "{a} polka dot {k} with {b} dots"),
    "checks": ("{a} and {b} checked {k}", "{k} with {a} and {b} checks", "{a} and {b} checkered {k}"),
    "print": ("{a} {k} with a {b} {s}", "{a} {k} with a {b} {s} print", "{a} {k} with a {b} {s} on it"),
}

_FRAMES = ("{}", "{}", "a person wearing {}", "a photo of a person wearing {}", "a photo of {}", "{}, studio photo")


def phrase(garment: Garment, variant: int, synonym: int = 0, *, article: bool = True) -> str:
    """One of the three phrasings of a garment's caption."""
    text = (
        _TEMPLATES[garment.pattern][variant]
        .format(a=garment.colour, b=garment.second, k=_SYNONYMS[garment.kind][synonym], s=garment.print_shape)
        .replace("a orange", "an orange")
    )
    if garment.kind == "trousers" or not article:  # a plural has none
        return text
    return f"{'an' if text.startswith('o') else 'a'} {text}"


def caption(garment: Garment, rng: np.random.Generator) -> str:
    """A varied phrasing, as in "a photo of a person wearing a t-shirt with red and white stripes"."""
    text = phrase(garment, int(rng.integers(3)), int(rng.integers(3)), article=bool(rng.random() < 0.8))
    return str(rng.choice(_FRAMES)).format(text)
