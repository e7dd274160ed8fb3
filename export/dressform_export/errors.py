"""The one error of the exporter that is the user's to mend."""

from __future__ import annotations


class ExportError(Exception):
    """The source, the target or the verification is at fault; the message is one sentence that says what and why.

    The command prints it without a traceback and ends with exit code 2.
    """
