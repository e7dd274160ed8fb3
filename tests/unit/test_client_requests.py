"""What a call becomes (options, pictures, ids, outfits), and what an answer becomes; with an injected transport."""

from __future__ import annotations

import base64
import enum
import inspect
import io
import json
import typing
import uuid

import numpy as np
import pytest
from PIL import Image

import dressform
from dressform import Client, InvalidRequest, Options, ServerError
from dressform.options import as_parameters
from dressform_contract import PARAMETERS, TASK_PARAMETERS
from unit.client_fakes import FakeTransport, answer, npy, png


def array(data: bytes) -> np.ndarray:
    return np.array([[data]], dtype=object)


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client(fake: FakeTransport) -> Client:
    return Client(transport=fake)


# --- options -----------------------------------------------------------------------------------------------------


def test_the_keywords_are_the_contract():
    hints = typing.get_type_hints(Options)
    assert list(hints) == list(PARAMETERS)
    kinds = {"integer": int, "number": float, "boolean": bool}
    for name, parameter in PARAMETERS.items():
        held, none = typing.get_args(hints[name])[:-1], typing.get_args(hints[name])[-1]
        assert none is type(None), name
        if parameter.kind == "choice":
            allowed = typing.get_args(held[0]) if typing.get_origin(held[0]) is typing.Literal else held
            assert allowed == parameter.choices, name
        else:
            assert held == (kinds[parameter.kind],), name


def test_none_is_not_sent(client, fake):
    client.inpaint(png(), png(), "a hat", guidance_scale=None, negative_prompt=None, strength=0.5)
    request = fake.requests[0]
    assert request.model == "inpaint"
    assert set(request.parameters) == {"strength", "seed"}
    assert set(request.inputs) == {"image", "mask", "prompt"}


def test_every_option_keeps_its_python_type():
    given = {"num_inference_steps": 7, "guidance_scale": 2.5, "mask_invert": True, "solver": "euler", "strength": 1}
    sent = as_parameters(given)
    assert sent == given
    assert [type(value) for value in sent.values()] == [int, float, bool, str, int]


def test_numpy_scalars_become_python_values():
    sent = as_parameters({"seed": np.int64(5), "strength": np.float32(0.5), "mask_invert": np.bool_(True)})
    assert sent == {"seed": 5, "strength": 0.5, "mask_invert": True}
    assert [type(value) for value in sent.values()] == [int, float, bool]


def test_enumerations_and_subclasses_become_plain_values():
    class Solver(str, enum.Enum):
        UNIPC = "unipc"

    class Steps(enum.IntEnum):
        FEW = 8

    class Word(str):
        pass

    sent = as_parameters({"solver": Solver.UNIPC, "num_inference_steps": Steps.FEW, "category": Word("upper")})
    assert [(type(value), value) for value in sent.values()] == [(str, "unipc"), (int, 8), (str, "upper")]


def test_unknown_keyword_names_the_nearest(client, fake):
    with pytest.raises(TypeError, match=r"unknown option 'guidence_scale': did you mean guidance_scale\?"):
        client.inpaint(png(), png(), "a hat", guidence_scale=3.0)
    with pytest.raises(TypeError, match="unknown option 'xyz': known are num_inference_steps, "):
        client.tryon(png(), png(), xyz=1)
    assert fake.requests == []


@pytest.mark.parametrize("value", [[1], np.array([1, 2]), b"ddim", object()])
def test_values_that_no_parameter_carries_are_type_errors(value):
    with pytest.raises(TypeError, match=r"seed must be an integer (of|from)"):
        as_parameters({"seed": value})


def test_ranges_are_left_to_the_server_but_not_what_64_bits_cannot_hold():
    assert as_parameters({"seed": -1}) == {"seed": -1}
    with pytest.raises(InvalidRequest, match="seed must be"):
        as_parameters({"seed": 2**63})


def test_request_ids_are_uuids_or_the_callers(client, fake):
    client.inpaint(png(), png(), "a hat")
    result = client.inpaint(png(), png(), "a hat", request_id="mine")
    assert str(uuid.UUID(fake.requests[0].id)) == fake.requests[0].id
    assert fake.requests[1].id == result.request_id == "mine"


