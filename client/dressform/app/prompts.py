"""The prompt helper: a garment in words, by category.

Each template was tried with each garment on the demonstration's model, whose vocabulary it is: kind, colours and
pattern came out as said. (Of printed shapes that small model makes discs alone, so there are no stars and hearts.)
"""

from __future__ import annotations

KINDS = {
    "upper": ("t-shirt", "long-sleeved shirt", "tank top"),
    "lower": ("trousers", "skirt"),
    "overall": ("dress",),
}
"""Category → garments. The automatic category may be any of them."""

COLOURS = (
    "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "black", "grey", "white",
)  # fmt: skip

TEMPLATES = {
    "plain": "{colour} {kind}",
    "striped": "{colour} and {second} striped {kind}",
    "vertically striped": "{colour} and {second} vertically striped {kind}",
    "dots": "{colour} {kind} with {second} dots",
    "checked": "{colour} and {second} checked {kind}",
    "a circle": "{colour} {kind} with a {second} circle",
}
"""Pattern → phrase."""


def kinds(category: str) -> tuple[str, ...]:
    """The garments of a category; all of them for ``auto``."""
    return KINDS.get(category) or tuple(kind for known in KINDS.values() for kind in known)


def needs_second(pattern: str) -> bool:
    """Whether a pattern has a second colour."""
    return "{second}" in TEMPLATES[pattern]


def phrase(kind: str, pattern: str, colour: str, second: str) -> str:
    """The garment in words: "a red and white striped t-shirt"."""
    text = TEMPLATES[pattern].format(kind=kind, colour=colour, second=second)
    if kind == "trousers":
        return text
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
