"""What both clients do with a request: seeds, tries, giving up, handles, progress, many at once; on the fake server."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from dressform import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    DressformError,
    InvalidRequest,
    Overloaded,
    Progress,
    Retry,
    ServerError,
    ServerUnavailable,
)
from dressform.runtimes import completed
from dressform.testing import AsyncFakeTransport, FakeTransport
from dressform_contract import ERRORS, OUTPUT_FORMATS, PARAMETERS
from unit.client_fakes import png
from waiting import wait_until

PICTURES = (png(), png(), "a hat")
QUICK = Retry(retries=3, first=0.01)


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def slow() -> FakeTransport:
    """Three seconds for 150 steps."""
    return FakeTransport(step_seconds=0.02, default_steps=150)


@pytest.fixture
def client(fake: FakeTransport) -> Client:
    return Client(transport=fake, retries=QUICK)


def asynchronously(fake: FakeTransport, work: Callable[[AsyncClient], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """The value of ``work`` with an asynchronous client of ``fake``."""

    async def main() -> Any:
        async with AsyncClient(transport=AsyncFakeTransport(fake), **options) as client:
            return await work(client)

    return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a client by name, of either client."""

    def sync(fake: FakeTransport, name: str, *words: Any, retries: Any = QUICK, **keywords: Any) -> Any:
        with Client(transport=fake, retries=retries) as client:
            answer = getattr(client, name)(*words, **keywords)
            return list(answer) if inspect.isgenerator(answer) else answer

    def over_loop(fake: FakeTransport, name: str, *words: Any, retries: Any = QUICK, **keywords: Any) -> Any:
        async def work(client: AsyncClient) -> Any:
            answer = getattr(client, name)(*words, **keywords)
            return [each async for each in answer] if inspect.isasyncgen(answer) else await answer

        return asynchronously(fake, work, retries=retries)

    return sync if request.param == "sync" else over_loop


# --- the two clients -------------------------------------------------------------------------------------------------


def test_both_clients_have_the_same_calls():
    ours = {name for name in vars(Client) if not name.startswith("_")}
    assert ours == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in ours | {"__init__"}:
        sync, other = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, AsyncClient))
        assert list(sync) == list(other), name
        assert [p.default for p in sync.values()] == [p.default for p in other.values()], name
        if name != "__init__":
            assert inspect.getdoc(getattr(AsyncClient, name)) == f"See `Client.{name}`."


def test_every_option_passes(fake, ask):
    options: dict[str, Any] = {}
    for name, p in PARAMETERS.items():
        options[name] = {"integer": 2, "number": 0.5, "boolean": True, "choice": (*p.choices, "")[0]}[p.kind]
    options |= {"height": 64, "width": 32, "deadline_ms": 60_000}
    result = ask(fake, "inpaint", *PICTURES, negative_prompt="x", headers={"traceparent": "00-a-b-01"}, **options)
    (request,) = fake.requests
    assert request.parameters == options
    assert request.headers == {"traceparent": "00-a-b-01"}
    assert (result.seeds, [image.size for image in result.images]) == ([2, 3], [(32, 64)] * 2)
    assert ask(fake, "tryon", png(), [png(), png()], mask=png(), prompt="y", seed=1).seed == 1
    assert ask(fake, "mask", png(), "lower", mask_grow=1).category == "lower"
    assert [request.model for request in fake.requests] == ["inpaint", "tryon", "tryon", "mask"]
    assert ask(fake, "health").tasks == ("inpaint", "tryon", "mask")
    assert [model.name for model in ask(fake, "models") if model.ready] == ["inpaint", "tryon", "mask"]
    assert ask(fake, "stats")["tryon"].succeeded == 2


def test_a_coroutine_that_waits_has_no_place_in_a_thread():
    with pytest.raises(RuntimeError, match="event loop"):
        completed(asyncio.sleep(1))


# --- retries ---------------------------------------------------------------------------------------------------------


def test_a_repeat_is_the_same_request_with_a_new_id(fake, ask):
    fake.fail("UNAVAILABLE")
    fake.fail("OVERLOADED", retry_after_ms=20)
    result = ask(fake, "inpaint", *PICTURES, request_id="mine", timeout=30)
    ids = [request.id for request in fake.requests]
    assert ids == ["mine", "mine-retry1", "mine-retry2"]
    assert result.request_id == "mine-retry2"
    seeds = {request.parameters["seed"] for request in fake.requests}
    assert seeds == {result.seed}
    deadlines = [request.parameters["deadline_ms"] for request in fake.requests]
    assert deadlines == sorted(deadlines, reverse=True)
    assert deadlines[0] == 30_000
    assert deadlines[2] <= 30_000 - 20
    assert fake.requests[2].timeout < 30 - 0.02