def test_a_timeout_is_told_to_the_server(fake):
    client = Client(transport=fake, timeout=30)
    client.inpaint(png(), png(), "a hat")
    client.inpaint(png(), png(), "a hat", timeout=0.25, deadline_ms=9)
    client.inpaint(png(), png(), "a hat", timeout=1e9)
    assert [request.timeout for request in fake.requests] == [30, 0.25, 1e9]
    assert [request.parameters["deadline_ms"] for request in fake.requests] == [30_000, 9, 86_400_000]
    with pytest.raises(InvalidRequest, match="timeout must be"):
        client.inpaint(png(), png(), "a hat", timeout=0)


def test_prompts_are_utf8(client, fake):
    client.tryon(png(), png(), prompt="ein rotes Kleid, süß 👗", negative_prompt="")
    assert fake.requests[0].inputs["prompt"].decode() == "ein rotes Kleid, süß 👗"
    assert fake.requests[0].inputs["negative_prompt"] == b""
    with pytest.raises(InvalidRequest, match="prompt is not valid Unicode"):
        client.inpaint(png(), png(), "\ud800")
    with pytest.raises(TypeError, match="prompt must be a str, not int"):
        client.inpaint(png(), png(), 5)


# --- pictures in -------------------------------------------------------------------------------------------------


def test_paths_bytes_and_files_are_sent_untouched(client, fake, tmp_path):
    data = b"\xff\xd8 not even a picture: the server judges"
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with path.open("rb") as file:
        for picture in (data, bytearray(data), path, str(path), io.BytesIO(data), file):
            client.inpaint(picture, png(), "a hat")
    assert [request.inputs["image"] for request in fake.requests] == [data] * 6


def test_a_data_url_is_sent_as_it_is(client, fake):
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    client.inpaint(url, png(), "a hat")
    assert fake.requests[0].inputs["image"] == url.encode()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pil_images_of_every_mode_are_sent_as_png(client, fake, mode):
    client.inpaint(Image.new(mode, (9, 7)), png(), "a hat")
    sent = Image.open(io.BytesIO(fake.requests[0].inputs["image"]))
    assert (sent.format, sent.size) == ("PNG", (9, 7))
    assert sent.mode == (mode if mode not in ("CMYK", "YCbCr") else "RGB")


def test_pil_pixels_and_colour_profile_survive(client, fake):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = b"a profile"
    client.inpaint(image, png(), "a hat")
    sent = Image.open(io.BytesIO(fake.requests[0].inputs["image"]))
    assert np.array_equal(np.asarray(sent), pixels)
    assert sent.info["icc_profile"] == b"a profile"


def test_exif_orientation_of_a_pil_image_is_applied(client, fake):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    client.inpaint(Image.open(stream), png(), "a hat")
    sent = Image.open(io.BytesIO(fake.requests[0].inputs["image"]))
    assert sent.size == (4, 8)
    assert sent.getpixel((3, 0)) == (255, 255, 255)
    assert not sent.getexif()


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4)])
def test_uint8_arrays_are_sent_as_png(client, fake, shape):
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    client.inpaint(array[:, ::-1], png(), "a hat")  # not contiguous
    sent = np.asarray(Image.open(io.BytesIO(fake.requests[0].inputs["image"])))
    assert np.array_equal(sent, array[:, ::-1].reshape(sent.shape))


