"""The demonstration's pictures: a public-domain photograph, masks drawn over it, and a drawn garment."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter, ImageOps
from skimage import data

Polygon = list[tuple[int, int]]

# The orange suit of the astronaut, roughly, in pixels of 512 × 512.
SUIT: Polygon = [(28, 512), (35, 430), (52, 330), (75, 250), (112, 225), (140, 268), (200, 300), (262, 290), (288, 238)]
SUIT += [(330, 242), (358, 290), (362, 338), (312, 360), (282, 420), (276, 512)]


def astronaut() -> Image.Image:
    """scikit-image's photograph of Eileen Collins (NASA, public domain), 512 × 512 RGB."""
    return Image.fromarray(data.astronaut())


def suit_mask() -> Image.Image:
    """White over the suit, 512 × 512 L."""
    mask = Image.new("L", (512, 512), 0)
    ImageDraw.Draw(mask).polygon(SUIT, fill=255)
    return mask


def striped_shirt(size: int = 384) -> Image.Image:
    """A white T-shirt with red stripes, laid flat on white; ``size`` × ``size`` RGB."""
    outline = [(0.3, 0.1), (0.42, 0.16), (0.58, 0.16), (0.7, 0.1), (0.97, 0.3), (0.86, 0.45), (0.74, 0.36)]
    outline += [(0.74, 0.93), (0.26, 0.93), (0.26, 0.36), (0.14, 0.45), (0.03, 0.3)]
    big = 2 * size
    shape = Image.new("L", (big, big), 0)
    ImageDraw.Draw(shape).polygon([(x * big, y * big) for x, y in outline], fill=255)
    cloth = Image.new("RGB", (big, big), (244, 240, 235))
    draw = ImageDraw.Draw(cloth)
    for y in range(0, big, big // 12):
        draw.rectangle((0, y, big, y + big // 28), fill=(196, 36, 48))
    shirt = Image.new("RGB", (big, big), "white")
    shirt.paste(cloth, mask=shape)
    return shirt.filter(ImageFilter.GaussianBlur(1)).resize((size, size), Image.Resampling.LANCZOS)


def sheet(images: list[Image.Image], side: int = 320) -> Image.Image:
    """The pictures side by side, each fitted into a square of ``side`` pixels, on white."""
    joined = Image.new("RGB", (side * len(images), side), "white")
    for i, image in enumerate(images):
        fitted = ImageOps.contain(image.convert("RGB"), (side, side))
        joined.paste(fitted, (side * i + (side - fitted.width) // 2, (side - fitted.height) // 2))
    return joined
