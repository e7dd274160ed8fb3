"""The demonstration's prompts: a small CLIP vocabulary learned from captions, and an untrained CLIP text encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from dressform_export.clip_vocabulary import END, START, write_tokenizer

VOCABULARY = 1024
"""Entries at most: 512 byte symbols, merges, start and end."""

LENGTH = 32
"""Tokens in one prompt, start and end included; the longest caption has 20."""

_WORD_END = "</w>"
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's division of a prompt into words (Radford et al. 2021, ``clip/simple_tokenizer.py``)."""


def learned_merges(captions: Iterable[str]) -> list[str]:
    """Byte-pair merges of the captions in order of rank, each ``"left right"`` (Sennrich et al. 2016)."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    pieces = pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        end_of_word_suffix=_WORD_END,
        initial_alphabet=list(bytes_to_unicode().values()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges][: VOCABULARY - 514]


def new_tokenizer(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Learn a vocabulary from ``captions`` and write it to ``folder`` as a CLIP tokenizer's files."""
    write_tokenizer(folder, learned_merges(captions), LENGTH)
    return CLIPTokenizer.from_pretrained(folder)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of 0.7 M parameters, hidden states [rows, 32, 128]."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=128,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.convert_tokens_to_ids(START),
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(END),
        )
    )
