"""The four leaf graphs of a pipeline: what is traced, under which names and axes, and with which example inputs.

Each graph is a thin ``nn.Module`` over a diffusers / transformers model plus an ``OnnxConfig`` for optimum's exporter,
which can express all four. Axis 0 of every tensor is the batch that Triton forms; the inner *count* axis (prompts,
canvases, pictures of one request) is flattened inside the graph.

A UNet traced at an even latent size bakes its up-sampling in and fails at other sizes; traced at an odd one
(``TRACED``) it is right at every size, because diffusers then passes the sizes of the skip connections on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from optimum.exporters.onnx import OnnxConfig
from optimum.utils import NormalizedConfig
from torch import Tensor, nn
from typing_extensions import override

OPSET = 18

Axes = dict[str, dict[int, str]]
"""Tensor name → {axis: name of a variable axis}; axes not named are fixed."""


@dataclass(frozen=True)
class Dimensions:
    """The fixed sizes of a pipeline."""

    in_channels: int
    """Input channels of the UNet: 2C + 1 (inpainting) or C."""
    latent_channels: int
    """C."""
    vae_factor: int
    """Pixels per latent, along each side."""
    text_length: int
    """L, tokens in a prompt; 0 without a text encoder, like the two below."""
    text_width: int
    """D, width of a hidden state."""
    vocabulary: int
    """Token ids are below this."""


@dataclass(frozen=True)
class Probe:
    """The variable sizes of one set of example inputs. ``height`` and ``width`` are in latents."""

    rows: int
    count: int
    height: int
    width: int


TRACED = Probe(rows=3, count=2, height=9, width=13)
"""Sizes at the trace: odd ones (see above), all different, so that none can stand for another."""

PROBES = (Probe(1, 1, 9, 13), Probe(2, 3, 8, 8), Probe(3, 2, 10, 9), Probe(1, 2, 15, 8))
"""Sizes at which graphs are held against torch: even, odd, square, tall, wide, and other rows and counts."""


class Leaf(OnnxConfig):  # type: ignore[misc]
    """One leaf graph: optimum's description of it, the module to trace, example inputs."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DEFAULT_ONNX_OPSET = OPSET
    name: ClassVar[str]
    component: ClassVar[str]
    """Folder of the pipeline that holds its weights."""
    varies: ClassVar[tuple[str, ...]]
    """The sizes of a probe that reach this graph."""
    labels: ClassVar[bool] = False
    """Whether it answers class numbers: then what counts is how many differ, not how far."""
    inputs: ClassVar[Axes]
    outputs: ClassVar[Axes]

    def __init__(self) -> None:
        super().__init__(config=SimpleNamespace())

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The sizes at which it is held against torch."""
        return PROBES

    @abstractmethod
    def usual(self, height: int, width: int) -> Probe:
        """The sizes of one row for a picture of ``height`` × ``width`` pixels."""

    @abstractmethod
    def module(self, model: nn.Module) -> nn.Module:
        """The module to trace, over the pipeline's component ``model``."""

    @abstractmethod
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        """Realistic inputs of the sizes in ``probe``."""

    def generate_dummy_inputs(self, framework: str = "pt", **sizes: int) -> dict[str, Any]:
        """optimum's hook: example inputs at the sizes of a probe (by default those of the trace)."""
        probe = Probe(**sizes) if sizes else TRACED
        tensors = self.example(probe, torch.Generator().manual_seed(0))
        return {name: tensor.numpy() for name, tensor in tensors.items()} if framework == "np" else dict(tensors)

    def sizes(self, probe: Probe) -> dict[str, int]:
        """The sizes of ``probe`` that this graph sees, for the manifest."""
        return {name: size for name, size in asdict(probe).items() if name in self.varies}


class PipelineLeaf(Leaf):
    """A leaf that is part of a pipeline."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.dimensions = dimensions

    @override
    def usual(self, height: int, width: int) -> Probe:
        return Probe(1, 1, height // self.dimensions.vae_factor, width // self.dimensions.vae_factor)


class Graph(nn.Module):
    """A module as optimum wants it: with a ``config`` on which ``return_dict`` can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()


class _TextEncoderGraph(Graph):
    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        b, n, length = input_ids.shape
        hidden: Tensor = self.text_encoder(input_ids.reshape(b * n, length), return_dict=False)[0]
        return hidden.reshape(b, n, length, hidden.shape[-1])


class TextEncoder(PipelineLeaf):
    """input_ids INT64 [b, n, L] → hidden_states FP32 [b, n, L, D], the last hidden state after its layer norm."""

    name = "text_encoder"
    component = "text_encoder"
    varies = ("rows", "count")
    inputs: ClassVar[Axes] = {"input_ids": {0: "batch", 1: "count"}}
    outputs: ClassVar[Axes] = {"hidden_states": {0: "batch", 1: "count"}}

    @override
    def module(self, model: nn.Module) -> nn.Module:
        return _TextEncoderGraph(model)

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        size = (probe.rows, probe.count, self.dimensions.text_length)
        return {"input_ids": torch.randint(0, self.dimensions.vocabulary, size, generator=generator)}


