"""Try-on without a mask, and the mask alone, on the real Triton with a parser that reads labels from flat colours."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from dressform import (
    Cancelled,
    Client,
    DeadlineExceeded,
    DressformError,
    GarmentNotFound,
    InvalidRequest,
    NotFound,
    PersonNotFound,
    Result,
    ServerError,
    ServerUnavailable,
)
from dressform_server import Server
from e2e.conftest import differences
from e2e.held_parser import with_held_parser
from e2e.window import Window
from figures import laid_flat, painted, person
from mask.agnostic import agnostic_mask
from waiting import wait_until

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def parsing(colour_parser_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("triton") / "parsing.log"
    with Server(colour_parser_repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        yield running


@pytest.fixture(scope="module", params=["grpc", "http"])
def dresser(request: pytest.FixtureRequest, parsing: Server) -> Iterator[Client]:
    """A client of each protocol."""
    with Client(parsing.grpc_url if request.param == "grpc" else parsing.http_url, timeout=120, retries=0) as connected:
        yield connected


@pytest.fixture
def someone() -> Image.Image:
    return painted(person())


@pytest.fixture
def skirt() -> Image.Image:
    return painted(laid_flat("Skirt", 128, 96))


def of(labels: np.ndarray, category: str) -> np.ndarray:
    return np.where(agnostic_mask(labels, category), 255, 0)


def test_the_server_says_that_it_makes_masks(dresser: Client, client: Client) -> None:
    assert dresser.health().tasks == ("inpaint", "tryon", "mask")
    assert client.health().tasks == ("inpaint", "tryon")


@pytest.mark.parametrize("category", ["upper", "lower", "overall"])
def test_the_mask_is_the_agnostic_mask(dresser: Client, someone: Image.Image, category: Any) -> None:
    result = dresser.mask(someone, category)
    assert np.array_equal(np.asarray(result.mask_used), of(person(), category))
    assert (result.category, result.info["category_from"]) == (category, "given")
    assert (result.info["height"], result.info["width"]) == (128, 96)
    assert 0 < result.info["milliseconds"]["total"] < 60_000


def test_the_mask_of_what_is_worn(dresser: Client, someone: Image.Image) -> None:
    worn = [dresser.mask(picture) for picture in (someone, painted(person(dress=True)))]
    assert [(result.category, result.info["category_from"]) for result in worn] == [
        ("upper", "auto"),
        ("overall", "auto"),
    ]


def test_a_large_photo_gets_a_mask_of_its_size(dresser: Client) -> None:
    photo = painted(person(8)).resize((811, 1013), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned upright by the server
    stream = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_270).save(stream, "JPEG", quality=98, exif=exif)
    mask = np.asarray(dresser.mask(stream.getvalue(), "overall").mask_used) > 0
    true = np.asarray(Image.fromarray(agnostic_mask(person(8), "overall")).resize(photo.size))
    assert mask.shape == true.shape
    assert (mask & true).sum() / (mask | true).sum() > 0.9


def test_masks_are_grown_inverted_and_encoded(dresser: Client, someone: Image.Image) -> None:
    plain = of(person(), "upper")
    grown = np.asarray(dresser.mask(someone, "upper", mask_grow=2).mask_used)
    assert (grown[plain > 0] == 255).all()
    assert (grown > 0).sum() > (plain > 0).sum()
    inverted = np.asarray(dresser.mask(someone, "upper", mask_invert=True).mask_used)
    assert np.array_equal(inverted, 255 - plain)
    for form, start in (("npy", b"\x93NUMPY"), ("data_url", b"data:image/png;base64,"), ("jpeg", b"\xff\xd8")):
        result = dresser.mask(someone, "upper", output_format=form)  # type: ignore[arg-type]
        assert result.encoded.startswith(start)
        assert np.array_equal(np.asarray(result.mask_used) >= 128, plain > 0)


@pytest.mark.parametrize("task_category", ["auto", "upper"])
def test_the_automatic_mask_sent_back_gives_the_same_picture(
    dresser: Client, someone: Image.Image, skirt: Image.Image, task_category: Any
) -> None:
    automatic = dresser.tryon(someone, skirt, category=task_category, **FAST)
    category = "lower" if task_category == "auto" else task_category
    assert np.array_equal(np.asarray(automatic.mask_used), of(person(), category))
    origin = "auto" if task_category == "auto" else "given"
    assert (automatic.info["category"], automatic.info["category_from"]) == (category, origin)
    given = dresser.tryon(someone, skirt, mask=automatic.mask_used, **FAST)
    assert differences(given.image, automatic.image).max() == 0
    assert "category" not in given.info
    alone = dresser.mask(someone, category)
    assert np.array_equal(np.asarray(alone.mask_used), np.asarray(automatic.mask_used))
    kept = np.asarray(automatic.mask_used) == 0
    hard = dresser.tryon(someone, skirt, category=task_category, composite="hard", **FAST)
    assert np.array_equal(np.asarray(hard.image)[kept], np.asarray(someone)[kept])


def test_an_outfit_covers_one_category_after_the_other(dresser: Client, someone: Image.Image) -> None:
    shirt, trousers = (painted(laid_flat(name)) for name in ("Upper-clothes", "Pants"))
    first = dresser.tryon(someone, shirt, composite="hard", **FAST)
    both = dresser.tryon(
        someone, [shirt, trousers], mask=[first.mask_used, of(person(), "lower").astype(np.uint8)], **FAST
    )
    assert first.info["category"] == "upper"
    assert np.array_equal(np.asarray(both.mask_used), of(person(), "lower"))


def coded(call: Callable[[], object], kind: type[DressformError], code: str, *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)


def test_what_is_not_found_has_a_code(dresser: Client, someone: Image.Image, skirt: Image.Image) -> None:
    blank = Image.new("RGB", (96, 128), "white")
    coded(lambda: dresser.mask(blank), PersonNotFound, "PERSON_NOT_FOUND", "no person was found", "Background 100.0 %")
    coded(lambda: dresser.tryon(skirt, skirt, **FAST), PersonNotFound, "PERSON_NOT_FOUND", "Skirt", "Send a mask")
    coded(lambda: dresser.tryon(someone, blank, **FAST), GarmentNotFound, "GARMENT_NOT_FOUND", "Upper-clothes, Skirt")
    head = painted(person()[:26])
    coded(lambda: dresser.mask(head, "lower"), PersonNotFound, "PERSON_NOT_FOUND", "nothing of the category lower")
    assert dresser.tryon(someone, blank, category="upper", **FAST).info["category"] == "upper"


def test_bad_masks_are_refused_as_elsewhere(dresser: Client, someone: Image.Image, skirt: Image.Image) -> None:
    coded(lambda: dresser.mask(b"junk"), InvalidRequest, "INVALID_ARGUMENT", "person is 4 bytes that are no PNG")
    coded(lambda: dresser.mask(bytes(33 * 2**20)), InvalidRequest, "INVALID_ARGUMENT", "person is 33.0 MB", "32 MB")
    shrink = {"mask_grow": -60}
    coded(lambda: dresser.mask(someone, **shrink), InvalidRequest, "INVALID_ARGUMENT", "mask is empty after mask_grow")  # type: ignore[arg-type]
    coded(lambda: dresser.tryon(someone, skirt, **FAST, **shrink), InvalidRequest, "INVALID_ARGUMENT", "mask is empty")
    coded(lambda: dresser.mask(someone, "neck"), InvalidRequest, "INVALID_ARGUMENT", "auto, upper, lower, overall")  # type: ignore[arg-type]
    coded(lambda: dresser.mask(someone, deadline_ms=1), DeadlineExceeded, "DEADLINE", "1 ms are allowed")


def test_without_a_parser_the_way_out_is_named(client: Client, someone: Image.Image, skirt: Image.Image) -> None:
    coded(lambda: client.tryon(someone, skirt), InvalidRequest, "UNSUPPORTED", "tryon needs a mask", "--parser")
    with pytest.raises((NotFound, InvalidRequest), match="mask"):
        client.mask(someone)


def test_requests_past_our_client(parsing: Server, someone: Image.Image) -> None:
    stream = io.BytesIO()
    someone.save(stream, "PNG")
    with triton.InferenceServerClient(parsing.grpc_url.removeprefix("grpc://")) as connection:

        def ask(**call: Any) -> Any:
            tensor = triton.InferInput("person", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[stream.getvalue()]], np.object_))
            return connection.infer("mask", [tensor], **call)

        for call, words in (
            ({"parameters": {"seed": 1}}, ["mask takes no parameter 'seed'", "category"]),
            ({"parameters": {"categorie": "upper"}}, ["did you mean category"]),
            ({"sequence_id": 7, "sequence_start": True}, ["sequence"]),
        ):
            with pytest.raises(InferenceServerException) as caught:
                ask(**call)
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
            for word in words:
                assert word in caught.value.message()
        assert json.loads(ask().as_numpy("info")[0, 0])["category"] == "upper"


def test_flat_json_will_do(parsing: Server, someone: Image.Image) -> None:
    stream = io.BytesIO()
    someone.save(stream, "PNG")
    import base64

    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    body = json.dumps({"person": url, "category": "lower"}).encode()
    ask = urllib.request.Request(f"{parsing.http_url}/v2/models/mask/generate", body)
    with urllib.request.urlopen(ask, timeout=60) as response:
        answer = json.loads(response.read())
    assert answer["mask_used"].startswith("data:image/png;base64,")
    assert json.loads(answer["info"])["category"] == "lower"


def test_batch_mates_do_not_matter(dresser: Client, skirt: Image.Image) -> None:
    """Good and bad ones at once, with and without masks: each gets what it gets alone."""
    people = [painted(person(sleeves=bool(i % 2), dress=i % 3 == 0, mirror=i % 5 == 0)) for i in range(12)]
    blank = Image.new("RGB", (96, 128), "white")

    def ask(i: int) -> Any:
        options: dict[str, Any] = {"seed": i, "num_inference_steps": 2 + i % 3, "category": ("auto", "upper")[i % 2]}
        try:
            if i % 4 == 3:
                return dresser.mask(people[i], "lower").mask_used
            mask = Image.new("L", (96, 128), 255) if i % 4 == 2 else None
            return dresser.tryon(blank if i == 4 else people[i], skirt, mask=mask, **options).image
        except DressformError as error:
            return error.code

    alone = [ask(i) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, range(12)))
    for i, (one, other) in enumerate(zip(alone, together, strict=True)):
        if i == 4:
            assert one == other == "PERSON_NOT_FOUND"
        else:
            assert differences(one, other).max() <= 1, i


# --- a parser that takes its time --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As long as it is there, the parser works on whatever it gets."""
    return tmp_path_factory.mktemp("parser") / "held"


