"""`DressformInpaintPipeline` and the two functions of the prototype speak as their originals did."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform import Cancelled, Client, DressformInpaintPipeline, InvalidRequest
from dressform.testing import FakeTransport

PHOTO, MASK = Image.new("RGB", (40, 30)), Image.new("L", (40, 30), 255)


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport(default_size=(64, 64))


@pytest.fixture
def pipeline(fake: FakeTransport) -> DressformInpaintPipeline:
    return DressformInpaintPipeline(Client(transport=fake))


class Generator:
    """As much of ``torch.Generator`` as is looked at: an engine whose state moves when it is drawn from."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.seed = device, 0
        self.state = np.zeros(2, np.uint8)

    def manual_seed(self, seed: int) -> Generator:
        self.seed = seed
        return self

    def initial_seed(self) -> int:
        return self.seed

    def get_state(self) -> np.ndarray:
        return self.state


def test_the_signature_is_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = inspect.signature(diffusers.StableDiffusionInpaintPipeline.__call__).parameters
    ours = inspect.signature(DressformInpaintPipeline.__call__).parameters
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
        assert ours[name].default == default, name
        assert ours[name].kind == parameter.kind, name


def test_defaults_are_diffusers(pipeline, fake):
    out = pipeline("a hat", PHOTO, MASK)
    assert [image.size for image in out.images] == [(64, 64)]
    assert out.nsfw_content_detected is None
    parameters = dict(fake.requests[0].parameters)
    assert isinstance(parameters.pop("seed"), int)
    assert parameters == {
        "strength": 1.0,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "composite": "none",
        "num_images": 1,
    }


def test_what_is_given_is_sent(pipeline, fake):
    pictures, none = pipeline(
        prompt="a hat",
        image=np.full((30, 40, 3), 0.5),
        mask_image=np.ones((30, 40), np.uint8),
        height=32,
        width=48,
        padding_mask_crop=8,
        strength=0.5,
        num_inference_steps=7,
        guidance_scale=3,
        negative_prompt="torn",
        eta=0.5,
        generator=Generator().manual_seed(9),
        output_type="np",
        return_dict=False,
    )
    assert none is None
    assert (pictures.shape, pictures.dtype) == ((1, 30, 40, 3), np.float32)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    (request,) = fake.requests
    assert request.parameters == {
        "height": 32,
        "width": 48,
        "padding_mask_crop": 8,
        "strength": 0.5,
        "num_inference_steps": 7,
        "guidance_scale": 3,
        "eta": 0.5,
        "composite": "hard",
        "seed": 9,
    }
    assert request.inputs["negative_prompt"] == b"torn"


def test_lists(pipeline, fake):
    seeds = [Generator().manual_seed(seed) for seed in (5, 6, 7, 8)]
    out = pipeline(
        ["a hat", "a coat"], PHOTO, MASK, num_images_per_prompt=2, generator=seeds, negative_prompt=["x", "y"]
    )
    assert len(out.images) == 4
    sent = {(r.inputs["prompt"], r.inputs["negative_prompt"], r.parameters["seed"]) for r in fake.requests}
    assert sent == {(b"a hat", b"x", 5), (b"a hat", b"x", 6), (b"a coat", b"y", 7), (b"a coat", b"y", 8)}
    assert len(pipeline(["a hat", "a coat"], PHOTO, MASK, num_images_per_prompt=2).images) == 4
    assert len(fake.requests) == 4 + 2


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"latents": 1}, "latents: drawn on the server; send a generator"),
        ({"masked_image_latents": 1}, "masked_image_latents"),
        ({"timesteps": [1]}, "timesteps"),
        ({"sigmas": [1.0]}, "sigmas"),
        ({"prompt_embeds": 1}, "prompt_embeds"),
        ({"negative_prompt_embeds": 1}, "negative_prompt_embeds"),
        ({"ip_adapter_image": 1}, "ip_adapter_image"),
        ({"ip_adapter_image_embeds": [1]}, "ip_adapter_image_embeds"),
        ({"cross_attention_kwargs": {}}, "cross_attention_kwargs"),
        ({"clip_skip": 1}, "clip_skip"),
        ({"callback": print}, "callback: gone"),
        ({"nonsense": 1}, "nonsense"),
        ({"output_type": "latent"}, "output_type: 'pil' or 'np' here, not 'latent'"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "callback_on_step_end_tensor_inputs"),
        ({"image": None}, "image and mask_image"),
        ({"image": [PHOTO, PHOTO]}, "image: 2 for 1 prompts"),
        ({"generator": Generator("cuda")}, "generator: on the CPU"),
        ({"generator": Generator(), "num_images_per_prompt": 2}, "generator: 1 for 2 pictures"),
        ({"num_images_per_prompt": 5}, "num_images must be"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(pipeline, given, text):
    with pytest.raises(InvalidRequest, match=text):
        pipeline(**{"prompt": "a hat", "image": PHOTO, "mask_image": MASK, **given})


def test_a_generator_that_was_drawn_from_is_refused(pipeline):
    used = Generator()
    used.state = np.ones(2, np.uint8)
    with pytest.raises(InvalidRequest, match="drawn from already"):
        pipeline("a hat", PHOTO, MASK, generator=used)


def test_torch(pipeline, fake):
    torch = pytest.importorskip("torch")
    pipeline("a hat", PHOTO, MASK, generator=torch.Generator().manual_seed(12))
    assert fake.requests[0].parameters["seed"] == 12
    used = torch.Generator().manual_seed(12)
    torch.randn(1, generator=used)
    with pytest.raises(InvalidRequest, match="drawn from already"):
        pipeline("a hat", PHOTO, MASK, generator=used)
    with pytest.raises(InvalidRequest, match="no tensors"):
        pipeline("a hat", torch.zeros(1, 3, 8, 8), MASK)


def test_callbacks_hear_of_every_step(pipeline, fake):
    fake.step_seconds = 0.01
    told: list[Any] = []
    pipeline("a hat", PHOTO, MASK, num_inference_steps=9, callback_on_step_end=lambda *words: told.append(words) or {})
    assert [step for _, step, _, _ in told] == list(range(9))
    assert {(it, t) for it, _, t, _ in told} == {(pipeline, None)}


@pytest.mark.parametrize(
    ("callback", "error"),
    [
        (lambda pipe, i, t, tensors: tensors["latents"], InvalidRequest),
        (lambda pipe, i, t, tensors: {"latents": 0}, InvalidRequest),
        (lambda pipe, i, t, tensors: 1 / 0, ZeroDivisionError),
    ],
)
def test_a_callback_that_fails_cancels_the_request(pipeline, fake, callback, error):
    fake.step_seconds = 0.02
    with pytest.raises(error):
        pipeline("a hat", PHOTO, MASK, num_inference_steps=150, callback_on_step_end=callback)
    assert fake.cancellations == [fake.requests[0].id]


def test_errors_of_the_server_pass(pipeline, fake):
    fake.fail("CANCELLED")
    with pytest.raises(Cancelled):
        pipeline("a hat", PHOTO, MASK)