def test_a_bool_array_is_a_mask(client, fake):
    mask = np.array([[True, False], [False, True]])
    client.inpaint(png(), mask, "a hat")
    sent = np.asarray(Image.open(io.BytesIO(fake.requests[0].inputs["mask"])))
    assert sent.tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(
    ("picture", "error", "text"),
    [
        (np.zeros((4, 4, 3)), InvalidRequest, r"mask must be a uint8 array .* not float64 \[4, 4, 3\]"),
        (np.zeros((3, 4, 4), np.uint8), InvalidRequest, r"not uint8 \[3, 4, 4\]|with 1, 3 or 4 channels"),
        (np.zeros((1, 4, 4, 3), np.uint8), InvalidRequest, r"not uint8 \[1, 4, 4, 3\]"),
        (np.zeros((0, 4), np.uint8), InvalidRequest, r"not uint8 \[0, 4\]"),
        (Image.new("F", (4, 4)), InvalidRequest, "mask holds floating-point pixels"),
        ("/nowhere/mask.png", InvalidRequest, "mask: cannot read /nowhere/mask.png: No such file"),
        (42, TypeError, "mask must be a PIL image, .* not int"),
        (io.StringIO("text"), TypeError, "mask must be .* binary mode, not StringIO"),
    ],
)
def test_what_is_no_picture_is_named(client, picture, error, text):
    if isinstance(picture, np.ndarray) and picture.shape == (3, 4, 4):
        picture = np.zeros((3, 4, 5), np.uint8)
        text = r"not uint8 \[3, 4, 5\]"
    with pytest.raises(error, match=text):
        client.inpaint(png(), picture, "a hat")


# --- outfits -----------------------------------------------------------------------------------------------------


def test_tryon_sends_only_what_is_given(client, fake):
    client.tryon(png(), png((3, 3)))
    assert fake.requests[0].model == "tryon"
    assert set(fake.requests[0].inputs) == {"person", "garment"}


def test_an_outfit_dresses_the_picture_of_the_pass_before(client, fake):
    shirt, trousers, hat = png((2, 2)), png((3, 3)), png((4, 4))
    masks = [png((5, 5)), None, png((6, 6))]
    result = client.tryon(
        png((7, 7)), [shirt, trousers, hat], mask=masks, num_images=2, output_format="webp", seed=3, request_id="r"
    )
    sent = fake.requests
    assert [request.inputs["garment"] for request in sent] == [shirt, trousers, hat]
    assert [request.inputs.get("mask") for request in sent] == masks
    sizes = [Image.open(io.BytesIO(request.inputs["person"])).size for request in sent]
    assert sizes == [(7, 7), (1, 5), (2, 5)]  # the fake's n-th answer is n pixels wide
    assert [request.parameters["num_images"] for request in sent] == [1, 1, 2]
    assert [request.parameters["output_format"] for request in sent] == ["png", "png", "webp"]
    assert [request.id for request in sent] == ["r", "r-2", "r-3"]
    assert [image.size for image in result.images] == [(3, 5)] * 2
    assert result.seeds == [3, 4]


def test_an_outfit_has_one_mask_for_all_and_one_timeout(client, fake):
    client.tryon(png(), (png(), png()), mask=png((9, 9)), timeout=60)
    assert [request.inputs["mask"] for request in fake.requests] == [png((9, 9))] * 2
    first, second = (request.timeout for request in fake.requests)
    assert second < first <= 60


def test_a_mask_from_a_file_object_serves_every_pass_of_an_outfit(client, fake):
    client.tryon(png(), [png(), png()], mask=io.BytesIO(png((7, 7))))
    assert [request.inputs["mask"] for request in fake.requests] == [png((7, 7))] * 2
    read = io.BytesIO(png())
    read.read()
    with pytest.raises(InvalidRequest, match="person: the file object gives nothing"):
        client.tryon(read, png())


def test_outfits_that_do_not_fit_together_are_refused(client):
    with pytest.raises(InvalidRequest, match="garment is an empty list"):
        client.tryon(png(), [])
    with pytest.raises(InvalidRequest, match="2 garments need as many masks, or one for all, not 3"):
        client.tryon(png(), [png(), png()], mask=[png()] * 3)


# --- automatic masks ---------------------------------------------------------------------------------------------


def test_a_mask_is_asked_for_by_category(fake):
    fake.reply = lambda _: {"mask_used": array(png((8, 6))), "info": array(b'{"category": "lower"}')}
    client = Client(transport=fake, timeout=5)
    result = client.mask(png(), "lower", mask_grow=np.int64(3), mask_invert=False, request_id="mine")
    (request,) = fake.requests
    assert (request.model, request.id, request.inputs) == ("mask", "mine", {"person": png()})
    assert request.parameters == {"category": "lower", "mask_grow": 3, "mask_invert": False, "deadline_ms": 5000}
    assert (result.mask_used.mode, result.mask_used.size) == ("L", (8, 6))
    assert (result.category, result.info, result.request_id) == ("lower", {"category": "lower"}, "mine")
    assert result.encoded == png((8, 6))
    client.mask(png(), timeout=0.5, output_format="npy")
    assert fake.requests[1].parameters == {"output_format": "npy", "deadline_ms": 500}


