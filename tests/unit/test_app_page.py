"""The page's logic, on Streamlit's own test runner and the fake server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit import config
from streamlit.runtime.secrets import Secrets
from streamlit.testing.v1 import AppTest

from dressform import Client, InvalidRequest, Retry
from dressform.app import connection, gallery, masks, photos
from dressform.app.session import Session
from dressform.testing import FakeTransport

SECONDS = 120


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of an earlier test's server, and ``__main__`` put back, which Streamlit makes the page: a process
    spawned by a later test would run it."""
    connection.about.clear()
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def page(client: Client) -> AppTest:
    def script(client):  # type: ignore[no-untyped-def]  # its source is run elsewhere, without our imports
        from dressform.app.page import main

        main(client)

    return AppTest.from_function(script, kwargs={"client": client}, default_timeout=SECONDS)


def visit(fake: FakeTransport) -> AppTest:
    test = page(Client(transport=fake, retries=Retry(0)))
    test.run()
    assert not test.exception
    return test


def session_of(test: AppTest) -> Session:
    found: Session = test.session_state["dressform"]
    return found


def dress(test: AppTest) -> Session:
    return press(test, "run")


def press(test: AppTest, key: str) -> Session:
    """Press a button, and wait for the end of the request that it starts."""
    test.button(key=key).click().run()
    assert not test.exception
    session = session_of(test)
    if session.running is not None:
        assert session.running.wait(SECONDS)
        test.run()
    assert not test.exception
    return session


def said(elements: Any) -> str:
    return " ".join(element.value for element in elements)


def test_one_press_dresses_the_first_person_in_the_first_garment() -> None:
    fake = FakeTransport()
    test = visit(fake)
    assert [request.model for request in fake.requests] == ["mask"]
    assert fake.requests[0].parameters["category"] == "upper"
    session = dress(test)
    sent = fake.requests[-1]
    assert sent.model == "tryon"
    assert sent.inputs["person"] == gallery.PEOPLE[0].photo.data
    assert sent.inputs["garment"] == gallery.GARMENTS[0].photo.data
    assert "mask" in sent.inputs
    (entry,) = session.history
    assert f"seed {entry.result.seed}" in said(test.caption)
    assert not test.error


def test_the_mask_is_asked_for_once_for_each_person_and_category() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.run()
    assert len(fake.requests) == 1
    test.button(key=f"sample-lower-{gallery.GARMENTS[2].seed}").click().run()
    assert fake.requests[-1].parameters["category"] == "lower"
    test.button(key=f"sample-person-{gallery.PEOPLE[1].seed}").click().run()
    assert fake.requests[-1].inputs["person"] == gallery.PEOPLE[1].photo.data
    assert len(fake.requests) == 3


def test_settings_that_nobody_touched_are_not_sent() -> None:
    fake = FakeTransport(default_steps=20)
    test = visit(fake)
    test.number_input(key="tryon-seed").set_value(7)
    test.number_input(key="tryon-guidance_scale").set_value(3.5)
    test.selectbox(key="tryon-solver").set_value("unipc")
    dress(test)
    assert fake.requests[-1].parameters == {"seed": 7, "guidance_scale": 3.5, "solver": "unipc", "preview_every": 2}


def test_several_garments_make_an_outfit_and_can_be_taken_off_again() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.toggle(key="several").set_value(True).run()
    test.button(key=f"sample-lower-{gallery.GARMENTS[2].seed}").click().run()
    assert [garment.category for garment in session_of(test).garments] == ["upper", "lower"]
    dress(test)
    assert [request.model for request in fake.requests] == ["mask", "mask", "tryon", "tryon"]
    test.button(key="remove-0").click().run()
    assert [garment.category for garment in session_of(test).garments] == ["lower"]
    assert not test.exception


