"""CatVTON (Chong et al. 2024): its self-attention over the UNet of any Stable Diffusion 1.5 inpainting pipeline.

The checkpoints (``zhengchong/CatVTON``: ``mix-48k-1024``, ``vitonhd-16k-512``, ``dresscode-16k-512``) hold one file
each, ``attention/model.safetensors``, with the weights of every self-attention as ``N.to_q.weight`` and so on. N counts
the modules with ``attn1`` in their name, inner ones included, in the order of ``named_modules()`` (down, up, mid): what
matters is its order, not its value. There is no text: cross-attention is skipped, and the block, which still adds its
normalised input, computes ``h + norm2(h)`` in its place.

The weights are published under CC BY-NC-SA 4.0: they are the operator's to supply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from safetensors.torch import load_file
from torch import Tensor, nn

from dressform_export.errors import ExportError
from dressform_export.manifest import AttentionRecord
from dressform_export.settings import Settings
from dressform_export.source import count_elements, sha256

PREFIX = "catvton="
"""What the command's ``--tryon`` begins with; the checkpoint's path follows."""

PARAMETERS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
"""The tensors of one self-attention."""

STEPS = 50
"""CatVTON's own default."""

_FILE = Path("attention") / "model.safetensors"
_HEIGHT = re.compile(r"-(512|1024)$")


@dataclass(frozen=True)
class Attention:
    """An inspected checkpoint."""

    id: str
    file: Path

    def __post_init__(self) -> None:
        count_elements(self.file)

    @property
    def record(self) -> AttentionRecord:
        """For the manifest."""
        return AttentionRecord(self.id, sha256(self.file))

    def settings(self, height: int, factor: int) -> Settings:
        """How it wants to be served; they take the place of the pipeline's own.

        The height in pixels is what the checkpoint's folder says it was trained at (``-512``, ``-1024``), else
        ``height``; the width is three quarters of it, as a multiple of ``factor``.
        """
        named = _HEIGHT.search(self.file.parent.parent.name)
        height = int(named[1]) if named else height
        width = max(height * 3 // 4 // factor, 1) * factor
        return Settings("concat", STEPS, "ddim", 1.0, height, width)

    def apply(self, unet: nn.Module) -> None:
        """Give ``unet`` these self-attention weights, and take its cross-attention away.

        Raises:
            ExportError: if the file is not a checkpoint for such a UNet.
        """
        own = [module for name, module in unet.named_modules() if name.endswith(".attn1")]
        blocks = self._blocks()
        if len(blocks) != len(own):
            raise ExportError(
                f"{self.file} holds {len(blocks)} self-attentions, and the pipeline's UNet has {len(own)}"
            )
        for (number, block), module in zip(blocks.items(), own, strict=True):
            expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
            found = {name: tuple(value.shape) for name, value in block.items()}
            if found != expected:
                raise ExportError(f"self-attention {number} of {self.file} is {found}, and the UNet's is {expected}")
            module.load_state_dict({name: value.float() for name, value in block.items()})
        for module in unet.modules():
            if isinstance(module, BasicTransformerBlock):
                module.attn2 = _SkippedAttention()

    def _blocks(self) -> Mapping[int, Mapping[str, Tensor]]:
        """The self-attentions by their numbers, in order."""
        blocks: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_file(self.file).items():
            number, _, parameter = name.partition(".")
            if not number.isdecimal() or parameter not in PARAMETERS:
                known = ", ".join(f"N.{known}" for known in PARAMETERS)
                raise ExportError(f"{self.file} has {name}: a CatVTON checkpoint has only {known}")
            blocks.setdefault(int(number), {})[parameter] = tensor
        return dict(sorted(blocks.items()))


class _SkippedAttention(nn.Module):
    """Cross-attention that hands its normalised input on."""

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return hidden_states


def open_attention(given: str) -> Attention:
    """The checkpoint at the path ``given``: its folder, the ``attention`` folder in it, or the file itself.

    Raises:
        ExportError: if there is none.
    """
    path = Path(given).expanduser()
    for file in (path, path / _FILE.name, path / _FILE):
        if file.is_file():
            return Attention(given, file.absolute())
    several = sorted(file.parent.parent.name for file in path.glob(f"*/{_FILE}"))
    if several:
        raise ExportError(f"{given} holds several checkpoints, name one of them: {', '.join(several)}")
    raise ExportError(f"{given} is no CatVTON checkpoint: it has no {_FILE}")
