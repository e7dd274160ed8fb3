"""Gaussian noise as torch's CPU generator draws it, in numpy.

``torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))`` is MT19937 (Matsumoto & Nishimura 1998)
followed by Box-Muller. From 16 values on, torch fills the tensor with 24-bit uniforms and transforms it in blocks of 16
(cosines to the first eight places, sines to the last eight); where the size is no multiple of 16 the last 16 values are
drawn again. Fewer than 16 values are drawn one by one from 53-bit uniforms, every second one kept for the next call.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16


class TorchGenerator:
    """A generator whose normals equal torch's on the CPU for the same ``seed`` and the same order of calls."""

    def __init__(self, seed: int) -> None:
        # torch keeps the low 32 bits of the seed (init_genrand of the reference implementation).
        key = np.random.RandomState(seed & 0xFFFFFFFF).get_state(legacy=False)["state"]["key"]
        self._bits = np.random.MT19937(0)
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
        self._kept: float | None = None

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Standard normal noise, float32, of ``shape``."""
        size = math.prod(shape)
        if size < _BLOCK:
            return np.array([self._single() for _ in range(size)], np.float32).reshape(shape)
        values = self._uniform(size)
        whole = size - size % _BLOCK
        values[:whole] = _box_muller(values[:whole])
        if whole < size:
            values[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return values.reshape(shape)

    def _uniform(self, size: int) -> NDArray[np.float32]:
        raw = self._bits.random_raw(size).astype(np.uint32) & 0xFFFFFF
        return raw.astype(np.float32) * np.float32(2.0**-24)

    def _single(self) -> float:
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        high1, low1, high2, low2 = (int(word) for word in self._bits.random_raw(4))
        u1 = ((high1 << 32 | low1) & (2**53 - 1)) * 2.0**-53
        u2 = ((high2 << 32 | low2) & (2**53 - 1)) * 2.0**-53
        radius, theta = math.sqrt(-2 * math.log1p(-u2)), 2 * math.pi * u1
        self._kept = radius * math.sin(theta)
        return radius * math.cos(theta)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniforms in [0, 1) to normals (Box & Muller 1958), by blocks of 16; size a multiple of 16."""
    blocks = uniform.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    theta = np.float32(2 * np.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).reshape(-1)