def test_outfit_and_settings_survive_another_task_and_a_server_that_is_away() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.toggle(key="several").set_value(True).run()
    test.button(key=f"sample-lower-{gallery.GARMENTS[2].seed}").click().run()
    test.number_input(key="tryon-seed").set_value(7)
    test.selectbox(key="tryon-solver").set_value("unipc")
    test.text_input(key="words").set_value("tucked in").run()
    test.segmented_control(key="task").set_value("inpaint").run()
    test.selectbox(key="pattern").set_value("dots").run()
    test.text_area(key="prompt").set_value("a long skirt").run()

    def outage() -> None:
        fake.ready = False
        connection.about.clear()
        test.run()
        assert test.error
        fake.ready = True
        test.button(key="retry").click().run()
        assert not test.error

    outage()
    assert test.text_area(key="prompt").value == "a long skirt"
    assert test.selectbox(key="pattern").value == "dots"
    test.segmented_control(key="task").set_value("tryon").run()
    outage()
    assert test.toggle(key="several").value
    assert [garment.category for garment in session_of(test).garments] == ["upper", "lower"]
    assert test.text_input(key="words").value == "tucked in"
    dress(test)
    assert fake.requests[-1].parameters == {"seed": 7, "solver": "unipc", "preview_every": 1}
    assert not test.warning


def test_pictures_and_the_request_under_way_stay_while_the_server_is_away() -> None:
    fake = FakeTransport()
    test = visit(fake)
    dress(test)
    dress(test)
    fake.step_seconds, fake.default_steps = 0.05, 100
    connection.about.clear()
    test.run()
    test.button(key="run").click().run()
    fake.ready = False
    connection.about.clear()
    test.run()
    assert "not ready yet" in said(test.error)
    assert not test.exception
    assert test.button(key="again").disabled
    assert test.button(key="show-1").label == "Nº 1"
    test.button(key="cancel").click().run()
    session = session_of(test)
    assert session.running is None or session.running.wait(SECONDS)
    assert len(fake.cancellations) == 1
    assert not test.feedback


def test_a_fifth_garment_is_refused_with_a_sentence() -> None:
    test = visit(FakeTransport())
    test.toggle(key="several").set_value(True).run()
    for sample in gallery.GARMENTS[1:5]:
        test.button(key=f"sample-{sample.kind}-{sample.seed}").click().run()
    assert "remove one first" in said(test.error)
    assert len(session_of(test).garments) == 4
    test.button(key="remove-0").click().run()
    assert not test.error


def test_the_automatic_category_shows_the_masks_that_may_be_and_sends_none() -> None:
    fake = FakeTransport()
    test = visit(fake)
    session = session_of(test)
    session.masks["upper", 0] = masks.empty(session.person.size)  # corrected by hand, and no use here
    test.selectbox(key=f"category-0-{session.garments[0].photo.digest}").set_value("auto").run()
    assert [request.parameters["category"] for request in fake.requests] == ["upper", "lower", "overall"]
    assert [tab.label for tab in test.tabs] == ["Upper body", "Lower body", "Dress"]
    assert "once that is sent, and repaints one of these masks" in said(test.caption)
    assert "read as “Upper body”, 100% of the picture is repainted" in said(test.caption)
    assert "picture of the one before" not in said(test.caption)
    assert test.toggle(key="editing").disabled
    dress(test)
    assert "mask" not in fake.requests[-1].inputs
    assert fake.requests[-1].parameters["category"] == "auto"


def test_an_automatic_garment_of_an_outfit_is_shown_beside_the_others() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.toggle(key="several").set_value(True).run()
    test.button(key=f"sample-lower-{gallery.GARMENTS[2].seed}").click().run()
    digest = session_of(test).garments[1].photo.digest
    fake.fail("PERSON_NOT_FOUND")
    test.selectbox(key=f"category-1-{digest}").set_value("auto").run()
    assert [tab.label for tab in test.tabs] == ["Upper body", "Automatic", "Upper body", "Lower body", "Dress"]
    assert "picture of the one before" in said(test.caption)
    assert "asks the server again" in said(test.error)
    assert not test.exception
    dress(test)
    first, second = fake.requests[-2:]
    assert "mask" in first.inputs
    assert "mask" not in second.inputs


