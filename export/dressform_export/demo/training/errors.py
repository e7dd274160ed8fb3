"""The one error of the training command that is the user's to mend."""

from __future__ import annotations

from dressform_export.errors import ExportError


class TrainingError(ExportError):
    """The data, the work folder or the options are at fault; the message is one sentence that says what and why."""
