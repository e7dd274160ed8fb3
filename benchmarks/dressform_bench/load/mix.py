"""What users ask for: a YAML file of weighted kinds of requests. Pure but for the reading of files."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from PIL import Image, ImageDraw

from dressform import About
from dressform.app import gallery
from dressform_contract import PARAMETERS

FOLDER = Path(__file__).parent / "mixes"


@dataclass(frozen=True)
class Kind:
    """One kind of request: its ``name`` in the statistics, its share relative to the others, and what is sent.

    ``sizes`` are what heights and widths come in: multiples of the export's own width and height, and the size's
    weight relative to the others (1 if there is none).
    """

    name: str
    task: Literal["inpaint", "tryon"]
    weight: float
    prompt: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sequence[Sequence[float]] = ()

    def __post_init__(self) -> None:
        _require(self.task in ("inpaint", "tryon"), f"task must be inpaint or tryon, not {self.task!r}")
        _require(
            isinstance(self.weight, (int, float)) and self.weight > 0, f"weight must be above 0, not {self.weight!r}"
        )
        _require(self.task == "tryon" or bool(self.prompt), f"{self.name!r} is an inpaint without a prompt")
        for name, value in self.options.items():
            _require(name in PARAMETERS, f"option {name!r} is none of {', '.join(PARAMETERS)}")
            _require(
                not isinstance(value, list)
                or (len(value) == 2 and all(type(end) is int for end in value) and value[0] <= value[1]),
                f"{name} must be a value, or two integers LOW, HIGH, not {value!r}",
            )
        _require(isinstance(self.sizes, (list, tuple)), f"sizes must be a list, not {self.sizes!r}")
        for size in self.sizes:
            _require(
                isinstance(size, list)
                and len(size) in (2, 3)
                and all(type(part) in (int, float) and 0 < part < math.inf for part in size),
                f"a size must be [WIDTH, HEIGHT] or [WIDTH, HEIGHT, WEIGHT], multiples of the export's, not {size!r}",
            )
        sides = self.options.keys() & {"height", "width"}
        _require(not (sides and self.sizes), f"{self.name!r} has sizes and the option {' and '.join(sorted(sides))}")
        for side in sides:
            _require(not isinstance(self.options[side], list), f"{side} must be a value; what varies stands in sizes")

    def drawn(self, chance: random.Random, about: Callable[[], About]) -> dict[str, Any]:
        """The options of one request; ``about`` tells the size that the server's export has by itself."""
        options = {
            name: chance.randint(*value) if isinstance(value, list) else value for name, value in self.options.items()
        }
        if self.sizes:
            wide, high, *_ = chance.choices(self.sizes, [size[2] if len(size) == 3 else 1 for size in self.sizes])[0]
            own = about()
            for side, pixels in (("width", wide * own.width), ("height", high * own.height)):
                options[side] = own.multiple_of * round(pixels / own.multiple_of)
        return options


@dataclass(frozen=True)
class Mix:
    """Kinds of requests, and the seconds that a user thinks between an answer and the next request, from and to."""

    kinds: tuple[Kind, ...]
    think_seconds: tuple[float, float]

    @classmethod
    def read(cls, name: str) -> Mix:
        """The mix in the file ``name``, or in one of ours.

        Raises:
            ValueError: if there is no such mix, or it breaks the rules, naming the file.
        """
        path = FOLDER / f"{name}.yaml" if (FOLDER / f"{name}.yaml").is_file() else Path(name)
        try:
            return cls.of(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeError) as error:
            known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
            raise ValueError(f"mix must be a file, or one of {known}, not {name!r}: {error}") from error
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of(cls, content: Any) -> Mix:
        """The mix that a YAML file's ``content`` stands for.

        Raises:
            ValueError, TypeError: if it breaks the rules.
        """
        _require(isinstance(content, dict), "a mix has think_seconds and requests")
        unknown = content.keys() - {"think_seconds", "requests"}
        _require(not unknown, f"a mix has think_seconds and requests, not {', '.join(map(str, unknown))}")
        think, kinds = content.get("think_seconds", [0, 0]), content.get("requests")
        _require(
            isinstance(think, list) and len(think) == 2 and 0 <= think[0] <= think[1],
            f"think_seconds must be two numbers LOW, HIGH from 0 on, not {think!r}",
        )
        _require(isinstance(kinds, list) and bool(kinds), "requests must be a list of one or more")
        return cls(tuple(Kind(**kind) for kind in kinds), (float(think[0]), float(think[1])))

    def drawn(self, chance: random.Random) -> Kind:
        """One kind, by weight."""
        return chance.choices(self.kinds, [kind.weight for kind in self.kinds])[0]


class Wardrobe:
    """The pictures that are sent: every person of the page's gallery in every garment by turns, encoded already."""

    def __init__(self) -> None:
        """Read them."""
        self._pairs = itertools.cycle(
            (person.path.read_bytes(), garment.path.read_bytes(), garment.kind)
            for person in gallery.PEOPLE
            for garment in gallery.GARMENTS
        )
        with Image.open(gallery.PEOPLE[0].path) as image:
            self._mask = middle_mask(image.size)

    def pictures(self, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
        """The pictures of a request by their names, and the options that go with them."""
        person, garment, category = next(self._pairs)
        if kind.task == "tryon":
            return {"person": person, "garment": garment}, {"category": category}
        return {"image": person, "mask": self._mask}, {}


def middle_mask(size: Sequence[int]) -> Image.Image:
    """White where a person before the camera wears something; ``size`` is (width, height) in pixels."""
    mask = Image.new("L", (size[0], size[1]))
    w, h = size[0] / 100, size[1] / 100
    ImageDraw.Draw(mask).rectangle((30 * w, 25 * h, 70 * w, 60 * h), fill=255)
    return mask


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