def test_words_for_what_the_person_wears_send_the_mask_that_is_shown() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.segmented_control(key="task").set_value("inpaint").run()
    test.selectbox(key="words-category").set_value("auto").run()
    assert fake.requests[-1].parameters["category"] == "auto"
    assert "is repainted (tinted)" in said(test.caption)
    dress(test)
    assert "mask" in fake.requests[-1].inputs


def test_words_follow_the_helper_and_can_be_rewritten() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.segmented_control(key="task").set_value("inpaint").run()
    assert test.text_area(key="prompt").value == "a red and white striped t-shirt"
    test.selectbox(key="words-category").set_value("lower").run()
    test.selectbox(key="colour").set_value("green").run()
    assert test.text_area(key="prompt").value == "green and white striped trousers"
    test.text_area(key="prompt").set_value("a long skirt")
    dress(test)
    sent = fake.requests[-1]
    assert (sent.model, sent.inputs["prompt"]) == ("inpaint", b"a long skirt")
    assert test.text_area(key="prompt").value == "a long skirt"


def test_a_server_that_cannot_read_garments_offers_words_alone() -> None:
    test = visit(FakeTransport(("inpaint", "mask")))
    assert "task" not in [control.key for control in test.segmented_control]
    assert "paints by words alone" in said(test.caption)
    assert test.button(key="run").label == "Paint it"


def test_without_a_parser_the_mask_is_painted_by_hand() -> None:
    fake = FakeTransport(("inpaint", "tryon"))
    test = visit(fake)
    assert "finds no masks by itself" in said(test.caption)
    dress(test)
    assert fake.requests == []
    assert "paint what the garment covers" in said(test.error)


def test_a_person_that_is_not_found_can_be_masked_by_hand() -> None:
    fake = FakeTransport()
    fake.fail("PERSON_NOT_FOUND")
    test = visit(fake)
    assert "paint the mask by hand" in said(test.error)
    for _ in range(3):
        test.run()
    assert len(fake.requests) == 1, "a mask that failed is not asked for again by itself"
    assert "paint the mask by hand" in said(test.error)
    press(test, "restart")
    assert len(fake.requests) == 2
    assert not test.error
    assert "is repainted" in said(test.caption)


@pytest.mark.parametrize(
    ("failure", "fields", "advice"),
    [
        ("OVERLOADED", {"retry_after_ms": 1500}, "Try again in 1.5 s."),
        ("UNAVAILABLE", {}, "Check that `dressform serve` is running there"),
        ("INTERNAL", {}, "See the server's log"),
    ],
)
def test_errors_are_sentences_with_what_to_do(failure: str, fields: dict[str, int], advice: str) -> None:
    fake = FakeTransport()
    test = visit(fake)
    fake.fail(failure, **fields)
    session = dress(test)
    assert advice in said(test.error)
    assert len(session.history) == 0
    dress(test)
    assert not test.error
    assert len(session.history) == 1


def test_a_server_that_is_not_there_is_told_and_tried_again() -> None:
    fake = FakeTransport(ready=False)
    test = visit(fake)
    assert "not ready yet" in said(test.error)
    fake.ready = True
    test.button(key="retry").click().run()
    assert not test.error
    assert test.button(key="run").label == "Try it on"


def test_another_seed_and_the_history() -> None:
    fake = FakeTransport()
    test = visit(fake)
    test.number_input(key="tryon-seed").set_value(5)
    session = dress(test)
    press(test, "again")
    second, first = session.history
    assert first.result.seed == 5
    assert second.result.seed != 5
    test.button(key="show-1").click().run()
    assert session.history.selected is first
    test.button(key="further").click().run()
    assert session.person.data == first.result.encoded[0]
    assert fake.requests[-1].model == "mask"
    assert not test.exception


def test_a_picture_that_no_server_takes_is_told_and_one_too_large_is_encoded_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test = visit(FakeTransport())
    session = dress(test)
    (entry,) = session.history
    monkeypatch.setattr(photos, "MAX_ENCODED_BYTES", 1)
    press(test, "further")
    assert "save it smaller" in said(test.error)
    assert session.person is gallery.PEOPLE[0].photo
    noise = np.random.default_rng(1).integers(0, 256, (512, 384, 3), np.uint8)
    entry.result.encoded[0] = photos.encoded(Image.fromarray(noise), "PNG")
    monkeypatch.setattr(photos, "MAX_ENCODED_BYTES", len(entry.result.encoded[0]) - 1)
    press(test, "further")
    assert not test.error
    assert session.person.size == (384, 512)
    assert session.person.data.startswith(b"\xff\xd8"), "a JPEG"