@pytest.mark.parametrize("code", ERRORS)
def test_only_what_may_pass_is_tried_again(fake, client, code):
    fake.fail(code, retry_after_ms=1)
    if ERRORS[code].retryable:
        assert client.inpaint(*PICTURES)
    else:
        with pytest.raises(DressformError):
            client.inpaint(*PICTURES)
    assert len(fake.requests) == 1 + ERRORS[code].retryable


def test_retries_are_off_by_one_argument(fake, ask):
    fake.fail("UNAVAILABLE", 9)
    for keywords in ({"retries": 0}, {"retries": Retry(0)}):
        with pytest.raises(ServerUnavailable):
            ask(fake, "inpaint", *PICTURES, **keywords)
    assert len(fake.requests) == 2
    with Client(transport=fake, retries=QUICK) as client:
        with pytest.raises(ServerUnavailable):
            client.tryon(png(), png(), retries=0)
        with pytest.raises(ServerUnavailable):
            client.mask(png())
    assert len(fake.requests) == 2 + 1 + 4


def test_pauses_double_and_keep_to_the_budget():
    gone, retry = ServerUnavailable("gone"), Retry(retries=5, seconds=60, first=1, longest=4)
    assert [retry.pause(gone, n, 0, chance=lambda: 1.0) for n in range(1, 7)] == [1, 2, 4, 4, 4, None]
    assert retry.pause(gone, 2, 0, chance=lambda: 0.0) == 1
    full = Overloaded("full", fields={"retry_after_ms": "3000"})
    assert retry.pause(full, 1, 0, chance=lambda: 0.0) == 3.5
    assert retry.pause(gone, 1, 59.5, chance=lambda: 0.0) == 0.5
    assert retry.pause(gone, 1, 59.6, chance=lambda: 0.0) is None
    assert retry.pause(gone, 1, 0, left=0.5, chance=lambda: 0.0) is None
    assert Retry.retryable(Overloaded("429"))
    assert not Retry.retryable(ServerError("500"))
    with pytest.raises(InvalidRequest, match="first of a Retry must be a number from 0 on, not -1"):
        Retry(first=-1)


def test_a_server_that_never_answered_can_be_told_of_at_once(fake):
    with Client(transport=fake, retries=Retry(3, first=0.01, first_contact=False)) as client:
        fake.fail("UNAVAILABLE")
        with pytest.raises(ServerUnavailable):
            client.mask(png())
        assert len(fake.requests) == 1
        fake.fail("OVERLOADED", retry_after_ms=0)  # it is there
        fake.fail("UNAVAILABLE", 2)
        client.mask(png())
    assert len(fake.requests) == 1 + 4


def test_no_try_begins_after_the_deadline(fake, client):
    fake.fail("OVERLOADED", 9, retry_after_ms=60_000)
    began = time.monotonic()
    with pytest.raises(Overloaded):
        client.inpaint(*PICTURES, timeout=10)
    assert time.monotonic() - began < 10, "nothing is waited for"
    assert len(fake.requests) == 1


# --- giving up -------------------------------------------------------------------------------------------------------


class Deaf(FakeTransport):
    """Its answers do not come in time; the client's own clock ends the wait, as a connection's would."""

    def infer(self, request: Any) -> Any:
        if request.model == "jobs":
            return super().infer(request)
        threading.Thread(target=self._quietly, args=(request,), daemon=True).start()
        wait_until(lambda: request.id in self._jobs, 20)
        raise DeadlineExceeded("no answer", request_id=request.id)

    def _quietly(self, request: Any) -> None:
        with pytest.raises(Cancelled):
            super().infer(request)


def test_a_timeout_marks_the_job(ask):
    deaf = Deaf(step_seconds=0.02, default_steps=150)
    with pytest.raises(DeadlineExceeded):
        ask(deaf, "inpaint", *PICTURES)
    assert deaf.cancellations == [deaf.requests[0].id]


def test_a_server_that_ended_it_by_the_deadline_is_not_asked_again(slow, ask):
    with pytest.raises(DeadlineExceeded) as caught:
        ask(slow, "inpaint", *PICTURES, timeout=0.2)
    assert caught.value.code == "DEADLINE"
    assert slow.cancellations == []


