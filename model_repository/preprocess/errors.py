"""Requests that cannot be served, each kind with its code in the contract's table of errors."""

from __future__ import annotations

from typing import ClassVar


class RequestError(ValueError):
    """A request that breaks the contract; the message names the culprit."""

    code: ClassVar[str] = "INVALID_ARGUMENT"


class UnsupportedError(RequestError):
    """A request that this export cannot serve; the message says why and what would."""

    code = "UNSUPPORTED"


class PersonNotFound(RequestError):
    """A picture without a person, or without what the category covers."""

    code = "PERSON_NOT_FOUND"


class GarmentNotFound(RequestError):
    """A picture without a garment of any category."""

    code = "GARMENT_NOT_FOUND"