def test_several_pictures_of_one_request_can_be_looked_at() -> None:
    test = visit(FakeTransport())
    test.number_input(key="tryon-num_images").set_value(3)
    session = dress(test)
    (entry,) = session.history
    test.segmented_control(key="of-1").set_value(2).run()
    assert entry.file_name(2).endswith(f"seed-{entry.result.seeds[2]}.png")
    assert not test.exception


def test_thumbs_go_to_the_servers_log() -> None:
    fake = FakeTransport()
    test = visit(fake)
    session = dress(test)
    (entry,) = session.history
    test.feedback(key="thumbs-1").set_value(1).run()
    test.text_input(key="comment-1").set_value("lovely").run()
    said = {"id": entry.result.request_id, "rating": "up"}
    assert fake.feedback == [said, {**said, "comment": "lovely"}]


def test_thumbs_are_hidden_where_nobody_records_them() -> None:
    test = visit(FakeTransport(feedback=False))
    session = dress(test)
    assert len(session.history) == 1
    assert not test.feedback


def test_visits_share_nothing_but_the_connection() -> None:
    fake = FakeTransport()
    client = Client(transport=fake)
    first, second = page(client).run(), page(client).run()
    dress(first)
    second.run()
    assert len(session_of(first).history) == 1
    assert len(session_of(second).history) == 0


@pytest.mark.parametrize("hidden", ["secrets", "environment"])
def test_the_address_is_read_where_the_page_runs(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRESSFORM_URL", raising=False)
    test = AppTest.from_file(gallery.FOLDER.parent / "page.py", default_timeout=SECONDS)
    if hidden == "secrets":
        test.secrets["server"] = "grpc://127.0.0.1:9"
    else:
        monkeypatch.setenv("DRESSFORM_URL", "grpc://127.0.0.1:9")
    test.run()
    assert "127.0.0.1:9" in said(test.error)
    assert test.button(key="retry").label == "Try again"


@pytest.fixture
def secrets_file(tmp_path: Path) -> Iterator[Path]:
    """Where Streamlit looks for secrets; there is none yet."""
    path = tmp_path / "secrets.toml"
    before = config.get_option("secrets.files")
    config.set_option("secrets.files", [str(path)])
    yield path
    config.set_option("secrets.files", before)


def test_no_file_of_secrets_is_fine_and_a_broken_one_is_told(
    secrets_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "secrets", Secrets())
    assert connection.read_secrets() == {}
    secrets_file.write_text("server = grpc://here:8001\n")
    with pytest.raises(InvalidRequest, match=r"the page's secrets cannot be read \(.*line 1.*mend .*secrets\.toml"):
        connection.read_secrets()
    secrets_file.write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        connection.read_secrets()
    secrets_file.write_text('server = "grpc://here:8001"\n')
    assert connection.read_secrets() == {"server": "grpc://here:8001"}


def test_broken_secrets_are_a_sentence_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise InvalidRequest("the page's secrets cannot be read (line 1): mend secrets.toml")

    monkeypatch.setattr(connection, "read_secrets", broken)
    test = AppTest.from_file(gallery.FOLDER.parent / "page.py", default_timeout=SECONDS).run()
    assert not test.exception
    assert "mend secrets.toml" in said(test.error)


def test_certificates_reach_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRESSFORM_URL", "grpcs://127.0.0.1:9")
    test = AppTest.from_file(gallery.FOLDER.parent / "page.py", default_timeout=SECONDS)
    test.secrets["ca_file"] = str(tmp_path / "ca.pem")
    test.run()
    assert "ca_file: cannot read" in said(test.error).replace("\\", "")
    (tmp_path / "ca.pem").write_bytes(b"none")
    test.run()
    assert not test.exception
    assert "127.0.0.1:9" in said(test.error)