def test_a_keyboard_interrupt_marks_the_job(slow, monkeypatch):
    """In the call itself, which runs in the main thread."""
    real = slow.infer

    def interrupted(request: Any) -> Any:
        if request.model != "jobs":
            threading.Thread(target=quietly, args=(request,), daemon=True).start()
            signal.raise_signal(signal.SIGINT)
        return real(request)

    def quietly(request: Any) -> None:
        time.sleep(0.2)  # the server is slow to hear of it
        with pytest.raises(Cancelled):
            real(request)

    monkeypatch.setattr(slow, "infer", interrupted)
    with Client(transport=slow) as client, pytest.raises(KeyboardInterrupt):
        client.inpaint(*PICTURES)
    assert slow.cancellations == [slow.requests[0].id]


def test_a_keyboard_interrupt_marks_what_is_waited_for(slow):
    with Client(transport=slow) as client:
        handle = client.submit_inpaint(*PICTURES)
        interrupt = signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
        threading.Timer(0.3, *interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            handle.result()
    assert set(slow.cancellations) == {handle.id}


def test_cancelling_a_task_marks_the_job(slow):
    async def work(client: AsyncClient) -> None:
        task = asyncio.create_task(client.inpaint(*PICTURES))
        while not slow.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.cancellations == [slow.requests[0].id]

    asynchronously(slow, work)


def test_cancelling_who_waits_for_a_handle_cancels_it(slow):
    async def work(client: AsyncClient) -> None:
        handle = client.submit_inpaint(*PICTURES)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.3)
        assert slow.cancellations == [handle.id]
        with pytest.raises(Cancelled):
            await handle

    asynchronously(slow, work)


class Mute(FakeTransport):
    """Nobody reaches its jobs model."""

    def infer(self, request: Any) -> Any:
        if request.model == "jobs":
            raise ServerUnavailable("gone")
        return super().infer(request)


def test_who_is_interrupted_hears_of_that_whatever_becomes_of_the_mark(monkeypatch):
    monkeypatch.setattr("dressform.core.GRACE_SECONDS", 0.2)

    async def work(client: AsyncClient) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.submit_inpaint(*PICTURES).result(), 0.1)
        handle = client.submit_inpaint(*PICTURES)
        while len(mute.requests) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(ServerUnavailable, match="gone"):
            await handle.cancel()

    mute = Mute(step_seconds=0.02, default_steps=40)
    asynchronously(mute, work)


def test_an_interrupt_while_the_steps_are_followed_marks_the_job(slow):
    with Client(transport=slow) as client:
        handle = client.submit_inpaint(*PICTURES)
        threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in handle.progress():
                pass
        assert slow.cancellations == [handle.id]


def test_a_job_whose_answer_was_lost_is_marked_before_its_repeat(slow):
    """The connection breaks while it runs; the server answers the next one."""
    real, broken = slow.infer, []

    def breaking(request: Any) -> Any:
        if request.model == "jobs" or broken:
            return real(request)
        broken.append(request)
        threading.Thread(target=quietly, args=(request,), daemon=True).start()
        wait_until(lambda: request.id in slow._jobs, 20)
        raise ServerUnavailable("connection reset")

    def quietly(request: Any) -> None:
        with pytest.raises(Cancelled):
            real(request)

    with Client(transport=slow, retries=QUICK) as client:
        client.inpaint(*PICTURES, num_inference_steps=1)
        slow.infer = breaking
        assert client.inpaint(*PICTURES, num_inference_steps=20).request_id == f"{broken[0].id}-retry1"
        wait_until(lambda: slow.cancellations == [broken[0].id], 20)


def test_a_deadline_ends_the_tries(fake, client):
    fake.fail("OVERLOADED", retry_after_ms=60_000)
    began = time.monotonic()
    with pytest.raises(Overloaded):
        client.inpaint(*PICTURES, deadline_ms=10_000)
    assert time.monotonic() - began < 10, "nothing is waited for"
    assert len(fake.requests) == 1


# --- handles ---------------------------------------------------------------------------------------------------------


def test_a_handle(slow):
    with Client(transport=slow) as client:
        handle = client.submit_tryon(png(), png(), num_inference_steps=20, seed=4)
        with pytest.raises(TimeoutError, match="goes on"):
            handle.result(timeout=0.05)
        assert not handle.done()
        assert handle.result().seed == handle.result().seed == 4
        assert handle.done()
        assert handle.id == slow.requests[0].id
        assert not handle.cancel()


