"""What the page sends, follows and keeps, without a browser: on the fake server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform import TLS, About, Client, InvalidRequest, Progress
from dressform.app import connection, gallery, presence, prompts, settings
from dressform.app.history import LONGEST, History
from dressform.app.masks import empty
from dressform.app.order import Category, Order, Worn
from dressform.app.photos import LONGEST_SHOWN, Photo
from dressform.app.running import Running, said
from dressform.app.session import Session, sentence, worn
from dressform.client import DEFAULT_URL
from dressform.testing import FakeTransport
from dressform_contract import PARAMETERS, TASK_PARAMETERS, Task

PERSON = gallery.PEOPLE[0].photo
SHIRT, TROUSERS = worn(gallery.GARMENTS[0]), worn(gallery.GARMENTS[2])
WHOLE = Image.new("L", PERSON.size, 255)
ABOUT = About(True, True, 128, 96, 64, 1024, 8, 20, "ddim", True)


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport(default_size=(96, 128))


@pytest.fixture
def client(fake: FakeTransport) -> Client:
    return Client(transport=fake)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def dressed(client: Client, order: Order) -> Running:
    running = Running(order.sent(client, 2), order.passes)
    assert running.wait(30)
    return running


def test_the_mask_that_was_shown_is_the_mask_that_is_sent(client: Client, fake: FakeTransport) -> None:
    running = dressed(client, Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE}, options={"seed": 3}))
    assert running.result is not None
    assert running.result.seed == 3
    (request,) = fake.requests
    assert request.inputs["person"] == PERSON.data
    assert Image.open(io.BytesIO(request.inputs["mask"])).getextrema() == (255, 255)
    assert request.parameters == {"seed": 3, "preview_every": 2}


def test_the_automatic_category_leaves_the_mask_to_the_server(client: Client, fake: FakeTransport) -> None:
    dressed(client, Order(PERSON, "tryon", (Worn(SHIRT.photo, "auto"),)))
    (request,) = fake.requests
    assert "mask" not in request.inputs
    assert request.parameters["category"] == "auto"


def test_an_outfit_is_put_on_one_garment_after_another(client: Client, fake: FakeTransport) -> None:
    order = Order(PERSON, "tryon", (SHIRT, TROUSERS), {"upper": WHOLE, "lower": WHOLE}, options={"num_images": 2})
    running = dressed(client, order)
    assert running.result is not None
    assert len(running.result.images) == 2
    first, second = fake.requests
    assert first.inputs["garment"] == SHIRT.photo.data
    assert second.inputs["garment"] == TROUSERS.photo.data
    assert second.inputs["person"] != PERSON.data
    assert second.id == f"{first.id}-2"
    assert running.share == 1.0
    assert order.title == "T-shirt, then Trousers"


def test_words_go_to_inpainting(client: Client, fake: FakeTransport) -> None:
    masks: dict[Category, Image.Image] = {"lower": WHOLE}
    dressed(client, Order(PERSON, "inpaint", masks=masks, category="lower", prompt="a skirt", negative_prompt="dots"))
    (request,) = fake.requests
    assert request.model == "inpaint"
    assert request.inputs["prompt"] == b"a skirt"
    assert request.inputs["negative_prompt"] == b"dots"
    assert "category" not in request.parameters


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Order(PERSON, "tryon"), "choose a garment first"),
        (Order(PERSON, "inpaint", masks={"upper": WHOLE}, category="upper"), "say in the prompt"),
        (Order(PERSON, "tryon", (SHIRT,), {"upper": empty(PERSON.size)}), "mask is empty, .*Correct by hand"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(order: Order, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        order.check()


def test_again_draws_another_seed_and_keeps_the_rest(client: Client, fake: FakeTransport) -> None:
    order = Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE}, options={"seed": 3, "guidance_scale": 4.0})
    dressed(client, order.again())
    (request,) = fake.requests
    assert request.parameters["seed"] != 3
    assert request.parameters["guidance_scale"] == 4.0


def test_a_request_is_followed_and_can_be_cancelled() -> None:
    fake = FakeTransport(step_seconds=0.02, default_steps=1000)
    with Client(transport=fake) as client:
        running = Running(client.submit_tryon(PERSON.data, SHIRT.photo.data, mask=WHOLE), 1)
        while not 0.0 < running.share < 1.0:
            assert not running.wait(0.01)
        assert running.sentence.startswith("Step ")
        running.cancel()
        assert running.sentence.startswith("Cancelling")
        assert running.wait(30)
    assert running.result is None
    assert str(running.error).startswith("cancelled")
    assert len(fake.cancellations) == 1


@pytest.mark.parametrize(
    ("news", "number", "passes", "words"),
    [
        (None, 0, 1, "Reading the pictures…"),
        (("waiting", 0, 20, 3, None), 1, 1, "Waiting, 3 before it"),
        (("waiting", 0, 20, 0, None), 1, 1, "Waiting, it is next"),
        (("running", 7, 20, 0, 4.4), 1, 1, "Step 7 of 20, about 4 s left"),
        (("running", 7, 20, 0, 0.2), 2, 3, "Garment 2 of 3: step 7 of 20"),
        (("decoding", 20, 20, 0, 0.0), 1, 1, "Painting the picture…"),
        (("preparing", 0, 0, 0, None), 2, 2, "Garment 2 of 2: reading the pictures…"),
    ],
)
def test_progress_is_told_in_words(news: Any, number: int, passes: int, words: str) -> None:
    progress = None if news is None else Progress(*news, preview=None, request_id="")
    assert said(progress, number, passes) == words


def test_a_session_keeps_pictures_and_tells_errors(client: Client, fake: FakeTransport) -> None:
    session = Session()
    order = Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE})
    for code, fields in ((None, {}), ("OVERLOADED", {"retry_after_ms": 2500})):
        if code is not None:
            fake.fail(code, times=1, **fields)
            impatient = Client(transport=fake, retries=0)
        session.start(order, order.sent(client if code is None else impatient, 1))
        assert session.running is not None
        assert session.running.wait(30)
        session.finish()
        assert session.running is None
    (entry,) = session.history
    assert session.history.selected is entry
    assert entry.file_name(0) == f"dressform-1-seed-{entry.result.seed}.png"
    assert entry.media == "image/png"
    assert entry.line.startswith(f"seed {entry.result.seed} · 4 steps")
    assert entry.photo(0).size == PERSON.size
    assert session.problems["run"].endswith("Try again in 2.5 s.")


def test_what_somebody_cancelled_is_no_error() -> None:
    session = Session()
    order = Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE})
    with Client(transport=FakeTransport(step_seconds=0.02, default_steps=1000)) as slow:
        session.start(order, order.sent(slow, 1))
        running = session.running
        assert running is not None
        running.cancel()
        assert running.wait(30)
    session.finish()
    assert session.problems == {}
    assert len(session.history) == 0


@pytest.mark.parametrize("back", [False, True])
def test_a_request_is_cancelled_when_its_visitor_stays_away(back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "AWAY_SECONDS", 0.05)
    session = Session()
    order = Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE})
    fake = FakeTransport(step_seconds=0.02, default_steps=50)
    with Client(transport=fake) as slow:
        session.start(order, order.sent(slow, 1))
        running = session.running
        assert running is not None
        presence.Visit(session, lambda: back).left()
        assert running.wait(30)
    session.finish()
    assert len(session.history) == back
    assert len(fake.cancellations) == (not back)
    assert back or "was cancelled" in session.problems["run"]
    session.abandon()  # nothing is under way


def test_corrections_become_part_of_the_mask_and_another_person_starts_anew() -> None:
    import numpy as np

    session = Session()
    drawn = np.zeros((4, 3, 4), np.uint8)
    drawn[0] = (230, 0, 110, 153)
    session.painted["upper", 0] = empty((30, 40)), drawn
    session.keep_corrections()
    assert np.asarray(session.masks["upper", 0]).mean() == pytest.approx(255 / 4)
    assert session.painted == {}
    session.choose_person(gallery.PEOPLE[1].photo)
    assert session.masks == {}


def test_one_garment_replaces_the_other_unless_there_may_be_several() -> None:
    session = Session()
    session.choose_garment(TROUSERS, several=False)
    assert session.garments == [TROUSERS]
    for _ in range(3):
        session.choose_garment(SHIRT, several=True)
    with pytest.raises(InvalidRequest, match="up to 4 garments: remove one first"):
        session.choose_garment(SHIRT, several=True)
    assert session.garments == [TROUSERS, SHIRT, SHIRT, SHIRT]
    session.remove_garment(0)
    session.choose_garment(TROUSERS, several=True)
    assert session.garments == [SHIRT, SHIRT, SHIRT, TROUSERS]


def test_an_error_of_a_part_goes_when_something_else_is_chosen() -> None:
    session = Session(problems={"person": "broken", "garment": "broken", "run": "another"})
    session.choose_person(gallery.PEOPLE[1].photo)
    session.choose_garment(SHIRT, several=False)
    assert session.problems == {"run": "another"}


def test_a_field_keeps_the_values_that_the_server_takes() -> None:
    found = {field.parameter.name: field for field in settings.fields("tryon", ABOUT)}
    assert 512 in found["height"]
    assert 2048 not in found["height"]
    assert 0.5 in found["strength"]
    assert "ddim" in found["solver"]
    assert "other" not in found["solver"]


def test_the_history_forgets_the_oldest(client: Client) -> None:
    history = History()
    order = Order(PERSON, "tryon", (SHIRT,), {"upper": WHOLE})
    result = dressed(client, order).result
    assert result is not None
    for _ in range(LONGEST + 3):
        history.add(order, result)
    assert len(history) == LONGEST
    assert [entry.number for entry in history][:2] == [LONGEST + 3, LONGEST + 2]


def test_the_history_keeps_no_large_images_and_has_a_budget(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Image.new("RGB", (3000, 2000), "red")
    person = Photo.read("me.png", png(large))
    order = Order(person, "tryon", (SHIRT,), {"upper": Image.new("L", large.size, 255)})
    result = dressed(client, order).result
    assert result is not None
    assert result.image.size == large.size
    history = History()
    entry = history.add(order, result)
    assert entry.shown[0].size == (LONGEST_SHOWN, 683)
    assert max(entry.result.mask_used.size) == LONGEST_SHOWN
    assert history.size < 20 * 2**20
    again = dressed(client, entry.order.again()).result
    assert again is not None
    assert again.mask_used.getextrema() == (255, 255)

    alone = history.size
    history.add(order, result)
    assert alone < history.size < 2 * alone, "what entries share counts once"
    monkeypatch.setattr("dressform.app.history.MOST_BYTES", history.size)
    newest = history.add(order, result)
    assert [entry.number for entry in history] == [3, 2]
    monkeypatch.setattr("dressform.app.history.MOST_BYTES", 0)
    newest = history.add(order, result)
    assert list(history) == [newest]


@pytest.mark.parametrize("task", ["tryon", "inpaint"])
def test_the_settings_are_the_contracts(task: Task) -> None:
    found = {field.parameter.name: field for field in settings.fields(task, ABOUT)}
    assert set(found) == set(TASK_PARAMETERS[task]) - settings.ELSEWHERE
    assert found["guidance_scale"].default == f"{PARAMETERS['guidance_scale'].default_for(task):g}"
    assert (found["guidance_scale"].minimum, found["guidance_scale"].maximum) == (0, 30)
    assert 0 < found["strength"].minimum < 0.1
    assert (found["height"].minimum, found["height"].maximum, found["height"].step) == (64, 1024, 8)
    assert found["height"].default == "128"
    assert found["num_inference_steps"].default == "20"
    assert found["solver"].default == "ddim"
    assert found["seed"].default == "random"
    for field in found.values():
        for value in (field.minimum, field.maximum, *field.choices):
            kind = int if field.parameter.kind == "integer" else float
            if field.parameter.kind in ("integer", "number") and not isinstance(value, str):
                field.parameter.validated(kind(value))
            elif field.parameter.kind == "choice" and isinstance(value, str):
                field.parameter.validated(value)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (8, 1), (20, 2), (150, 18)])
def test_previews_are_a_handful(steps: int, every: int) -> None:
    assert settings.preview_every(steps) == every
    PARAMETERS["preview_every"].validated(every)


@pytest.mark.parametrize(
    ("arguments", "environment", "secrets", "address"),
    [
        ([], {}, {}, DEFAULT_URL),
        ([], {}, {"server": "https://a.example"}, "https://a.example"),
        ([], {"DRESSFORM_URL": "grpc://b:1"}, {"server": "https://a.example"}, "grpc://b:1"),
        (["--server", "http://c:2", "--else"], {"DRESSFORM_URL": "grpc://b:1"}, {}, "http://c:2"),
    ],
)
def test_the_address_is_from_flag_then_environment_then_secrets(
    arguments: list[str], environment: dict[str, str], secrets: dict[str, str], address: str
) -> None:
    assert connection.address(arguments, environment, secrets) == address


def test_secrets_may_have_headers() -> None:
    assert connection.headers({"headers": {"authorization": "Bearer x"}}) == {"authorization": "Bearer x"}
    assert connection.headers({}) == {}
    with pytest.raises(InvalidRequest, match=r"\[headers\]"):
        connection.headers({"headers": "authorization: Bearer x"})


def test_secrets_may_name_certificates(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca_file", "certificate_file", "key_file")}
    with pytest.raises(InvalidRequest, match="ca_file: cannot read"):
        connection.tls(files)
    for file in files.values():
        Path(file).touch()
    assert connection.tls(files) == TLS(**files)
    assert connection.tls({}) == TLS()


def test_prompts_are_of_the_category() -> None:
    assert prompts.phrase("t-shirt", "striped", "red", "white") == "a red and white striped t-shirt"
    assert prompts.phrase("dress", "plain", "orange", "white") == "an orange dress"
    assert prompts.phrase("trousers", "dots", "grey", "pink") == "grey trousers with pink dots"
    assert prompts.kinds("overall") == ("dress",)
    assert set(prompts.kinds("auto")) == {kind for kinds in prompts.KINDS.values() for kind in kinds}
    assert not prompts.needs_second("plain")
    assert prompts.needs_second("dots")


def test_prompts_use_the_words_that_the_model_learned() -> None:
    from dressform_export.demo.wardrobe.garments import COLOURS, KINDS, PRINTS

    assert set(prompts.COLOURS) == set(COLOURS)
    assert {kind: category for category, kinds in prompts.KINDS.items() for kind in kinds} == KINDS
    assert "circle" in PRINTS


def test_errors_are_sentences_that_markdown_leaves_alone() -> None:
    text = sentence(InvalidRequest("my_photo_1.png [see] is *bad*"))
    assert text == r"my\_photo\_1.png \[see\] is \*bad\*."
    assert sentence(InvalidRequest("choose a garment first")) == "Choose a garment first."
