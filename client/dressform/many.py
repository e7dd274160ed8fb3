"""Many requests at once: what their inputs become, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sized
from typing import Any

from dressform.errors import InvalidRequest

_PICTURES = {"tryon": ("person", "garment"), "inpaint": ("image", "mask", "prompt")}


def keywords_of(task: str, given: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``Client.tryon`` or ``Client.inpaint`` for one input; its own win over ``options``.

    Raises:
        InvalidRequest: if ``given`` is neither a tuple of the pictures (and the prompt) nor a mapping of keywords.
    """
    names = _PICTURES[task]
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        if missing:
            raise InvalidRequest(f"an input of {task}_many needs {', '.join(names)}; {', '.join(missing)} is missing")
        return {**options, **given}
    if isinstance(given, (tuple, list)) and len(given) == len(names):
        return {**options, **dict(zip(names, given, strict=True))}
    raise InvalidRequest(
        f"an input of {task}_many is a tuple ({', '.join(names)}) or a mapping of keywords, not {given!r:.80}"
    )


class Bar:
    """A progress bar on stderr (tqdm's); without one, nothing.

    Args:
        shown: None shows it on a terminal where tqdm is installed.
        inputs: counted if they have a length.
    """

    def __init__(self, shown: bool | None, inputs: object, task: str) -> None:
        self._failed = 0
        self._bar: Any = None
        if not (sys.stderr.isatty() if shown is None else shown):
            return
        try:
            from tqdm import tqdm
        except ImportError as error:
            if shown:
                raise ImportError("a progress bar needs tqdm: pip install 'dressform[progress]'") from error
            return
        self._bar = tqdm(total=len(inputs) if isinstance(inputs, Sized) else None, desc=task, unit="picture")

    def count(self, error: Exception | None) -> None:
        """One more has finished."""
        if self._bar is None:
            return
        if error is not None:
            self._failed += 1
            self._bar.set_postfix(failed=self._failed)
        self._bar.update()

    def close(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.close()
