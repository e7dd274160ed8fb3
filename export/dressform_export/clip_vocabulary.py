"""The true CLIP vocabulary, as a ``transformers`` tokenizer.

``data/bpe_simple_vocab_16e6.txt.gz`` is OpenAI's list of byte-pair merges (MIT, see NOTICE); the construction of the
49,408 entries follows ``clip/simple_tokenizer.py`` of https://github.com/openai/CLIP: 256 byte symbols, the same with
``</w>``, 48,894 merges, and the two special tokens.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

MERGES = 49152 - 256 - 2
"""Merges in use: the list holds more, CLIP's vocabulary ends here."""

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
"""Tokens in one prompt, start and end included."""


def read_merges() -> list[str]:
    """The 48,894 merges in order of rank, each ``"left right"``."""
    packed = (files("dressform_export") / "data" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]


def build_vocabulary(merges: list[str]) -> dict[str, int]:
    """Token → id; ids are positions in OpenAI's order: 512 byte symbols, ``merges``, start and end."""
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += [START, END]
    return {token: number for number, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path) -> None:
    """Write the true CLIP tokenizer's files into ``folder``, as Stable Diffusion 1.5 has them."""
    write_tokenizer(folder, read_merges(), MAX_LENGTH)


def write_tokenizer(folder: Path, merges: list[str], max_length: int) -> None:
    """Write vocab.json, merges.txt and the configs of the CLIP tokenizer with these ``merges`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps(build_vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    merges_file.write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(vocab_file),
        str(merges_file),
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=max_length,
        do_lower_case=True,
    )
    tokenizer.save_pretrained(folder)
