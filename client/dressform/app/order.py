"""Orders: what somebody asked for, kept so that it can be asked for again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from PIL import Image

from dressform import Client, Handle, InvalidRequest, Result
from dressform.app.masks import share
from dressform.app.photos import Photo, encoded
from dressform_contract import Task

Category = Literal["upper", "lower", "overall", "auto"]
"""What a garment covers; ``auto``: the server looks."""


@dataclass(frozen=True)
class Worn:
    """A garment of an outfit, and what it covers."""

    photo: Photo
    category: Category


@dataclass(frozen=True)
class Order:
    """A try-on of ``garments`` one after another, or an inpainting of what ``category`` covers by ``prompt``.

    ``masks`` are by category, 8-bit grey at the person's size, or such a picture as PNG (see `packed`); a garment whose
    category has none gets the server's.
    """

    person: Photo
    task: Task
    garments: tuple[Worn, ...] = ()
    masks: Mapping[Category, Image.Image | bytes] = field(default_factory=dict)
    category: Category = "auto"
    prompt: str = ""
    negative_prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """Pictures that are made one after another."""
        return max(1, len(self.garments))

    @property
    def title(self) -> str:
        """It in few words."""
        return ", then ".join(worn.photo.name for worn in self.garments) or self.prompt

    def check(self) -> None:
        """See that nothing is missing.

        Raises:
            InvalidRequest: saying what.
        """
        if self.task == "tryon" and not self.garments:
            raise InvalidRequest("choose a garment first")
        if self.task == "inpaint" and not self.prompt:
            raise InvalidRequest("say in the prompt what to paint")
        for mask in self.masks.values():
            if isinstance(mask, Image.Image) and not share(mask):
                raise InvalidRequest(
                    "the mask is empty, so nothing would be repainted: switch on “Correct by hand” and paint what "
                    "the garment covers"
                )

    def packed(self) -> Order:
        """The same, its masks as PNG: so it takes little memory while it is kept. Check it before."""
        return replace(self, masks={category: _png(mask) for category, mask in self.masks.items()})

    def again(self) -> Order:
        """The same with another seed: the client draws one."""
        return replace(self, options={name: value for name, value in self.options.items() if name != "seed"})

    def sent(self, client: Client, preview_every: int) -> Handle[Result]:
        """The request, under way.

        Raises:
            DressformError, TypeError: as ``Client.submit_tryon`` does.
        """
        keywords: dict[str, Any] = {
            **self.options,
            "preview_every": preview_every,
            "request_id": str(uuid.uuid4()),
            "negative_prompt": self.negative_prompt or None,
        }
        masks = {category: _png(mask) for category, mask in self.masks.items()}
        if self.task == "inpaint":
            return client.submit_inpaint(self.person.data, masks[self.category], self.prompt, **keywords)
        if len(self.garments) == 1 and self.garments[0].category not in masks:
            keywords["category"] = self.garments[0].category
        return client.submit_tryon(
            self.person.data,
            [worn.photo.data for worn in self.garments],
            mask=[masks.get(worn.category) for worn in self.garments],
            prompt=self.prompt or None,
            **keywords,
        )


def _png(mask: Image.Image | bytes) -> bytes:
    return mask if isinstance(mask, bytes) else encoded(mask, "PNG")
