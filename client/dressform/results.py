"""Results: what a server's answer becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from dressform.errors import ServerError
from dressform.pictures import decoded
from dressform_contract import OUTPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outputs = Mapping[str, "NDArray[Any]"]
"""Output tensors by name: ``images`` BYTES, ``seeds`` INT64 ``[1, n]``; ``mask_used``, ``info`` BYTES ``[1, 1]``."""


@dataclass(frozen=True)
class Result:
    """The pictures of one request.

    Attributes:
        images: the pictures, as PIL images; at the original's size unless ``composite`` is "none".
        seeds: the seed of each; sent as ``seed`` it makes that picture again.
        mask_used: what was repainted (white), 8-bit grey.
        info: how it was made: size, steps, batch sizes, seconds of each stage, warnings.
        request_id: the id it was sent under.
        encoded: the pictures as the server encoded them (``output_format``), to be stored without a second loss.
    """

    images: list[Image.Image]
    seeds: list[int]
    mask_used: Image.Image
    info: dict[str, Any]
    request_id: str
    encoded: list[bytes]

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]

    @property
    def seed(self) -> int:
        """The seed of the first picture."""
        return self.seeds[0]

    @property
    def warnings(self) -> list[str]:
        """What the server did otherwise than asked, such as a prompt cut off at the tokenizer's limit."""
        return list(self.info.get("warnings", []))


def read(outputs: Outputs, request_id: str) -> Result:
    """The result in a server's answer.

    Raises:
        ServerError: if an output is missing or cannot be read.
    """
    missing = [name for name in OUTPUTS if outputs.get(name) is None]
    if missing:
        raise ServerError(f"the server's answer lacks {', '.join(missing)}", request_id=request_id)
    try:
        encoded = [bytes(data) for data in outputs["images"].reshape(-1)]
        return Result(
            images=[decoded(data) for data in encoded],
            seeds=[int(seed) for seed in outputs["seeds"].reshape(-1)],
            mask_used=decoded(bytes(outputs["mask_used"].reshape(-1)[0])),
            info=json.loads(outputs["info"].reshape(-1)[0]),
            request_id=request_id,
            encoded=encoded,
        )
    except (ValueError, OSError, IndexError, TypeError) as error:
        raise ServerError(f"the server's answer cannot be read: {error}", request_id=request_id) from error
