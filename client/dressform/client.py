"""The client: ``inpaint``, ``tryon`` and ``mask`` on a Dressform server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from dressform import requests, results
from dressform.errors import DressformError
from dressform.options import Options
from dressform.pictures import Picture
from dressform.results import MaskResult, Result
from dressform.transports import TLS, Transport, connected
from dressform_contract import TASK_INPUTS

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

DEFAULT_URL = "grpc://127.0.0.1:8001"
"""Where `dressform serve` listens unless told otherwise."""


@dataclass(frozen=True)
class Health:
    """Whether a server can take requests: ``ready``, the ``tasks`` it serves, and if it is not ready the ``reason``."""

    ready: bool
    tasks: tuple[str, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ready


class Client:
    """A client of the server at ``url``; one object serves any number of threads.

    >>> with Client("grpc://127.0.0.1:8001") as client:
    ...     result = client.inpaint("photo.jpg", "mask.png", "a red woollen coat", seed=7)
    ...     result.image.save("coat.png")

    Args:
        url: ``grpc://host:port``, ``http://host:port``, or ``grpcs://`` and ``https://`` with TLS.
        timeout: seconds to wait for each call, None for as long as it takes. The server is told (``deadline_ms``).
        tls: certificate files, where the system's are not enough.
        transport: used instead of a connection to ``url`` (see ``dressform.transports.Transport``).

    Every call raises subclasses of ``DressformError``; an unknown keyword is a TypeError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float | None = None,
        tls: TLS | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.url = url
        self._timeout = timeout
        self._transport = connected(url, tls) if transport is None else transport

    def inpaint(
        self,
        image: Picture,
        mask: Picture,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Repaints ``image`` where ``mask`` is white, as ``prompt`` says.

        Args:
            image, mask: of one size; PIL images, paths, bytes, uint8 arrays ``[H, W(, C)]`` or binary files.
            negative_prompt: what the picture should not show.
            request_id: a new UUID if None. An id in flight is refused.
            timeout: seconds, instead of the client's.
            options: see ``Options``; None leaves the default to the server.
        """
        return self._result(
            requests.built(
                "inpaint",
                {"image": image, "mask": mask},
                {"prompt": prompt, "negative_prompt": negative_prompt},
                options,
                request_id=request_id,
                timeout=self._timeout if timeout is None else timeout,
            )
        )

    def tryon(
        self,
        person: Picture,
        garment: Picture | Sequence[Picture],
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Dresses ``person`` in ``garment``.

        Args:
            person: a photo of a person.
            garment: a photo of a garment, or a list of them: each pass dresses the picture of the one before, and the
                result is the last pass's. ``num_images`` and ``output_format`` hold for the last pass.
            mask: what to repaint (white), of the person's size; with a list of garments one for all, or a list. None
                leaves it to the server's garment parser, where it has one: what the garment's ``category`` may cover.
            prompt, negative_prompt: words that help, where the model takes any.
            request_id: a new UUID if None; later passes of a list append "-2", "-3", …
            timeout: seconds for all passes together, instead of the client's.
            options: see ``Options``; None leaves the default to the server.
        """
        timeout = self._timeout if timeout is None else timeout
        end = None if timeout is None else time.monotonic() + timeout
        for fitting in requests.fittings(garment, mask, request_id, options):
            request = requests.built(
                "tryon",
                {"person": person, "garment": fitting.garment, "mask": fitting.mask},
                {"prompt": prompt, "negative_prompt": negative_prompt},
                fitting.options,
                request_id=fitting.request_id,
                timeout=None if end is None else max(0.001, end - time.monotonic()),
            )
            result = self._result(request)
            person = result.image
        return result

    def mask(
        self,
        person: Picture,
        category: Literal["auto", "upper", "lower", "overall"] | None = None,
        *,
        mask_grow: int | None = None,
        mask_invert: bool | None = None,
        output_format: Literal["png", "jpeg", "webp", "npy", "data_url"] | None = None,
        deadline_ms: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> MaskResult:
        """The automatic mask of ``person``: what ``tryon`` repaints where it gets no mask, to be shown or corrected.

        Args:
            person: a photo of a person.
            category: of the garment that will be put on; auto: a dress where one is worn, else the upper body.
            mask_grow, mask_invert, output_format, deadline_ms: see ``Options``; None leaves the default to the server.
            request_id: a new UUID if None.
            timeout: seconds, instead of the client's.
        """
        options = {
            "category": category,
            "mask_grow": mask_grow,
            "mask_invert": mask_invert,
            "output_format": output_format,
            "deadline_ms": deadline_ms,
        }
        timeout = self._timeout if timeout is None else timeout
        request = requests.built("mask", {"person": person}, {}, options, request_id=request_id, timeout=timeout)
        return results.read_mask(self._transport.infer(request), request.id)

    def health(self, timeout: float = 5.0) -> Health:
        """Whether the server is ready; it has ``timeout`` seconds for each question. Raises no ``DressformError``."""
        try:
            if not self._transport.server_ready(timeout):
                return Health(False, reason=f"{self.url} is up but not ready yet")
            tasks = tuple(task for task in TASK_INPUTS if self._transport.model_ready(task, timeout))
        except DressformError as error:
            return Health(False, reason=error.sentence)
        if not tasks:
            return Health(False, reason=f"{self.url} serves none of {', '.join(TASK_INPUTS)}: is it Dressform?")
        return Health(True, tasks)

    def close(self) -> None:
        """Drops the connections. The client cannot be used after that."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, request: requests.Request) -> Result:
        return results.read(self._transport.infer(request), request.id)