@pytest.fixture(scope="module")
def slow(held_file: Path, colour_parser_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = with_held_parser(colour_parser_repository, tmp_path_factory.mktemp("slow") / "repository", held_file)
    log = tmp_path_factory.mktemp("triton") / "slow.log"
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        yield running


@pytest.fixture
def held(held_file: Path) -> Iterator[Path]:
    """``held_file``, for one test at most."""
    held_file.touch()
    yield held_file
    held_file.unlink(missing_ok=True)


def test_a_slow_parser_holds_nobody_else_up(slow: Server, held: Path, someone: Image.Image, skirt: Image.Image) -> None:
    """Requests with a mask go by; the slow one can be seen, cancelled, and its id is in use meanwhile."""
    with Client(slow.grpc_url, timeout=120, retries=0) as client, ThreadPoolExecutor(4) as pool:
        mask = Image.new("L", someone.size, 255)
        ids = [uuid.uuid4().hex for _ in range(2)]
        jobs = [pool.submit(client.tryon, someone, skirt, request_id=name, **FAST) for name in ids]
        wait_until(lambda: {name[:8] for name in ids} <= {job["id"][:8] for job in Window(slow).jobs("list")}, 60)
        began = time.monotonic()
        for _ in range(3):
            client.tryon(someone, skirt, mask=mask, **FAST)
        assert not any(job.done() for job in jobs)
        with pytest.raises(InvalidRequest, match="in flight"):
            client.tryon(someone, skirt, mask=mask, request_id=ids[0], **FAST)
        Window(slow).jobs("cancel", id=ids[1])
        worked_ms = 1000 * (time.monotonic() - began)
        held.unlink()
        assert jobs[0].result().info["category"] == "lower"
        assert jobs[0].result().info["milliseconds"]["preprocess"] >= worked_ms
        with pytest.raises(Cancelled):
            jobs[1].result()
        assert Window(slow).jobs("list") == []


def test_a_parser_that_fails_is_an_engine_error(slow: Server, skirt: Image.Image) -> None:
    poison = Image.new("RGB", (96, 128), (7, 7, 7))
    with Client(slow.grpc_url, timeout=120, retries=0) as client:
        for call in (lambda: client.tryon(poison, skirt, category="upper", **FAST), lambda: client.mask(poison)):
            with pytest.raises(DressformError, match="parser: this picture is poisoned") as caught:
                call()
            assert caught.value.code == "ENGINE"
    assert Window(slow).jobs("list") == []


def test_deadlines_hold_while_the_parser_works(
    slow: Server, held: Path, someone: Image.Image, skirt: Image.Image
) -> None:
    with Client(slow.grpc_url, retries=0) as client:
        for call in (client.mask, lambda *a, **k: client.tryon(*a, skirt, **k)):
            held.touch()
            release = threading.Timer(3, held.unlink)
            release.start()
            with pytest.raises(DeadlineExceeded):
                call(someone, deadline_ms=1500)
            release.join()
    wait_until(lambda: Window(slow).jobs("list") == [], 30)


def test_a_server_stops_while_the_parser_works(
    slow: Server, held: Path, someone: Image.Image, skirt: Image.Image
) -> None:
    """Last in this file: it stops the server. Whoever waits gets an answer or an error, and the server leaves."""
    with Client(slow.grpc_url, timeout=60, retries=0) as client:
        outcome: list[object] = []

        def ask() -> None:
            try:
                outcome.append(client.tryon(someone, skirt, **FAST))
            except DressformError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: Window(slow).jobs("list"), 60)
        threading.Timer(2, held.unlink).start()
        slow.stop()
        thread.join(60)
        assert len(outcome) == 1
        assert isinstance(outcome[0], (Result, ServerError, ServerUnavailable)), outcome
        assert slow.pid is None
