"""What `Client` and `AsyncClient` share: tries, giving up, progress, status. Coroutines on a `Runtime`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from dressform import requests
from dressform.calls import Call, Ended, Plan, R
from dressform.errors import Cancelled, DeadlineExceeded, DressformError, NotFound, ServerUnavailable
from dressform.progress import Progress
from dressform.requests import Request
from dressform.results import Outputs, Result
from dressform.runtimes import Mailbox, Runtime
from dressform.status import About, Health, Model, ModelStatistics
from dressform.transports import GRACE_SECONDS, AsyncTransport
from dressform_contract import TASK_INPUTS

MARK_SECONDS = 3.0
"""How long the server may take to mark a job as cancelled."""

_CLAIM_SECONDS = 2.0
_POLL_SECONDS = 0.05
_LAST_SECONDS = 0.5


class Core:
    """A client without its shell. ``clock`` gives seconds."""

    def __init__(
        self,
        url: str,
        transport: AsyncTransport,
        runtime: Runtime,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.runtime = runtime
        self._transport = transport
        self._clock = clock
        self._started: set[Call[Any]] = set()
        self._met = False  # whether the server ever answered
        self._closed = False

    # --- one call ------------------------------------------------------------------------------------------------

    async def run(self, plan: Plan[R], call: Call[R] | None = None) -> R:
        """The result of ``plan``; ``call`` is told of every request."""
        call = call or Call(plan)
        self._check_open()
        began = self._clock()
        pictures, result = plan.pictures, None
        for fitting in await self.runtime.compute(plan.fittings):
            options, request_id, timeout = plan.options, plan.request_id, plan.timeout
            if fitting is not None:
                options, request_id = fitting.options, fitting.request_id
                pictures = {**pictures, "garment": fitting.garment, "mask": fitting.mask}
            if isinstance(result, Result):  # the next garment goes on the picture of the one before
                pictures = {**pictures, "person": result.image}
                timeout = None if timeout is None else max(0.001, timeout - (self._clock() - began))
            request = await self.runtime.compute(
                requests.built,
                plan.task,
                pictures,
                plan.texts,
                options,
                request_id=request_id,
                timeout=timeout,
                headers=plan.headers,
            )
            outputs = await self._answered(request, call)
            result = await self.runtime.compute(self._read, plan, call, outputs)
        assert result is not None  # there is at least one pass
        return result

    @staticmethod
    def _read(plan: Plan[R], call: Call[R], outputs: Outputs) -> R:
        assert call.request is not None
        return plan.read(outputs, call.request.id)

    async def _answered(self, first: Request, call: Call[R]) -> Outputs:
        """The answer to ``first``, or to a later try of it; ``call.request`` is the one that was answered."""
        began, failures, request = self._clock(), 0, first
        while True:
            if call.cancelled:
                raise Cancelled("cancelled by its caller", request_id=request.id)
            call.send(request)
            sent = self._clock()
            try:
                outputs = await self._transport.infer(request)
                self._met = True
                return outputs
            except DressformError as error:
                self._met |= error.code is not None
                failures += 1
                elapsed = self._clock() - began
                left = None if first.limit is None else first.limit - elapsed
                if error.code is None and isinstance(error, DeadlineExceeded):
                    self.runtime.start(self._give_up(request, sent + _CLAIM_SECONDS))
                elif error.code is None and isinstance(error, ServerUnavailable) and self._met:
                    self.runtime.start(self._give_up(request, sent))  # its answer is lost, but the job may go on
                pause = None if call.cancelled else call.plan.retry.pause(error, failures, elapsed, left, self._met)
                if pause is None:
                    raise
            except GeneratorExit:
                raise
            except BaseException:  # KeyboardInterrupt, or the cancellation of a task
                await self.runtime.finish(self._give_up(request, sent + _CLAIM_SECONDS))
                raise
            await self._pause(call, pause)
            request = first.again(failures, self._clock() - began)

    async def _pause(self, call: Call[R], seconds: float) -> None:
        """Wait, unless the call is cancelled."""
        end = self._clock() + seconds
        with self._listening(call) as mailbox:
            while not call.cancelled and (left := end - self._clock()) > 0:
                await mailbox.get(left)

    # --- giving up -----------------------------------------------------------------------------------------------

    async def cancel(self, call: Call[R]) -> bool:
        """Give a call up: the server ends its job before the next step. False if it was over already.

        Raises:
            ServerUnavailable: if the server could not be told, and the call goes on.
            InvalidRequest: if its id is too short to be told apart from a stranger's guess.
        """
        if call.ended:
            return False
        call.cancel()
        end, unreachable = self._clock() + GRACE_SECONDS, None
        with self._listening(call) as mailbox:
            while not call.ended and self._clock() < end:
                try:
                    if call.request is not None and await self._marked(call.request):
                        return True
                except ServerUnavailable as error:
                    unreachable = error
                await mailbox.get(_POLL_SECONDS)
        if unreachable is not None and not call.ended:
            raise unreachable
        return isinstance(call.error, Cancelled)

    async def cancel_all(self, calls: Collection[Call[Any]]) -> None:
        """Give calls up, side by side, as far as the server can be reached."""
        mailbox = self.runtime.mailbox()

        async def cancelled(call: Call[Any]) -> None:
            try:
                with suppress(DressformError):
                    await self.cancel(call)
            finally:
                mailbox.put(call)

        for call in calls:
            self.runtime.start(cancelled(call))
        for _ in calls:
            await mailbox.get(GRACE_SECONDS + MARK_SECONDS)

    async def _give_up(self, request: Request, claimed: float) -> None:
        """Mark a request that nobody waits for, as far as the server can be reached.

        It knows the request at ``claimed``, by the clock, if it ever got it.
        """
        began = self._clock()
        while True:
            try:
                if await self._marked(request):
                    return
                end = claimed
            except ServerUnavailable:
                end = began + _CLAIM_SECONDS
            except DressformError:
                return
            if self._clock() >= end:
                return
            await self.runtime.mailbox().get(_POLL_SECONDS)

    async def _heard(self, call: Call[Any], mailbox: Mailbox, timeout: float | None) -> object | None:
        """The next news of ``call``. Who is interrupted while waiting for it gives the call up."""
        try:
            return await mailbox.get(timeout)
        except GeneratorExit:
            raise
        except BaseException:  # KeyboardInterrupt, or the cancellation of a task
            with suppress(DressformError):
                await self.runtime.finish(self.cancel(call))
            raise

    async def _marked(self, request: Request) -> bool:
        """Mark the job of ``request`` as cancelled; False if the server has no such job (yet, or any more)."""
        try:
            await self._transport.infer(requests.asked("cancel", {"id": request.id}, MARK_SECONDS, request.headers))
        except NotFound:
            return False
        return True

    # --- calls in the background ---------------------------------------------------------------------------------

    def start(self, plan: Plan[R], then: Callable[[Call[R]], None] | None = None) -> Call[R]:
        """Begin a call; ``then`` is told when it is over."""
        self._check_open()
        call = Call(plan)
        self._started.add(call)
        self.runtime.start(self._finished(call, then))
        return call

    async def _finished(self, call: Call[R], then: Callable[[Call[R]], None] | None) -> None:
        try:
            call.result = await self.run(call.plan, call)
        except BaseException as error:
            call.error = error
        finally:
            self._started.discard(call)
            call.end()
            if then is not None:
                then(call)

    async def outcome(self, call: Call[R], timeout: float | None = None) -> R:
        """The result of a call that was started; it goes on if that takes longer than ``timeout`` seconds."""
        end = None if timeout is None else self._clock() + timeout
        with self._listening(call) as mailbox:
            while not call.ended:
                left = None if end is None else end - self._clock()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no result within {timeout:g} s; the request goes on: ask again, or cancel it")
                await self._heard(call, mailbox, left)
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    async def progress(self, call: Call[R]) -> AsyncGenerator[Progress, None]:
        """The steps of a call, until it is over."""
        last: Progress | None = None
        patience: float | None = None
        with self._listening(call) as mailbox:
            while not (patience is not None and last is not None and last.ended):
                news = await self._heard(call, mailbox, patience)
                if news is None:  # it is over, and the server says no more
                    return
                if isinstance(news, Request):
                    await self._watch(news.id, mailbox)
                elif isinstance(news, Ended):
                    patience = 0.0 if call.request is None else _LAST_SECONDS
                elif isinstance(news, Progress):
                    last = news
                    yield news
                elif isinstance(news, DressformError) and not isinstance(news, (NotFound, ServerUnavailable)):
                    raise news

    async def _watch(self, request_id: str, mailbox: Mailbox) -> None:
        def tell(event: Any) -> None:
            if isinstance(event, Mapping):
                try:
                    event = Progress.of(event, request_id)
                except DressformError as error:
                    event = error
            if event is not None:
                mailbox.put(event)

        await self._transport.watch(request_id, tell)

    # --- the server ----------------------------------------------------------------------------------------------

    async def health(self, timeout: float) -> Health:
        """Whether the server is ready."""
        self._check_open()
        try:
            if not await self._transport.server_ready(timeout):
                return Health(False, reason=f"{self.url} is up but not ready yet")
            tasks = tuple([task for task in TASK_INPUTS if await self._transport.model_ready(task, timeout)])
            about = await self._transport.metadata(timeout)
        except DressformError as error:
            return Health(False, reason=error.sentence, error=error)
        if not tasks:
            return Health(False, reason=f"{self.url} serves none of {', '.join(TASK_INPUTS)}: is it Dressform?")
        return Health(True, tasks, server=f"{about.get('name', 'unknown')} {about.get('version', '')}".strip())

    async def models(self, timeout: float) -> list[Model]:
        """The models in the server's repository."""
        self._check_open()
        return [Model.of(entry) for entry in await self._transport.models(timeout)]

    async def stats(self, timeout: float) -> dict[str, ModelStatistics]:
        """The statistics of the models, by name."""
        self._check_open()
        entries = [ModelStatistics.of(entry) for entry in await self._transport.statistics(timeout)]
        return {entry.name: entry for entry in entries}

    async def about(self, timeout: float) -> About:
        """What the server can do."""
        self._check_open()
        return About.of(await self._transport.infer(requests.asked("about", {}, timeout)))

    async def feedback(self, request_id: str, rating: str, comment: str | None, timeout: float) -> None:
        """Have a rating recorded."""
        self._check_open()
        inputs = {"id": request_id, "rating": rating} | ({} if comment is None else {"comment": comment})
        await self._transport.infer(requests.asked("feedback", inputs, timeout))

    async def close(self) -> None:
        """Give up what is under way, and drop the connections."""
        self._closed = True
        try:
            await self.cancel_all([call for call in list(self._started) if not call.cancelled])
            await self.runtime.drain(GRACE_SECONDS)
        finally:
            await self._transport.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"this client of {self.url} is closed: make a new one")

    @contextmanager
    def _listening(self, call: Call[R]) -> Iterator[Mailbox]:
        mailbox = self.runtime.mailbox()
        call.listen(mailbox)
        try:
            yield mailbox
        finally:
            call.unlisten(mailbox)
