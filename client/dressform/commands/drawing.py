"""Pictures drawn in a terminal: kitty's graphics, iTerm2's inline images, sixels, or half blocks in colour.

No maintained library does all of these without side effects: textual-image asks the terminal when it is imported and
knows no iTerm2, term-image is bound to Pillow 10, libsixel's Python package is from 2018. The protocols are short.
"""

from __future__ import annotations

import base64
import io
import re
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import ControlType, Segment
from rich.style import Style

from dressform.commands.terminal import Terminal

_COLUMNS, _ROWS = 96, 32
_BELOW = 4
"""Rows left for what stands below a picture."""

_CHUNK = 4096


class Canvas:
    """Draws on ``console``'s terminal; a later picture takes the place of the one before."""

    def __init__(self, console: Console, terminal: Terminal | None = None) -> None:
        self._terminal = terminal or Terminal.asked()
        self._columns = min(console.width, _COLUMNS)
        self._rows = max(1, min(console.height - _BELOW, _ROWS))
        self._id = secrets.randbelow(2**31) + 1

    def picture(self, pictures: Sequence[Image.Image]) -> RenderableType:
        """``pictures`` side by side, as large as fits, as something that rich prints."""
        image = _side_by_side(pictures)
        columns, rows = self._cells(image)
        if self._terminal.protocol == "blocks":
            return Blocks(image.resize((columns, rows * 2), Image.Resampling.LANCZOS))
        width, height = columns * self._terminal.cell[0], rows * self._terminal.cell[1]
        if self._terminal.protocol == "sixel":
            height = height // 6 * 6  # in whole bands: one that is cut off would scroll the screen
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        if self._terminal.protocol == "sixel":
            codes = sixels(image)
        elif self._terminal.protocol == "kitty":
            codes = kitty(image, columns, rows, self._id)
        else:
            codes = iterm2(image, columns, rows)
        return Placed(codes, columns, rows)

    def _cells(self, image: Image.Image) -> tuple[int, int]:
        """Columns and rows that hold ``image`` in its shape."""
        width, height = self._terminal.cell
        scale = min(self._columns * width / image.width, self._rows * height / image.height)
        return max(1, round(image.width * scale / width)), max(1, round(image.height * scale / height))


class Placed:
    """A picture of ``columns`` × ``rows`` cells that ``codes`` draw from the cursor on."""

    def __init__(self, codes: str, columns: int, rows: int) -> None:
        self._codes = codes
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Lines of spaces first, so that rich knows the height and the screen has scrolled; then up, and over them.
        for _ in range(self._rows):
            yield Segment(" " * self._columns + "\n")
        # Marked as a control, so that rich leaves it alone.
        yield Segment(f"\x1b7\x1b[{self._rows}A{self._codes}\x1b8", control=[(ControlType.CURSOR_FORWARD, 0)])


class Blocks:
    """A picture in text: a cell is two pixels, the upper one in the colour of a half block, the lower one behind it."""

    def __init__(self, image: Image.Image) -> None:
        self._pixels = np.asarray(image)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for upper, lower in zip(self._pixels[::2].tolist(), self._pixels[1::2].tolist()):
            for above, below in zip(upper, lower):
                yield Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
            yield Segment.line()


def kitty(image: Image.Image, columns: int, rows: int, identity: int) -> str:
    """Kitty's graphics protocol: PNG in chunks; ``C=1`` leaves the cursor, ``q=2`` wants no answer."""
    data = base64.b64encode(_png(image)).decode()
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    keys = f"a=T,f=100,i={identity},c={columns},r={rows},C=1,q=2,"
    messages = (f"{keys if i == 0 else ''}m={int(i < len(chunks) - 1)};{chunk}" for i, chunk in enumerate(chunks))
    return "".join(f"\x1b_G{message}\x1b\\" for message in messages)


def iterm2(image: Image.Image, columns: int, rows: int) -> str:
    """iTerm2's inline images protocol: a PNG."""
    data = _png(image)
    size = f"size={len(data)};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(data).decode()}\x07"


def sixels(image: Image.Image) -> str:
    """DEC's sixels: 256 colours in percent, and bands of six rows with a run of columns for each of their colours."""
    palette = image.quantize(256)
    colours = np.array(palette.getpalette("RGB")).reshape(-1, 3) * 100 // 255
    codes = [f'\x1bP0;1q"1;1;{image.width};{image.height}']
    codes += [f"#{i};2;{red};{green};{blue}" for i, (red, green, blue) in enumerate(colours)]
    codes += [
        "-".join("$".join(_band(band)) for band in np.array_split(np.asarray(palette), image.height // 6)),
        "\x1b\\",
    ]
    return "".join(codes)


def _band(rows: NDArray[np.uint8]) -> Iterator[str]:
    """The runs of each colour in six rows."""
    weights = np.array([[1], [2], [4], [8], [16], [32]])
    for colour in np.unique(rows):
        bits = ((rows == colour) * weights).sum(0, dtype=np.uint8)
        text = (bits + np.uint8(63)).tobytes().decode()
        yield f"#{colour}" + re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", text)


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """One RGB picture of several, brought to the height of the first."""
    height = pictures[0].height
    scaled = [
        picture.convert("RGB").resize((round(picture.width * height / picture.height), height)) for picture in pictures
    ]
    whole = Image.new("RGB", (sum(picture.width for picture in scaled), height))
    left = 0
    for picture in scaled:
        whole.paste(picture, (left, 0))
        left += picture.width
    return whole


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