def test_cancel_at_any_moment(slow):
    for after in (0, 0.001, 0.1):
        with Client(transport=slow) as client:
            handle = client.submit_inpaint(*PICTURES)
            time.sleep(after)
            assert handle.cancel()
            with pytest.raises(Cancelled):
                handle.result(5)
    assert all(job.state == "cancelled" for job in slow._jobs.values())


def test_cancel_between_two_tries(fake):
    fake.fail("OVERLOADED", 9, retry_after_ms=30_000)
    with Client(transport=fake) as client:
        handle = client.submit_inpaint(*PICTURES)
        wait_until(lambda: fake.requests, 20)
        began = time.monotonic()
        handle.cancel()
        with pytest.raises(Cancelled):
            handle.result()
        assert time.monotonic() - began < 10
    assert len(fake.requests) == 1


def test_short_ids_cannot_be_cancelled(slow):
    with Client(transport=slow) as client:
        handle = client.submit_inpaint(*PICTURES, request_id="short", num_inference_steps=25)
        wait_until(lambda: slow.requests, 20)
        with pytest.raises(InvalidRequest, match="22 characters"):
            handle.cancel()


def test_a_closed_client_cancels_what_is_under_way(slow):
    with Client(transport=slow) as client:
        handles = [client.submit_inpaint(*PICTURES) for _ in range(3)]
        wait_until(lambda: len(slow.requests) == 3, 20)
    assert sorted(slow.cancellations) == sorted(str(handle.id) for handle in handles)
    assert all(handle.done() for handle in handles)
    assert slow.closed


def test_progress_follows_an_outfit_and_its_retries(slow):
    slow.fail("UNAVAILABLE")
    with Client(transport=slow, retries=QUICK) as client:
        handle = client.submit_tryon(png(), [png(), png()], num_inference_steps=10, request_id="a" * 30)
        news = list(handle.progress())
    check_story([n for n in news if n.request_id == "a" * 30 + "-retry1"])
    check_story([n for n in news if n.request_id == "a" * 30 + "-2"])
    assert [n.request_id for n in news] == sorted((n.request_id for n in news), reverse=True)


def check_story(news: list[Progress]) -> None:
    steps = [n.step for n in news]
    assert steps == sorted(steps)
    assert news[-1].state == "done"
    assert (news[-1].step, news[-1].total) == (10, 10)
    assert len(set(steps)) > 3


def test_progress_of_a_request_that_fails_just_ends(fake):
    fake.fail("INVALID_ARGUMENT")
    with Client(transport=fake) as client:
        handle = client.submit_inpaint(*PICTURES)
        assert list(handle.progress()) == []
        with pytest.raises(InvalidRequest):
            handle.result()


def test_async_handles(slow):
    async def work(client: AsyncClient) -> None:
        handle = client.submit_inpaint(*PICTURES, num_inference_steps=10, seed=3)
        check_story([news async for news in handle.progress()])
        assert (await handle).seed == (await handle.result()).seed == 3
        other = client.submit_inpaint(*PICTURES)
        with pytest.raises(TimeoutError):
            await other.result(timeout=0.1)
        assert await other.cancel()
        with pytest.raises(Cancelled):
            await other
        assert other.done()

    asynchronously(slow, work)


def test_a_closed_client_says_so(fake):
    client = Client(transport=fake)
    client.close()
    for call in (
        client.health,
        client.stats,
        lambda: client.inpaint(*PICTURES),
        lambda: client.submit_inpaint(*PICTURES),
    ):
        with pytest.raises(RuntimeError, match="is closed"):
            call()
    assert list(client.inpaint_many([])) == []
    with pytest.raises(RuntimeError, match="is closed"):
        list(client.inpaint_many([PICTURES]))


# --- many ------------------------------------------------------------------------------------------------------------


