"""Results: what a server's answer becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from dressform.errors import ServerError
from dressform.pictures import decoded
from dressform_contract import TASK_OUTPUTS

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


@dataclass(frozen=True)
class MaskResult:
    """The automatic mask of one picture.

    Attributes:
        mask_used: the mask, 8-bit grey at the picture's size; white is what a garment of ``category`` may cover.
        category: upper, lower or overall.
        info: how it was made.
        request_id: the id it was sent under.
        encoded: the mask as the server encoded it.
    """

    mask_used: Image.Image
    category: str
    info: dict[str, Any]
    request_id: str
    encoded: bytes


def read(outputs: Outputs, request_id: str) -> Result:
    """The result in a server's answer to ``inpaint`` or ``tryon``.

    Raises:
        ServerError: if an output is missing or cannot be read.
    """
    with _readable(outputs, TASK_OUTPUTS["tryon"], request_id):
        encoded = [bytes(data) for data in outputs["images"].reshape(-1)]
        return Result(
            images=[decoded(data) for data in encoded],
            seeds=[int(seed) for seed in outputs["seeds"].reshape(-1)],
            mask_used=decoded(bytes(outputs["mask_used"].reshape(-1)[0])),
            info=json.loads(outputs["info"].reshape(-1)[0]),
            request_id=request_id,
            encoded=encoded,
        )


def read_mask(outputs: Outputs, request_id: str) -> MaskResult:
    """The result in a server's answer to ``mask``.

    Raises:
        ServerError: if an output is missing or cannot be read.
    """
    with _readable(outputs, TASK_OUTPUTS["mask"], request_id):
        encoded = bytes(outputs["mask_used"].reshape(-1)[0])
        info = json.loads(outputs["info"].reshape(-1)[0])
        return MaskResult(decoded(encoded).convert("L"), str(info["category"]), info, request_id, encoded)


@contextmanager
def _readable(outputs: Outputs, names: Sequence[str], request_id: str) -> Iterator[None]:
    """Turns what goes wrong while ``outputs`` are read into a ``ServerError``."""
    missing = [name for name in names if outputs.get(name) is None]
    if missing:
        raise ServerError(f"the server's answer lacks {', '.join(missing)}", request_id=request_id)
    try:
        yield
    except (ValueError, OSError, IndexError, KeyError, TypeError) as error:
        raise ServerError(f"the server's answer cannot be read: {error}", request_id=request_id) from error
