"""The client: ``inpaint``, ``tryon`` and ``mask`` on a Dressform server."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from dressform.calls import Planner
from dressform.core import Core
from dressform.handles import Handle
from dressform.many import Finished, many
from dressform.options import Keywords
from dressform.pictures import Picture
from dressform.results import MaskResult, Result
from dressform.retries import Retry
from dressform.runtimes import Threads, completed, iterated
from dressform.status import About, Health, Model, ModelStatistics
from dressform.transports import TLS, Blocking, Settings, Transport, connected

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

DEFAULT_URL = "grpc://127.0.0.1:8001"
"""Where `dressform serve` listens unless told otherwise."""


class Client:
    """A client of the server at ``url``; one object serves any number of threads.

    >>> with Client("grpc://127.0.0.1:8001") as client:
    ...     result = client.inpaint("photo.jpg", "mask.png", "a red woollen coat", seed=7)
    ...     result.image.save("coat.png")

    Args:
        url: ``grpc://host:port``, ``http://host:port``, or ``grpcs://`` and ``https://`` with TLS.
        timeout: seconds to wait for each call, retries included, None for as long as it takes. The server is told
            (``deadline_ms``), and stops working on what nobody waits for. Over HTTP a network that stalls may take it
            once for each of connecting, sending and the next bytes of the answer.
        retries: how many, or a ``Retry``; 0 for none.
        tls: certificate files, where the system's are not enough.
        headers: HTTP headers or gRPC metadata of every call (``authorization``).
        compression: "gzip" for requests and answers. Pictures are compressed already, so it rarely pays.
        transport: used instead of a connection to ``url`` (see ``dressform.testing``).

    Every call raises subclasses of ``DressformError``; an unknown keyword is a TypeError. A call that is given up
    (its timeout, a KeyboardInterrupt, ``Handle.cancel``) is cancelled on the server, too.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float | None = None,
        retries: int | Retry = Retry(),  # noqa: B008 - frozen
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        compression: Literal["gzip"] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.url = url
        settings = Settings(tls or TLS(), headers or {}, compression)
        chosen = connected(url, settings) if transport is None else transport
        self._core = Core(url, Blocking(chosen), Threads())
        self._planner = Planner(timeout, Retry.of(retries))

    def inpaint(self, image: Picture, mask: Picture, prompt: str, **keywords: Unpack[Keywords]) -> Result:
        """Repaints ``image`` where ``mask`` is white, as ``prompt`` says.

        Args:
            image, mask: of one size; PIL images, paths, bytes, uint8 arrays ``[H, W(, C)]`` or binary files.
            keywords: see ``Keywords`` and ``Options``; None leaves the default to the server.
        """
        return completed(self._core.run(self._planner.inpaint(image, mask, prompt, keywords)))

    def tryon(
        self,
        person: Picture,
        garment: Picture | Sequence[Picture],
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        prompt: str | None = None,
        **keywords: Unpack[Keywords],
    ) -> Result:
        """Dresses ``person`` in ``garment``.

        Args:
            person: a photo of a person.
            garment: a photo of a garment, or a list of them: each pass dresses the picture of the one before, and the
                result is the last pass's. ``num_images`` and ``output_format`` hold for the last pass, ``timeout`` for
                all of them; ids of later passes append "-2", "-3", … to ``request_id``.
            mask: what to repaint (white), of the person's size; with a list of garments one for all, or a list. None
                leaves it to the server's garment parser, where it has one: what the garment's ``category`` may cover.
            prompt: words that help, where the model takes any.
            keywords: see ``Keywords`` and ``Options``; None leaves the default to the server.
        """
        return completed(self._core.run(self._planner.tryon(person, garment, mask, prompt, keywords)))

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
        retries: int | Retry | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> MaskResult:
        """The automatic mask of ``person``: what ``tryon`` repaints where it gets no mask, to be shown or corrected.

        Args:
            person: a photo of a person.
            category: of the garment that will be put on; auto: a dress where one is worn, else the upper body.
            mask_grow, mask_invert, output_format, deadline_ms: see ``Options``; None leaves the default to the server.
            request_id, timeout, retries, headers: see ``Keywords``.
        """
        keywords = {name: value for name, value in locals().items() if name not in ("self", "person")}
        return completed(self._core.run(self._planner.mask(person, keywords)))

    def submit_inpaint(
        self, image: Picture, mask: Picture, prompt: str, **keywords: Unpack[Keywords]
    ) -> Handle[Result]:
        """``inpaint`` in the background. A client that is closed cancels what is still under way."""
        return Handle(self._core, self._planner.inpaint(image, mask, prompt, keywords))

    def submit_tryon(
        self,
        person: Picture,
        garment: Picture | Sequence[Picture],
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        prompt: str | None = None,
        **keywords: Unpack[Keywords],
    ) -> Handle[Result]:
        """``tryon`` in the background. A client that is closed cancels what is still under way."""
        return Handle(self._core, self._planner.tryon(person, garment, mask, prompt, keywords))

    def inpaint_many(
        self,
        inputs: Iterable[tuple[Picture, Picture, str] | Mapping[str, Any]],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        **keywords: Unpack[Keywords],
    ) -> Generator[Finished[Result], None, None]:
        """``inpaint`` for each of ``inputs``, results as they finish; one that fails does not stop the others.

        Args:
            inputs: tuples (image, mask, prompt), or mappings of keywords of ``inpaint``, read as they are needed.
            concurrency: requests under way at once.
            progress: a progress bar on stderr; None: on a terminal.
            keywords: those of all requests.
        """
        return iterated(many(self._core, self._planner, "inpaint", inputs, concurrency, progress, keywords))

    def tryon_many(
        self,
        pairs: Iterable[tuple[Picture, Picture | Sequence[Picture]] | Mapping[str, Any]],
        *,
        prompt: str | None = None,
        concurrency: int = 8,
        progress: bool | None = None,
        **keywords: Unpack[Keywords],
    ) -> Generator[Finished[Result], None, None]:
        """``tryon`` for each of ``pairs``: (person, garment), or mappings of its keywords. See ``inpaint_many``."""
        return iterated(
            many(self._core, self._planner, "tryon", pairs, concurrency, progress, {"prompt": prompt, **keywords})
        )

    def health(self, timeout: float = 5.0) -> Health:
        """Whether the server is ready; it has ``timeout`` seconds for each question. Raises no ``DressformError``."""
        return completed(self._core.health(timeout))

    def models(self, timeout: float = 5.0) -> list[Model]:
        """The models in the server's repository, ready or not."""
        return completed(self._core.models(timeout))

    def stats(self, timeout: float = 5.0) -> dict[str, ModelStatistics]:
        """Requests, queue and compute times of each model since the server started, by its name."""
        return completed(self._core.stats(timeout))

    def about(self, timeout: float = 5.0) -> About:
        """What the server can do: tasks, sizes, defaults, and whether it records feedback."""
        return completed(self._core.about(timeout))

    def feedback(
        self, request_id: str, rating: Literal["up", "down"], comment: str | None = None, timeout: float = 5.0
    ) -> None:
        """Has a rating written to the server's audit log.

        Args:
            request_id: ``Result.request_id`` of the picture that is rated.
            comment: at most 500 characters, none of them control characters.

        Raises:
            InvalidRequest: if the server keeps no audit log (see ``about``), or the rating breaks these rules.
        """
        completed(self._core.feedback(request_id, rating, comment, timeout))

    def close(self) -> None:
        """Cancels what is under way in the background, and drops the connections. It is of no use after that."""
        completed(self._core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
