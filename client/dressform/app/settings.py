"""The settings of a request, made from the contract: a typed field with its limits for each parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dressform import About
from dressform.app.session import Session
from dressform_contract import PARAMETERS, TASK_PARAMETERS, Parameter, Task, Value

ELSEWHERE = frozenset({"category", "mask_grow", "mask_invert", "preview_every"})
"""Parameters that other parts of the page set."""

FILE_FORMATS = ("png", "jpeg", "webp")
"""Of the contract's output formats, those that are picture files."""

STEPS_PER_PREVIEW = 8
"""How many previews there are in a request."""

_WITHOUT_DEFAULT = {
    "eta": "the model's own",
    "seed": "random",
    "padding_mask_crop": "off",
    "output_format": "png",
    "deadline_ms": "none",
}
_SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class Field:
    """A parameter as the page asks for it. ``default`` in words; numbers have limits and a step."""

    parameter: Parameter
    default: str
    minimum: float
    maximum: float
    step: float
    choices: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its name."""
        return self.parameter.name.replace("_", " ").capitalize()

    @property
    def help(self) -> str:
        """What it means and what is allowed."""
        if self.parameter.kind in ("choice", "boolean"):
            return self.parameter.doc
        return f"{self.parameter.doc} From {self.minimum:.16g} to {self.maximum:.16g}."

    def __contains__(self, value: object) -> bool:
        """Whether it may hold ``value``."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.minimum <= value <= self.maximum
        return isinstance(value, bool) or value in self.choices


def fields(task: Task, about: About | None) -> list[Field]:
    """The fields of ``task``; ``about`` narrows them to what the server can do."""
    return [_field(PARAMETERS[name], task, about) for name in TASK_PARAMETERS[task] if name not in ELSEWHERE]


def _field(parameter: Parameter, task: Task, about: About | None) -> Field:
    default: Value | None = parameter.default_for(task)
    minimum, maximum, step = parameter.minimum, parameter.maximum, 1.0
    if parameter.kind == "number":
        step = 0.05 if maximum <= 1 else 0.5
        minimum += _SMALLEST_SHARE if parameter.minimum_excluded else 0
    if about is not None:
        if parameter.name in ("height", "width"):
            minimum, maximum, step = about.minimum, about.maximum, about.multiple_of
        if default is None:
            default = getattr(about, parameter.name, None)
    words = _WITHOUT_DEFAULT.get(parameter.name, "the model's own") if default is None else _words(default)
    choices = FILE_FORMATS if parameter.name == "output_format" else parameter.choices
    return Field(parameter, words, minimum, maximum, step, choices)


def _words(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def asked(session: Session, task: Task, about: About | None) -> dict[str, Any]:
    """Draws the fields, and returns the options that somebody set. The others are the server's to choose."""
    known = fields(task, about)
    columns = st.columns(2)
    values = {}
    for i, field in enumerate(known):
        with columns[i % 2]:
            values[field.parameter.name] = _widget(session, field, f"{task}-{field.parameter.name}")
    return {name: value for name, value in values.items() if value is not None}


def _widget(session: Session, field: Field, key: str) -> Value | None:
    kind = field.parameter.kind
    session.recall(key, choices=field)
    if kind == "choice":
        return st.selectbox(field.label, field.choices, index=None, placeholder=field.default, help=field.help, key=key)
    if kind == "boolean":
        return st.toggle(field.label, help=field.help, key=key) or None
    number: Any = int if kind == "integer" else float
    value: int | float | None = st.number_input(
        field.label,
        min_value=number(field.minimum),
        max_value=number(field.maximum),
        step=number(field.step),
        value=None,
        placeholder=field.default,
        help=field.help,
        key=key,
    )
    return value


def preview_every(steps: int) -> int:
    """How often to ask for a preview in a request of ``steps``."""
    most = int(PARAMETERS["preview_every"].maximum)
    return max(1, min(most, steps // STEPS_PER_PREVIEW))
