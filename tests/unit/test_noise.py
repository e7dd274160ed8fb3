"""Noise equals torch's CPU generator, for any shape and any order of calls."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise.noise import TorchGenerator

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), shapes=st.lists(SHAPES, min_size=1, max_size=5))
def test_normals_equal_torch(seed: int, shapes: list[tuple[int, ...]]) -> None:
    ours, theirs = TorchGenerator(seed), torch.Generator("cpu").manual_seed(seed)
    for shape in shapes:
        expected = torch.randn(shape, generator=theirs).numpy()
        assert np.abs(ours.normal(shape) - expected).max() <= 2e-6, f"{shape} ({math.prod(shape)} values)"


def test_large_latents_equal_torch() -> None:
    for shape in ((1, 4, 64, 64), (1, 4, 96, 128), (1, 4, 9, 13), (3, 5, 7, 11)):
        expected = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1)).numpy()
        assert np.abs(TorchGenerator(1).normal(shape) - expected).max() <= 2e-6
