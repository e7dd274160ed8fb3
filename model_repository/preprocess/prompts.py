"""Prompts to token ids, as diffusers does: padded to, and cut at, the text encoder's length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


class PromptTokenizer:
    """The pipeline's own tokenizer. ``max_length`` tokens with begin and end, padded with ``pad_token_id``."""

    def __init__(self, path: Path, max_length: int, pad_token_id: int) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding(length=max_length, pad_id=pad_token_id)
        self._max_length = max_length

    def encode(self, prompts: list[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Token ids [len(prompts), max_length], and a warning for each prompt that was cut."""
        encodings = self._tokenizer.encode_batch(prompts)
        warnings = [
            f"the prompt of {len(prompt)} characters was cut at {self._max_length} tokens"
            for prompt, encoding in zip(prompts, encodings)
            if encoding.overflowing
        ]
        return np.array([encoding.ids for encoding in encodings], np.int64), warnings
