"""The client of an event loop: `dressform.client.Client`, with coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from dressform.calls import Planner
from dressform.client import DEFAULT_URL
from dressform.core import Core
from dressform.handles import AsyncHandle
from dressform.many import Finished, many
from dressform.options import Keywords
from dressform.pictures import Picture
from dressform.results import MaskResult, Result
from dressform.retries import Retry
from dressform.runtimes import Mailbox
from dressform.status import About, Health, Model, ModelStatistics
from dressform.transports import TLS, AsyncTransport, Settings, async_connected

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

P = ParamSpec("P")
T = TypeVar("T")


class EventLoop:
    """A `Runtime` in which waiting suspends a task."""

    class Box:
        """See `Mailbox`."""

        def __init__(self) -> None:
            self._news: asyncio.Queue[object] = asyncio.Queue()
            self.put = self._news.put_nowait

        async def get(self, timeout: float | None = None) -> object | None:
            """See `Mailbox`."""
            if timeout is None:
                return await self._news.get()
            try:
                return await asyncio.wait_for(self._news.get(), timeout)
            except asyncio.TimeoutError:
                return None

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def mailbox(self) -> Mailbox:
        """See `Runtime`."""
        return self.Box()

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Runtime`."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Runtime`."""
        return await asyncio.shield(self._task(work))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """See `Runtime`."""
        self._task(work)

    async def drain(self, timeout: float) -> None:
        """See `Runtime`."""
        end = time.monotonic() + timeout
        while self._running and (left := end - time.monotonic()) > 0:
            await asyncio.wait(self._running, timeout=left)

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


class AsyncClient:
    """A client of the server at ``url`` for one event loop. Arguments, calls and errors are those of `Client`.

    >>> async with AsyncClient("grpc://127.0.0.1:8001") as client:
    ...     result = await client.inpaint("photo.jpg", "mask.png", "a red woollen coat", seed=7)
    ...     result.image.save("coat.png")

    Cancelling the task that waits for a call cancels the call on the server, too.
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
        transport: AsyncTransport | None = None,
    ) -> None:
        self.url = url
        settings = Settings(tls or TLS(), headers or {}, compression)
        chosen = async_connected(url, settings) if transport is None else transport
        self._core = Core(url, chosen, EventLoop())
        self._planner = Planner(timeout, Retry.of(retries))

    async def inpaint(self, image: Picture, mask: Picture, prompt: str, **keywords: Unpack[Keywords]) -> Result:
        """See `Client.inpaint`."""
        return await self._core.run(self._planner.inpaint(image, mask, prompt, keywords))

    async def tryon(
        self,
        person: Picture,
        garment: Picture | Sequence[Picture],
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        prompt: str | None = None,
        **keywords: Unpack[Keywords],
    ) -> Result:
        """See `Client.tryon`."""
        return await self._core.run(self._planner.tryon(person, garment, mask, prompt, keywords))

    async def mask(
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
        """See `Client.mask`."""
        keywords = {name: value for name, value in locals().items() if name not in ("self", "person")}
        return await self._core.run(self._planner.mask(person, keywords))

    def submit_inpaint(
        self, image: Picture, mask: Picture, prompt: str, **keywords: Unpack[Keywords]
    ) -> AsyncHandle[Result]:
        """See `Client.submit_inpaint`."""
        return AsyncHandle(self._core, self._planner.inpaint(image, mask, prompt, keywords))

    def submit_tryon(
        self,
        person: Picture,
        garment: Picture | Sequence[Picture],
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        prompt: str | None = None,
        **keywords: Unpack[Keywords],
    ) -> AsyncHandle[Result]:
        """See `Client.submit_tryon`."""
        return AsyncHandle(self._core, self._planner.tryon(person, garment, mask, prompt, keywords))

    def inpaint_many(
        self,
        inputs: Iterable[tuple[Picture, Picture, str] | Mapping[str, Any]],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        **keywords: Unpack[Keywords],
    ) -> AsyncGenerator[Finished[Result], None]:
        """See `Client.inpaint_many`."""
        return many(self._core, self._planner, "inpaint", inputs, concurrency, progress, keywords)

    def tryon_many(
        self,
        pairs: Iterable[tuple[Picture, Picture | Sequence[Picture]] | Mapping[str, Any]],
        *,
        prompt: str | None = None,
        concurrency: int = 8,
        progress: bool | None = None,
        **keywords: Unpack[Keywords],
    ) -> AsyncGenerator[Finished[Result], None]:
        """See `Client.tryon_many`."""
        return many(self._core, self._planner, "tryon", pairs, concurrency, progress, {"prompt": prompt, **keywords})

    async def health(self, timeout: float = 5.0) -> Health:
        """See `Client.health`."""
        return await self._core.health(timeout)

    async def models(self, timeout: float = 5.0) -> list[Model]:
        """See `Client.models`."""
        return await self._core.models(timeout)

    async def stats(self, timeout: float = 5.0) -> dict[str, ModelStatistics]:
        """See `Client.stats`."""
        return await self._core.stats(timeout)

    async def about(self, timeout: float = 5.0) -> About:
        """See `Client.about`."""
        return await self._core.about(timeout)

    async def feedback(
        self, request_id: str, rating: Literal["up", "down"], comment: str | None = None, timeout: float = 5.0
    ) -> None:
        """See `Client.feedback`."""
        await self._core.feedback(request_id, rating, comment, timeout)

    async def close(self) -> None:
        """See `Client.close`."""
        await self._core.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
