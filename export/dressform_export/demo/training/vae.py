"""The autoencoder: factor 8, 4 latent channels, trained on people, flat garments, and both with holes.

Left alone, a small one learns light and dark first: with AdamW and torch's initialisation it had no hues after 475
steps. Five things mend that. Its kernels begin orthogonal, so that a whole picture reaches the latents (`_initialise`).
While average colours come out wrong, the encoder is pulled towards what three of its channels could be: those averages.
The loss weighs hue above light (`_opponent`), and averages beside pixels. The posterior is narrow from the start. And
the group normalisations have few groups: each group's mean over the picture is lost, and with 32 groups the
first level's 32 channels would lose theirs one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dressform_export.demo.training.rendered import as_tensor

CROP = 64
COLOUR_WEIGHT = 1.0
EDGE_WEIGHT = 0.5
GUIDE_WEIGHT, GUIDE_SCALE = 0.5, 1.5
GUIDE_FROM, GUIDE_TO = 0.16, 0.06
"""The pull of three latent channels towards average colours times the scale: whole while the averages come out wrong by
the first of these, none when by the second."""

KL_WEIGHT = 1e-4
"""Of the divergence's mean over latent values, which it bounds; at the end of training 0.5 % of the loss."""


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder of 3.1 M parameters; it has no attention, so any size will do."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 48, 96, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    _initialise(vae)
    return vae


@torch.no_grad()
def _initialise(vae: AutoencoderKL) -> None:
    """Let everything through from the start: orthogonal kernels, and blocks that begin as the identity.

    With torch's own initialisation a picture of deviation 0.47 leaves the encoder's path past its blocks (conv_in,
    three shortcuts, three downsamplers) with 0.01, beside 0.5 of the blocks' random output; so with 0.2.
    """
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        elif name.endswith(("conv_in", "conv_shortcut", "samplers.0.conv")):
            nn.init.orthogonal_(module.weight)
    # a narrow posterior from the start: noise of deviation 1 would drown what is to be learned
    nn.init.zeros_(vae.quant_conv.weight[4:])
    nn.init.constant_(vae.quant_conv.bias[4:], -8)


class VaeLosses:
    """Batches from ``pictures`` uint8 [n, H, W, 3]; ``foreground`` uint8 [n, H, W] is above 0 where detail counts.

    Every other batch holds ``batch`` whole pictures, a third of them with a grey hole (what the denoiser is shown); the
    others hold as many pixels in crops around the foreground.
    """

    def __init__(
        self, vae: AutoencoderKL, pictures: NDArray[np.uint8], foreground: NDArray[np.uint8], batch: int = 8
    ) -> None:
        self.vae, self.pictures, self.foreground, self.batch = vae, pictures, foreground, batch

    def __call__(self, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """The losses of one batch: ``loss`` and its parts."""
        images, weights = self._whole(rng) if rng.random() < 0.5 else self._crops(rng)
        posterior = self.vae.encode(images).latent_dist
        made = self.vae.decode(posterior.sample()).sample.float()
        difference = _opponent(made - images)
        pixels = (difference.abs() * weights).mean()
        colour = F.avg_pool2d(difference, 8).abs().mean()
        edges = (difference.diff(dim=2).abs() * weights[:, :, 1:]).mean()
        edges = edges + (difference.diff(dim=3).abs() * weights[:, :, :, 1:]).mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        guide = F.mse_loss(posterior.mean[:, :3].float(), GUIDE_SCALE * F.avg_pool2d(_opponent(images), 8))
        loss = pixels + COLOUR_WEIGHT * colour + EDGE_WEIGHT * edges + KL_WEIGHT * kl
        wrong = (colour.detach() - GUIDE_TO) / (GUIDE_FROM - GUIDE_TO)
        loss = loss + GUIDE_WEIGHT * wrong.clamp(0, 1) * guide
        return {"loss": loss, "pixels": pixels, "colour": colour, "edges": edges, "kl": kl, "guide": guide}

    def _whole(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = rng.integers(len(self.pictures), size=self.batch)
        images = np.stack([self.pictures[i] for i in chosen])
        weights = np.stack([self.foreground[i] > 0 for i in chosen])
        tensor, weight = as_tensor(images), _weight(weights)
        height, width = weights.shape[1:]
        for i in range(self.batch):
            if rng.random() < 1 / 3:
                top, left = rng.integers(height * 3 // 4), rng.integers(width * 3 // 4)
                bottom, right = top + rng.integers(height // 6, height), left + rng.integers(width // 6, width)
                tensor[i, :, top:bottom, left:right] = 0
        return tensor, weight

    def _crops(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        height, width = self.pictures.shape[1:3]
        count = self.batch * height * width // CROP**2
        images = np.empty((count, CROP, CROP, 3), np.uint8)
        weights = np.empty((count, CROP, CROP), np.bool_)
        for i, n in enumerate(rng.integers(len(self.pictures), size=count)):
            rows, columns = np.nonzero(self.foreground[n])
            k = rng.integers(len(rows)) if len(rows) else 0
            middle = (rows[k], columns[k]) if len(rows) else (height // 2, width // 2)
            top, left = (int(np.clip(m - CROP // 2, 0, s - CROP)) for m, s in zip(middle, (height, width)))
            window = (n, slice(top, top + CROP), slice(left, left + CROP))
            images[i], weights[i] = self.pictures[window], self.foreground[window] > 0
            if rng.random() < 0.5:
                images[i], weights[i] = images[i, :, ::-1], weights[i, :, ::-1]
        return as_tensor(images), _weight(weights)


def _opponent(rgb: Tensor) -> Tensor:
    """Lightness, and twice red and blue above it, [n, 3, H, W]."""
    red, green, blue = rgb.unbind(1)
    light = 0.3 * red + 0.6 * green + 0.1 * blue
    return torch.stack((light, 2 * (red - light), 2 * (blue - light)), 1)


def _weight(foreground: NDArray[np.bool_]) -> Tensor:
    """Pixels' weights [n, 1, H, W]: a person or garment counts three times as much as what is behind."""
    return torch.from_numpy(np.where(foreground, np.float32(1.5), np.float32(0.5)))[:, None]


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> None:
    """Fold a shift and scale into the two 1 × 1 convolutions, so that ``scaling_factor`` is 1.

    Each latent channel of ``pictures`` gets mean 0 and standard deviation 1: none is harder to denoise than another.
    """
    latents = torch.cat(
        [
            vae.encode(as_tensor(np.stack(list(part)))).latent_dist.mean
            for part in np.array_split(pictures, max(len(pictures) // 16, 1))
        ]
    )
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    out, back = vae.quant_conv, vae.post_quant_conv
    out.weight[:channels] /= deviation[:, None, None, None]
    out.bias[:channels] = (out.bias[:channels] - mean) / deviation
    out.bias[channels:] -= 2 * deviation.log()  # the log-variances
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