def test_the_keywords_of_a_mask_are_the_contract():
    keywords = inspect.signature(Client.mask).parameters
    for name in TASK_PARAMETERS["mask"]:
        assert keywords[name].annotation == Options.__annotations__[name].__forward_arg__, name
        assert keywords[name].default is None


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"mask_used": None}, "lacks mask_used"),
        ({"info": array(b"{}")}, "cannot be read"),
        ({"info": array(b"[]")}, "cannot be read"),
        ({"mask_used": array(b"junk")}, "cannot be read"),
    ],
)
def test_an_unreadable_mask_is_the_servers_fault(fake, client, outputs, text):
    fake.reply = lambda _: {"mask_used": array(png()), "info": array(b'{"category": "upper"}')} | outputs
    with pytest.raises(ServerError, match=text):
        client.mask(png())


# --- answers -----------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, form: str) -> bytes:
    if form == "npy":
        return npy(np.asarray(image))
    stream = io.BytesIO()
    image.save(stream, "png" if form == "data_url" else form, **({"lossless": True} if form == "webp" else {}))
    if form == "data_url":
        return b"data:image/png;base64," + base64.b64encode(stream.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize("form", PARAMETERS["output_format"].choices)
def test_every_output_format_becomes_a_pil_image(fake, client, form):
    image = Image.new("RGB", (10, 6), (250, 128, 5))
    data = encoded(image, form)
    fake.reply = lambda _: {**answer([data, data], [4, 5], {"warnings": ["cut"], "steps": 3}), "mask_used": array(data)}
    result = client.inpaint(png(), png(), "a hat", output_format=form)
    assert isinstance(result.image, Image.Image)
    assert result.encoded == [data, data]
    assert (result.seeds, result.seed) == ([4, 5], 4)
    assert (result.info["steps"], result.warnings) == (3, ["cut"])
    assert all(type(seed) is int for seed in result.seeds)
    assert result.mask_used.size == (10, 6)
    for got in result.images:
        difference = np.abs(np.asarray(got, dtype=int) - np.asarray(image, dtype=int)).max()
        assert difference <= (3 if form == "jpeg" else 0)


def test_grey_npy_with_one_channel(fake, client):
    fake.reply = lambda _: {**answer([png()], [1]), "mask_used": array(npy(np.full((4, 5, 1), 7, np.uint8)))}
    mask = client.inpaint(png(), png(), "a hat").mask_used
    assert (mask.mode, mask.size, mask.getpixel((0, 0))) == ("L", (5, 4), 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", array(b"junk")),
        ("images", array(png()[:40])),
        ("images", array(npy(np.zeros(3, dtype=object)))),
        ("images", array(b"data:image/png;base64,%%%")),
        ("info", array(b"{")),
        ("mask_used", np.empty((1, 0), dtype=object)),
    ],
)
def test_an_unreadable_answer_is_the_servers_fault(fake, client, name, value):
    fake.reply = lambda _: {**answer([png()], [1]), name: value}
    with pytest.raises(ServerError, match="answer cannot be read") as caught:
        client.inpaint(png(), png(), "a hat", request_id="r1")
    assert caught.value.request_id == "r1"
    assert caught.value.__cause__ is not None


def test_a_missing_output_is_named(fake, client):
    fake.reply = lambda _: {**answer([png()], [1]), "seeds": None}
    with pytest.raises(ServerError, match="lacks seeds"):
        client.inpaint(png(), png(), "a hat")


def test_results_are_frozen(client):
    result = client.inpaint(png(), png(), "a hat")
    with pytest.raises(AttributeError):
        result.seeds = []
    assert json.dumps(result.info) == "{}"


def test_the_client_closes_its_transport(fake):
    with Client(transport=fake) as client:
        assert client.health().ready
    assert fake.closed


def test_all_that_is_promised_is_there():
    for name in dressform.__all__:
        assert hasattr(dressform, name)
