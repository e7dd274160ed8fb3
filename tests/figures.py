"""Drawn people as ATR labels, and a Segformer that reads them from flat colours without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from dressform_contract import LABELS

COLOURS = np.array(
    [(255, 255, 255), *((r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128))][: len(LABELS)],
    np.uint8,
)
"""Each label's colour, far apart."""

MIRRORED = np.arange(len(LABELS), dtype=np.uint8)
"""The labels with left and right exchanged."""
for _part in ("shoe", "leg", "arm"):
    _left, _right = LABELS.index(f"Left-{_part}"), LABELS.index(f"Right-{_part}")
    MIRRORED[[_left, _right]] = _right, _left

_SLEEVE = [(36, 30), (28, 72), (21, 72), (32, 31)]


def person(scale: int = 1, *, sleeves: bool = False, dress: bool = False, mirror: bool = False) -> np.ndarray:
    """Labels uint8 [128 · scale, 96 · scale] of a figure that stands upright; the left forearm is bent upwards."""
    drawing = Image.new("L", (96 * scale, 128 * scale))
    draw = ImageDraw.Draw(drawing)

    def polygon(points: list[tuple[int, int]], name: str) -> None:
        draw.polygon([(x * scale, y * scale) for x, y in points], fill=LABELS.index(name))

    polygon([(38, 70), (58, 70), (57, 110), (50, 110), (48, 76), (46, 110), (39, 110)], "Pants")
    polygon([(36, 30), (60, 30), (58, 70), (38, 70)], "Upper-clothes")
    if dress:
        polygon([(36, 30), (60, 30), (66, 96), (30, 96)], "Dress")
    polygon([(36, 32), (30, 60), (26, 82), (21, 82), (24, 60), (32, 31)], "Right-arm")
    polygon([(60, 32), (66, 58), (82, 40), (86, 44), (68, 66), (62, 60)], "Left-arm")
    if sleeves:
        polygon(_SLEEVE, "Upper-clothes")
    for box, name in (((41, 8, 55, 28), "Face"), ((41, 5, 55, 14), "Hair")):
        draw.ellipse([side * scale for side in box], fill=LABELS.index(name))
    polygon([(45, 25), (51, 25), (52, 31), (44, 31)], "Face")
    polygon([(39, 110), (46, 110), (46, 115), (36, 115)], "Right-shoe")
    labels = np.asarray(drawing)
    return MIRRORED[labels[:, ::-1]] if mirror else labels


def laid_flat(name: str, height: int = 64, width: int = 48) -> np.ndarray:
    """Labels uint8 [height, width] of a picture of one thing."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 6 : -height // 6, width // 5 : -width // 5] = LABELS.index(name)
    return labels


def of(labels: np.ndarray, *names: str) -> np.ndarray:
    """Where the labels are one of those named."""
    return np.isin(labels, [LABELS.index(name) for name in names])


def painted(labels: np.ndarray) -> Image.Image:
    """The picture in which the parser of `write_colour_parser` sees ``labels``."""
    return Image.fromarray(COLOURS[labels])


def write_colour_parser(
    folder: Path, size: tuple[int, int] = (128, 96), order: Sequence[int] = range(len(LABELS))
) -> Path:
    """Write a Segformer whose labels follow `COLOURS` exactly, pixel by pixel; its n-th output is label ``order[n]``.

    One stage of patches of 1 × 1, attention and MLP at zero. A layer norm keeps the colour x, because large constants
    beside ±x make its mean 0 and its variance (nearly) constant; the decoder's hidden units are max(0, ±(x - c)) for
    each label's colour c, and the logits their negative sums, the L1 distances.
    """
    constant, names = 300.0, [LABELS[number] for number in order]
    processor = SegformerImageProcessor(size={"height": size[0], "width": size[1]})
    mean, std = (np.array(values) for values in (processor.image_mean, processor.image_std))
    centres = (COLOURS[list(order)] / 255 - mean) / std
    hidden = centres.size * 2
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=1,
            depths=[1],
            sr_ratios=[8],
            hidden_sizes=[8],
            patch_sizes=[1],
            strides=[1],
            num_attention_heads=[1],
            mlp_ratios=[1],
            decoder_hidden_size=hidden,
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
        )
    )
    colour_axis = np.arange(hidden) // 2 % 3
    sign = np.where(np.arange(hidden) % 2, -1.0, 1.0)
    encoder, head = model.segformer.encoder, model.decode_head
    with torch.no_grad():
        for module in (encoder.block[0][0].attention.output.dense, encoder.block[0][0].mlp.dense2):
            module.weight.zero_()
            module.bias.zero_()
        patches = encoder.patch_embeddings[0].proj
        patches.weight.zero_()
        for axis in range(3):
            patches.weight[2 * axis, axis], patches.weight[2 * axis + 1, axis] = 1, -1
        patches.bias.copy_(torch.tensor([0.0] * 6 + [constant, -constant]))
        head.linear_c[0].proj.weight.zero_()
        head.linear_c[0].proj.weight[np.arange(hidden), 2 * colour_axis] = torch.tensor(sign * constant / 2).float()
        head.linear_c[0].proj.bias.zero_()
        head.linear_fuse.weight.copy_(torch.eye(hidden)[:, :, None, None])
        head.batch_norm.running_var.fill_(1 - head.batch_norm.eps)
        head.batch_norm.bias.copy_(torch.tensor(-sign * centres.repeat(2, axis=1).reshape(-1)).float())
        head.classifier.weight.copy_(-torch.eye(len(names)).repeat_interleave(6, 1)[:, :, None, None])
        head.classifier.bias.zero_()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
