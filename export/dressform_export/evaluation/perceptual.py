"""Metrics of pretrained networks: FID, KID and LPIPS, where their weights lie on this machine. Nothing is downloaded.

FID and KID follow clean-fid (Parmar et al. 2022), with which the published try-on tables were made: pictures are
resized to 299 × 299 by Pillow's antialiased bicubic filter in floating point, features are those of the TorchScript
Inception of StyleGAN, ``inception-2015-12-05.pt``.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from dressform_export.evaluation.errors import NotComputedError
from dressform_export.evaluation.similarity import as_tensor
from dressform_export.evaluation.sizing import Pixels

Distance = Callable[[Pixels, Pixels], float]

INCEPTION = "inception-2015-12-05.pt"
SIDE = 299
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000

HOW = {
    "fid": "Fréchet distance of Inception features (Heusel et al. 2017), prepared as by clean-fid, torchmetrics",
    "kid": f"kernel distance of the same features (Bińkowski et al. 2018): mean of {KID_SUBSETS} subsets of at most "
    f"{KID_SUBSET_SIZE} pictures drawn with seed 0, torchmetrics; as it is, not times 1,000",
    "lpips": "LPIPS 0.1 with AlexNet (Zhang et al. 2018), pictures in -1 to 1, torchmetrics",
}


def checkpoints() -> Path:
    """Where torch keeps pretrained weights: ``checkpoints`` in ``$TORCH_HOME/hub``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


class Inception:
    """The TorchScript Inception at ``path``; features float32 [N, D] of pictures uint8 [H, W, 3] of any sizes.

    Raises:
        NotComputedError: where there is no such file.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or checkpoints() / INCEPTION
        if not path.is_file():
            raise NotComputedError(f"the Inception weights are not at {path} (--inception names another place)")
        # Past its own resizing, which is not antialiased.
        self._layers = torch.jit.load(str(path), map_location="cpu").eval().layers  # type: ignore[no-untyped-call]

    def features(self, pictures: Iterable[Pixels], batch: int = 16) -> torch.Tensor:
        """The features of ``pictures``, ``batch`` at a time."""
        found = []
        with torch.inference_mode():
            for chunk in _chunks(pictures, batch):
                rows = torch.from_numpy(np.stack([_resized(picture) for picture in chunk]))
                found.append(self._layers((rows - 128) / 128).reshape(len(chunk), -1))
        return torch.cat(found)


def frechet_and_kernel_distance(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """FID and KID between features [N, D] and [M, D].

    Raises:
        NotComputedError: with fewer than two pictures on a side.
    """
    if min(len(real), len(fake)) < 2:
        raise NotComputedError(f"FID and KID need at least 2 pictures a side, not {len(real)} and {len(fake)}")
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)  # KID says that it keeps features: it may
        torch.manual_seed(0)
        subset = min(KID_SUBSET_SIZE, len(real), len(fake))
        fid = FrechetInceptionDistance(_Given(real.shape[1]))
        kid = KernelInceptionDistance(_Given(real.shape[1]), subsets=KID_SUBSETS, subset_size=subset)
        for features, is_real in ((real, True), (fake, False)):
            fid.update(features, real=is_real)
            kid.update(features, real=is_real)
        return float(fid.compute()), float(kid.compute()[0])


def lpips() -> Distance:
    """LPIPS of two pictures uint8 [H, W, 3].

    Raises:
        NotComputedError: without torchvision (its backbone), or without the backbone's weights.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise NotComputedError("torchvision, which has LPIPS' backbone, is not installed")
    from torchvision.models import AlexNet_Weights

    weights = checkpoints() / AlexNet_Weights.DEFAULT.url.rpartition("/")[2]
    if not weights.is_file():
        raise NotComputedError(f"the weights of LPIPS' backbone are not at {weights}")
    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

    def distance(a: Pixels, b: Pixels) -> float:
        with torch.inference_mode():
            return float(metric(as_tensor(a), as_tensor(b)))

    return distance


class _Given(torch.nn.Identity):
    """A feature extractor for what are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _resized(pixels: Pixels) -> NDArray[np.float32]:
    """``pixels`` [H, W, 3] as float32 [3, 299, 299] in 0 to 255 (and a little beyond: the filter overshoots)."""
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in pixels.transpose(2, 0, 1))
    return np.stack([np.asarray(plane.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for plane in planes])


def _chunks(pictures: Iterable[Pixels], size: int) -> Iterator[list[Pixels]]:
    rest = iter(pictures)
    while chunk := list(islice(rest, size)):
        yield chunk