class _VaeEncoderGraph(Graph):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, canvases: Tensor, keep: Tensor) -> Tensor:
        b, k, height, width, _ = canvases.shape
        pixels = 2.0 * (canvases.reshape(b * k, height, width, 3).permute(0, 3, 1, 2).to(torch.float32) / 255.0) - 1.0
        pixels = pixels * keep.reshape(b * k, 1, height, width).to(torch.bool).to(torch.float32)
        moments: Tensor = self.encoder(pixels)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.reshape(b, k, *moments.shape[1:])


class VaeEncoder(PipelineLeaf):
    """canvases UINT8 [b, k, H, W, 3], keep UINT8 [b, k, H, W] → moments FP32 [b, k, 2C, h, w].

    Pixels become x / 255 · 2 - 1 as in diffusers' ``VaeImageProcessor``, and 0 (grey) where ``keep`` is 0. The moments
    are mean and log-variance, neither sampled nor scaled.
    """

    name = "vae_encoder"
    component = "vae"
    varies = ("rows", "count", "height", "width")
    inputs: ClassVar[Axes] = {
        "canvases": {0: "batch", 1: "count", 2: "height", 3: "width"},
        "keep": {0: "batch", 1: "count", 2: "height", 3: "width"},
    }
    outputs: ClassVar[Axes] = {"moments": {0: "batch", 1: "count", 3: "latent_height", 4: "latent_width"}}

    @override
    def module(self, model: nn.Module) -> nn.Module:
        return _VaeEncoderGraph(model)

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        factor = self.dimensions.vae_factor
        size = (probe.rows, probe.count, probe.height * factor, probe.width * factor)
        return {
            "canvases": torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8),
            "keep": torch.randint(0, 2, size, generator=generator, dtype=torch.uint8),
        }


class _UNetGraph(Graph):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        out: Tensor = self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]
        return out


class UNet(PipelineLeaf):
    """sample FP32 [r, Cin, h, w], timestep FP32 [r], encoder_hidden_states FP32 [r, L, D] → out_sample FP32.

    out_sample is [r, C, h, w]. The timestep is one value per row, so that jobs at different steps share a batch, and
    need not be whole.
    """

    name = "unet"
    component = "unet"
    varies = ("rows", "height", "width")
    inputs: ClassVar[Axes] = {
        "sample": {0: "batch", 2: "height", 3: "width"},
        "timestep": {0: "batch"},
        "encoder_hidden_states": {0: "batch"},
    }
    outputs: ClassVar[Axes] = {"out_sample": {0: "batch", 2: "height", 3: "width"}}

    @override
    def module(self, model: nn.Module) -> nn.Module:
        return _UNetGraph(model)

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        d = self.dimensions
        return {
            "sample": torch.randn(probe.rows, d.in_channels, probe.height, probe.width, generator=generator),
            "timestep": 999.0 * torch.rand(probe.rows, generator=generator),
            "encoder_hidden_states": torch.randn(probe.rows, d.text_length, d.text_width, generator=generator),
        }


class UNetWithoutText(UNet):
    """As `UNet`, for one whose cross-attention is skipped: no encoder_hidden_states."""

    inputs: ClassVar[Axes] = {name: axes for name, axes in UNet.inputs.items() if name != "encoder_hidden_states"}

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        tensors = super().example(probe, generator)
        return {name: tensors[name] for name in self.inputs}


class _VaeDecoderGraph(Graph):
    def __init__(self, vae: Any, scaling_factor: float) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self.scaling_factor = scaling_factor

    def forward(self, latents: Tensor) -> Tensor:
        b, n, channels, height, width = latents.shape
        z = latents.reshape(b * n, channels, height, width) / self.scaling_factor
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        pixels: Tensor = (self.decoder(z) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        images = (pixels * 255).round().to(torch.uint8)
        return images.reshape(b, n, *images.shape[1:])


class VaeDecoder(PipelineLeaf):
    """latents FP32 [b, n, C, h, w] → images UINT8 [b, n, H, W, 3].

    The latents are scaled (divided by the scaling factor here), the pixels rounded as in diffusers' ``numpy_to_pil``.
    """

    name = "vae_decoder"
    component = "vae"
    varies = ("rows", "count", "height", "width")
    inputs: ClassVar[Axes] = {"latents": {0: "batch", 1: "count", 3: "latent_height", 4: "latent_width"}}
    outputs: ClassVar[Axes] = {"images": {0: "batch", 1: "count", 2: "height", 3: "width"}}

    @override
    def module(self, model: nn.Module) -> nn.Module:
        config: Mapping[str, Any] = model.config  # type: ignore[assignment]
        return _VaeDecoderGraph(model, float(config["scaling_factor"]))

    @override
    def example(self, probe: Probe, generator: torch.Generator) -> dict[str, Tensor]:
        size = (probe.rows, probe.count, self.dimensions.latent_channels, probe.height, probe.width)
        return {"latents": torch.randn(size, generator=generator)}


LEAVES: tuple[type[PipelineLeaf], ...] = (TextEncoder, VaeEncoder, VaeDecoder, UNet)
"""In the order of export: the two of the VAE together, the largest last."""

LEAVES_WITHOUT_TEXT: tuple[type[PipelineLeaf], ...] = (VaeEncoder, VaeDecoder, UNetWithoutText)