def test_many_go_on_past_failures(fake, ask):
    inputs: list[Any] = [(png((i + 1, 5)), png(), f"hat {i}") for i in range(12)]
    inputs[3] = (b"no picture", png(), "hat")
    inputs[5] = ("nowhere.png", png(), "hat")
    inputs[7] = (png(), png())
    inputs[8] = {"image": png((9, 5)), "mask": png(), "prompt": "hat 8", "seed": 88}
    finished = ask(fake, "inpaint_many", inputs, concurrency=4, retries=0, composite="hard", progress=False)
    assert sorted(f.index for f in finished) == list(range(12))
    for f in finished:
        assert f.input is inputs[f.index]
        assert isinstance(f.error, InvalidRequest) == (f.index in (3, 5, 7)), f
        if f.error is None:
            assert f.result.image.width == f.index + 1
    assert next(f for f in finished if f.index == 8).result.seed == 88
    seeds = [request.parameters["seed"] for request in fake.requests]
    assert len(set(seeds)) == len(seeds)
    with pytest.raises(TypeError, match="did you mean seed"):
        ask(fake, "tryon_many", [], sed=1)
    with pytest.raises(InvalidRequest, match="concurrency"):
        ask(fake, "tryon_many", [], concurrency=0)
    assert ask(fake, "tryon_many", [(png(), [png(), png()])], seed=1)[0].result.seed == 1


def test_many_read_their_inputs_as_they_are_needed(slow):
    taken = []

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        for i in range(1000):
            taken.append(i)
            yield png(), png()

    with Client(transport=slow) as client:
        stream = client.tryon_many(pairs(), concurrency=3, num_inference_steps=5)
        for seen, finished in enumerate(stream, 1):
            assert finished.result is not None
            assert len(taken) <= seen + 3
            if seen == 10:
                break
        stream.close()
    running = [job for job in slow._jobs.values() if job.state == "running"]
    assert running == [], "those that were under way are cancelled"
    assert len(slow.requests) <= 13


def test_a_closed_client_cancels_many(slow):
    with Client(transport=slow) as client:
        results = client.tryon_many([(png(), png())] * 20, concurrency=4, prompt="a hat")
        threading.Thread(target=lambda: next(results), daemon=True).start()
        wait_until(lambda: len(slow.requests) == 4, 20)
    assert sorted(slow.cancellations) == sorted(request.id for request in slow.requests[:4])
    assert [request.inputs["prompt"] for request in slow.requests[:4]] == [b"a hat"] * 4


def test_a_picture_shared_by_many_is_read_once(fake, tmp_path):
    """PIL opens lazily, and its loading is not for two threads at once."""
    Image.effect_noise((1200, 1200), 90).convert("RGB").save(tmp_path / "person.jpg")
    for _ in range(3):
        with Client(transport=FakeTransport()) as client, Image.open(tmp_path / "person.jpg") as person:
            finished = list(client.tryon_many([(person, png())] * 12, concurrency=12))
        assert [each.error for each in finished] == [None] * 12


def test_a_progress_bar_counts(fake, client, capsys):
    list(client.inpaint_many([PICTURES, (b"x", png(), "y")], progress=True))
    shown = capsys.readouterr().err
    assert "inpaint" in shown
    assert "2/2" in shown
    assert "1 failed" in shown
    list(client.inpaint_many([PICTURES]))
    assert capsys.readouterr().err == "", "not on a terminal"


def test_32_threads_share_a_client(fake, client):
    fake.fail("OVERLOADED", 20, retry_after_ms=1)
    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda i: client.inpaint(*PICTURES, seed=i, retries=Retry(20, first=0.01)), range(64)))
    assert [result.seed for result in results] == list(range(64))


# --- dressform.testing ------------------------------------------------------------------------------------------------


def test_the_fake_refuses_what_a_server_refuses(fake, client):
    for options, text in (({"num_inference_steps": 151}, "num_inference_steps must be"), ({"eta": 2}, "eta must be")):
        with pytest.raises(InvalidRequest, match=text):
            client.inpaint(*PICTURES, **options)
    with pytest.raises(InvalidRequest, match="image is no picture"):
        client.inpaint(b"x", png(), "y")
    with pytest.raises(InvalidRequest, match="failure must be UNAVAILABLE or one of INVALID_ARGUMENT"):
        fake.fail("OVERLOAD")
    fake.fail(ServerError("mine"))
    with pytest.raises(ServerError, match="mine"):
        client.inpaint(*PICTURES)


@pytest.mark.parametrize("form", OUTPUT_FORMATS)
def test_the_fake_answers_pictures_as_asked(client, form):
    photo = Image.new("RGB", (31, 17))
    same = [client.inpaint(photo, photo, "x", seed=5, num_images=2, output_format=form) for _ in range(2)]
    assert [image.size for image in same[0].images] == [(31, 17)] * 2
    assert same[0].encoded == same[1].encoded
    assert same[0].encoded[0] != same[0].encoded[1]
    assert same[0].mask_used.size == (31, 17)
