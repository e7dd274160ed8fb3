"""All examples through the frozen autoencoder once: what the denoiser is trained on, memory-mapped.

Kept are the posteriors' means and standard deviations, scaled: the service samples, so training does too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from dressform_export.demo.training.data import Examples
from dressform_export.demo.training.rendered import Pixels, as_tensor
from dressform_export.progress import Progress

Halves = NDArray[np.float16]

AT_ONCE = 16
"""Pictures in one call of the encoder."""


class Latents:
    """The posteriors of all examples, C channels of h × w latents.

    ``targets`` (the person as they should come out) and ``masked`` (grey in the hole) are float16 [n, 2C, h, w], means
    then standard deviations; so is ``garments`` [g, 2C, h, w], of which example i has number ``garment_of[i]``.
    ``holes`` is uint8 [n, 2, h, w]: the mask that the UNet is given, and 1 wherever the hole touches a latent's square.
    """

    def __init__(self, folder: Path) -> None:
        names = ("targets", "masked", "holes", "garments", "garment_of")
        self.targets, self.masked, self.holes, self.garments, self.garment_of = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in names
        )
        self.captions: list[list[str]] = json.loads((folder / "captions.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.captions)


def encoded(examples: Examples, vae: AutoencoderKL, work: Path, progress: Progress) -> Latents:
    """The latents of ``examples``, encoded by ``vae`` unless a folder in ``work`` has them."""
    folder = work / f"latents-{_fingerprint(vae, examples.identity)}"
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        vae.to(memory_format=torch.channels_last)  # a third faster on a CPU
        with progress.bar("encode examples", len(examples)) as advance:
            _encode(examples, vae, part, advance)
        part.rename(folder)
    return Latents(folder)


def posteriors(vae: AutoencoderKL, pictures: Pixels, masks: Pixels | None = None) -> Halves:
    """Means and deviations float16 [n, 2C, h, w], scaled, of pictures uint8 [n, H, W, 3], grey where masks
    uint8 [n, H, W] are 255."""
    images = as_tensor(pictures).to(vae.device)
    if masks is not None:
        images = images * (torch.from_numpy(masks).to(vae.device) < 128)[:, None]
    with torch.inference_mode():
        posterior = vae.encode(images).latent_dist
    scaled = torch.cat([posterior.mean, posterior.std], 1) * vae.config.scaling_factor
    return np.asarray(scaled.half().cpu().numpy())


def holes(masks: Pixels, factor: int) -> Pixels:
    """Masks uint8 [n, H, W] at the latents' size, 0 and 1 [n, 2, h, w]: nearest reduction, any pixel of a square."""
    n, height, width = masks.shape
    white = (masks >= 128).reshape(n, height // factor, factor, width // factor, factor)
    return np.stack([white[:, :, 0, :, 0], white.any((2, 4))], 1).astype(np.uint8)


def _encode(examples: Examples, vae: AutoencoderKL, folder: Path, advance: Callable[[], None]) -> None:
    """Write the arrays of `Latents`; a garment that several examples have is encoded once."""
    arrays: dict[str, NDArray[Any]] = {}
    garments: list[Halves] = []
    numbers: dict[bytes, int] = {}
    garment_of, captions = np.empty(len(examples), np.int64), []
    for first in range(0, len(examples), AT_ONCE):
        batch = [examples[i] for i in range(first, min(first + AT_ONCE, len(examples)))]
        span = slice(first, first + len(batch))
        persons, masks = np.stack([one.person for one in batch]), np.stack([one.mask for one in batch])
        targets = posteriors(vae, persons)
        found: dict[str, NDArray[Any]] = {
            "targets": targets,
            "masked": posteriors(vae, persons, masks),
            "holes": holes(masks, persons.shape[1] // targets.shape[2]),
        }
        for name, rows in found.items():
            if not first:
                shape = (len(examples), *rows.shape[1:])
                arrays[name] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    folder / f"{name}.npy", "w+", rows.dtype, shape
                )
            arrays[name][span] = rows
        fresh = {}
        for i, one in enumerate(batch, first):
            key = hashlib.sha256(one.garment.tobytes()).digest()
            if key not in numbers:
                numbers[key] = len(numbers)
                fresh[key] = one.garment
            garment_of[i] = numbers[key]
            captions.append(one.captions)
            advance()
        if fresh:
            garments.append(posteriors(vae, np.stack(list(fresh.values()))))
    np.save(folder / "garments.npy", np.concatenate(garments))
    np.save(folder / "garment_of.npy", garment_of)
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")


def _fingerprint(vae: AutoencoderKL, identity: str) -> str:
    digest = hashlib.sha256(identity.encode())
    for values in vae.state_dict().values():
        digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
