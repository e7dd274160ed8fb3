"""What an evaluation raises."""

from __future__ import annotations

from dressform_export.errors import ExportError


class EvaluationError(ExportError):
    """The data, the predictions or the options are at fault; one sentence says what and why."""


class NotComputedError(Exception):
    """A metric's weights are not on this machine; the message is the reason that the report gives."""
