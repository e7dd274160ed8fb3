"""A UNet that survives running out of memory: the call is split, and smaller calls are made from then on."""

from __future__ import annotations

import numpy as np

from denoise.batch import UNet
from denoise.job import Floats

_SIGNS = ("out of memory", "failed to allocate memory", "bad_alloc", "cudnn_status_alloc_failed", "bfcarena")


class OutOfMemory(RuntimeError):
    """One row alone does not fit; the message names a size that did, or is worth trying."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine's message says that memory was short (ONNX Runtime's arenas, CUDA, cuDNN, C++)."""
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


class SplittingUNet:
    """``unet``, called with at most ``caps[shape]`` rows at once where a shape (h, w) was once too large."""

    def __init__(self, unet: UNet, vae_factor: int) -> None:
        self._unet = unet
        self._factor = vae_factor
        self.caps: dict[tuple[int, ...], int] = {}
        self._largest: tuple[int, ...] = (0, 0)

    def __call__(self, sample: Floats, timestep: Floats, text: Floats) -> Floats:
        """As the UNet: [r, Cin, h, w], [r], [r, L, D] → [r, C, h, w].

        Raises:
            OutOfMemory: if one row alone is too large.
        """
        rows, shape = len(sample), sample.shape[2:]
        while True:
            cap = self.caps.get(shape, rows)
            try:
                output = self._in_pieces(sample, timestep, text, min(cap, rows))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if min(cap, rows) == 1:
                    raise OutOfMemory(self._advice(shape)) from error
                self.caps[shape] = min(cap, rows) // 2
                continue
            self._largest = max(self._largest, shape, key=lambda s: s[0] * s[1])
            return output

    def _in_pieces(self, sample: Floats, timestep: Floats, text: Floats, cap: int) -> Floats:
        if cap == len(sample):
            return self._unet(sample, timestep, text)
        pieces = [slice(start, start + cap) for start in range(0, len(sample), cap)]
        return np.concatenate([self._unet(sample[piece], timestep[piece], text[piece]) for piece in pieces])

    def _advice(self, shape: tuple[int, ...]) -> str:
        width, height = (side * self._factor for side in (shape[1], shape[0]))
        tried = self._largest != (0, 0) and self._largest[0] * self._largest[1] < shape[0] * shape[1]
        smaller = self._largest if tried else (max(shape[0] // 2, 1), max(shape[1] // 2, 1))
        size = f"{smaller[1] * self._factor} × {smaller[0] * self._factor}"
        hint = f"{size} has fitted" if tried else f"try {size}"
        return f"the engine has too little memory for one row of {width} × {height} pixels; {hint}"
