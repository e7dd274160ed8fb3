"""The web page in a real Chromium, against the real Triton with the demonstration's model.

Screenshots go to the folder $DRESSFORM_SCREENSHOTS, where it is set.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from dressform import Client
from dressform.app import gallery
from dressform.app.presence import AWAY_SECONDS
from dressform_server import Server
from dressform_server.ports import chosen_ports
from e2e.browser import CHROMIUM, PATIENCE, Room

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

PAGE = gallery.FOLDER.parent / "page.py"
STEP = re.compile(r"[Ss]tep \d+ of")
Visit = Callable[..., Room]


@contextmanager
def served(address: str) -> Iterator[str]:
    """The page on a free port, for the server at ``address``."""
    port = chosen_ports("127.0.0.1", {"page": 0})["page"]
    command = [sys.executable, "-m", "streamlit", "run", str(PAGE), f"--server.port={port}"]
    process = subprocess.Popen(
        [*command, "--server.address=127.0.0.1", "--server.headless=true"],
        env={**os.environ, "DRESSFORM_URL": address},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{url}/_stcore/health"):
            assert process.poll() is None, "Streamlit ended by itself"
            assert time.monotonic() < deadline, "Streamlit did not start"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def url(demo_server: Server) -> Iterator[str]:
    with served(demo_server.grpc_url) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *camera], timeout=PATIENCE
        )
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    rooms: list[Room] = []

    def come(**options: Any) -> Room:
        rooms.append(Room(browser, options.pop("url", url), **options))
        return rooms[-1]

    yield come
    for room in rooms:
        room.leave()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("DRESSFORM_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def file(name: str, image: Image.Image, form: str = "PNG") -> dict[str, object]:
    """A file as somebody chooses it."""
    stream = io.BytesIO()
    image.save(stream, form)
    return {"name": name, "mimeType": f"image/{form.lower()}", "buffer": stream.getvalue()}


def cut(room: Room) -> float:
    """Where the slider between before and after stands, in percent."""
    return float(room.page.locator("figure").evaluate("f => f.style.getPropertyValue('--cut')").rstrip("%"))


def result(room: Room) -> Locator:
    """The button that saves the picture, once there is one and the next can be asked for."""
    expect(room.button("Try it on").or_(room.button("Paint it"))).to_be_enabled(timeout=PATIENCE)
    room.settled()
    return room.button("Download")


def downloaded(room: Room, tmp_path: Path) -> tuple[str, Image.Image]:
    with room.page.expect_download() as waiting:
        result(room).click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path.name, Image.open(path).convert("RGB")


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_a_photo_is_masked_corrected_dressed_compared_and_saved(
    visit: Visit, shots: Path, tmp_path: Path, audit_log: Path, phone: bool
) -> None:
    name = "phone" if phone else "desktop"
    room = visit(phone=phone)
    assert room.overflow() <= 0
    room.option("Upload").click()
    person = Image.open(gallery.PEOPLE[1].path).convert("RGB")
    room.upload(0, file("me.png", person))
    room.text("me.png, 384 × 512 pixels").wait_for()
    automatic = room.repainted()
    assert 5 < automatic < 60
    room.shot(shots / f"{name}-1-mask.png")

    room.toggle("Correct by hand")
    room.page.locator("canvas.upper-canvas").wait_for()
    if phone:  # brushes alone: the canvas takes no boxes from a finger
        assert not room.page.get_by_text("Box", exact=True).is_visible()
        for y in (0.05, 0.1, 0.15):
            room.stroke((0.05, y), (0.3, y))
    else:
        room.page.get_by_text("Box", exact=True).click()
        room.settled()
        room.stroke((0.02, 0.02), (0.3, 0.3))
        room.page.get_by_text("Brush", exact=True).click()
    room.page.get_by_text("Remove", exact=True).click()
    room.settled()
    room.stroke((0.1, 0.13), (0.2, 0.13))
    room.shot(shots / f"{name}-2-correction.png")
    room.toggle("Correct by hand")
    assert automatic + 2 <= room.repainted() <= automatic + 9  # 4 or 8 % more, less a stroke of 1

    room.page.get_by_text("Settings", exact=True).click()
    room.fill_number("Num inference steps", 40)
    room.fill_number("Seed", 11)
    room.page.get_by_text("Settings", exact=True).click()
    room.button("Try it on").click()
    room.page.get_by_text(STEP).first.wait_for()
    room.text("Preview").wait_for()
    room.shot(shots / f"{name}-3-progress.png")

    saved, picture = downloaded(room, tmp_path)
    assert saved == "dressform-1-seed-11.png"
    assert picture.size == person.size
    assert room.text("seed 11 · 40 steps").is_visible()
    changed = np.abs(np.asarray(picture, int) - np.asarray(person, int)).max(axis=-1) > 0
    assert changed[: 512 // 5, : 384 // 5].any(), "what was painted was repainted"
    assert not changed[400:].any(), "nothing outside the mask changes"
    yellow = np.asarray(picture, int)[230:250, 180:205].mean(axis=(0, 1))
    assert yellow[2] < yellow[0], "the middle of the T-shirt is the garment's yellow or black"

    assert cut(room) == 50
    room.page.locator("figure").scroll_into_view_if_needed()
    box = room.page.locator("figure").bounding_box()
    assert box is not None
    room.page.locator("figure input").click(position={"x": box["width"] * 0.8, "y": box["height"] / 2})
    assert 70 < cut(room) < 90
    room.page.locator("figure input").press("Home")
    assert cut(room) == 0
    room.page.locator("figure input").click(position={"x": box["width"] * 0.5, "y": box["height"] / 2})
    room.page.wait_for_timeout(500)
    room.shot(shots / f"{name}-4-result.png")

    before = len(audit_log.read_text().splitlines()) if audit_log.exists() else 0
    room.page.locator("[data-testid=stFeedback] button").first.click()
    room.page.get_by_placeholder("Thank you!").wait_for()
    line = json.loads(audit_log.read_text().splitlines()[before])
    assert line["rating"] == "up"
    assert uuid.UUID(line["id"])
    assert room.overflow() <= 0
    assert room.complaints == []


def test_what_goes_wrong_is_told_with_what_to_do(visit: Visit, shots: Path) -> None:
    room = visit(phone=True)
    room.option("Upload").click()
    room.upload(0, {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nnothing"})
    room.text("broken.png cannot be read as a picture").wait_for()
    assert room.text("save it as JPEG, PNG or WebP").is_visible()
    room.upload(0, file("wall.jpg", Image.new("RGB", (300, 400), (210, 205, 200)), "JPEG"))
    room.text("paint the mask by hand").wait_for()
    room.settled()
    assert not room.text("cannot be read as a picture").is_visible()
    room.button("Try it on").click()
    room.text("The mask is empty").wait_for()
    room.shot(shots / "phone-5-errors.png")
    assert room.overflow() <= 0


def test_a_request_can_be_cancelled(visit: Visit, demo_server: Server) -> None:
    room = visit()
    room.page.get_by_text("Settings", exact=True).click()
    room.fill_number("Num inference steps", 150)
    room.fill_number("Num images", 4)
    room.button("Try it on").click()
    room.page.get_by_text(STEP).first.wait_for()
    room.button("Cancel").click()
    result(room)
    assert not room.button("Download").is_visible()
    assert not room.page.locator("[data-testid=stAlert]").is_visible()
    with Client(demo_server.grpc_url) as client:
        stopped = client.stats()["denoise"].succeeded
        time.sleep(3)
        assert client.stats()["denoise"].succeeded == stopped


def test_a_closed_tab_cancels_its_request(visit: Visit, demo_server: Server) -> None:
    room = visit()
    room.page.get_by_text("Settings", exact=True).click()
    room.fill_number("Num inference steps", 150)
    room.fill_number("Height", 512)
    room.fill_number("Width", 512)
    with Client(demo_server.grpc_url) as client:
        before = client.stats()
        room.button("Try it on").click()
        room.page.get_by_text(STEP).first.wait_for()
        room.leave()
        deadline = time.monotonic() + AWAY_SECONDS + 45  # a step of this size takes a while
        while (after := client.stats())["denoise"].failed == before["denoise"].failed:
            assert time.monotonic() < deadline, "the request goes on"
            time.sleep(0.5)
        assert after["postprocess"].succeeded == before["postprocess"].succeeded, "it was not finished"


def test_an_outfit_another_seed_and_the_history(visit: Visit, shots: Path, tmp_path: Path) -> None:
    room = visit()
    room.toggle("Several, one after another")
    room.button("Trousers").click()
    room.page.get_by_role("tab", name="Lower body").click()
    room.settled()
    room.button("Try it on").click()
    first, _ = downloaded(room, tmp_path)
    room.button("Another seed").click()
    room.text("Nº 2").wait_for()
    second, picture = downloaded(room, tmp_path)
    assert first.startswith("dressform-1-seed-")
    assert second.startswith("dressform-2-seed-")
    assert first.split("-seed-")[1] != second.split("-seed-")[1]
    legs = np.asarray(picture, int)[330:440, 140:240].reshape(-1, 3)
    assert (legs[:, 2] - legs[:, 0] > 60).mean() > 0.1, "the trousers' blue stripes"
    room.shot(shots / "desktop-6-outfit.png")
    room.button("Nº 1").click()
    room.text(f"seed {first.split('-seed-')[1].removesuffix('.png')} ·").wait_for()
    assert downloaded(room, tmp_path)[0] == first
    room.button("Dress further").click()
    room.settled()
    room.option("Upload").click()
    room.text("Picture 1, 384 × 512 pixels").wait_for()
    assert room.complaints == []


def test_words_are_painted(visit: Visit, shots: Path, tmp_path: Path) -> None:
    room = visit(phone=True)
    room.option("Words").click()
    room.settled()
    prompt = room.page.get_by_role("textbox", name="Prompt")
    prompt.fill("a green t-shirt with a yellow star")
    prompt.blur()
    room.settled()
    room.button("Paint it").click()
    _, picture = downloaded(room, tmp_path)
    chest = np.asarray(picture, int)[180:280, 160:225].reshape(-1, 3)
    assert ((chest[:, 1] > chest[:, 0] + 30) & (chest[:, 1] > chest[:, 2] + 20)).mean() > 0.3, "green"
    room.shot(shots / "phone-7-words.png")
    assert room.overflow() <= 0


def test_the_camera_takes_the_person(visit: Visit) -> None:
    room = visit()
    room.option("Camera").click()
    room.text("Person 1, 384 × 512 pixels").wait_for()
    room.page.wait_for_function("() => document.querySelector('[data-testid=stCameraInput] video')?.readyState >= 2")
    room.button("Take Photo").click()
    expect(room.text("Person 1, 384 × 512 pixels")).to_be_hidden(timeout=PATIENCE)
    expect(room.page.get_by_text(re.compile(r"\d+ × \d+ pixels"))).to_be_visible(timeout=PATIENCE)


def test_visits_share_nothing(visit: Visit) -> None:
    first, second = visit(), visit()
    first.button("Person 3").click()
    first.button("Try it on").click()
    result(first)
    second.page.reload(wait_until="commit")
    second.text("picture is repainted").wait_for()
    second.settled()
    assert not second.button("Download").is_visible()
    assert second.page.locator("[data-testid=stBaseButton-primary]", has_text="Person 1").first.is_visible()


def test_without_a_server_the_page_says_what_to_do(visit: Visit, shots: Path) -> None:
    port = chosen_ports("127.0.0.1", {"nobody": 0})["nobody"]
    with served(f"grpc://127.0.0.1:{port}") as url:
        room = visit(url=url, ready="Check that", phone=True)
        assert room.text(f"127.0.0.1:{port}").is_visible()
        room.shot(shots / "phone-8-no-server.png")
        room.button("Try again").click()
        room.settled()
        room.text("Check that").wait_for()
        assert room.overflow() <= 0
