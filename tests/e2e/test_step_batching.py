"""Jobs of all kinds share each UNet call, join at the next step, leave when they are done, and do not notice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from dressform import Client
from e2e.conftest import differences
from e2e.crowd import among_strangers, largest_batch

MIXED: list[dict[str, Any]] = [
    {"num_inference_steps": 4, "solver": "ddim", "guidance_scale": 1.0, "seed": 1},
    {"num_inference_steps": 7, "solver": "euler", "guidance_scale": 7.5, "seed": 2},
    {"num_inference_steps": 9, "solver": "dpmpp_2m", "guidance_scale": 3.0, "seed": 3},
    {"num_inference_steps": 12, "solver": "unipc", "guidance_scale": 7.5, "seed": 4},
    {"num_inference_steps": 14, "solver": "ddim", "eta": 1.0, "guidance_scale": 5.0, "seed": 5},
    {"num_inference_steps": 16, "solver": "pndm", "strength": 0.5, "seed": 6},
    {"num_inference_steps": 18, "solver": "euler_ancestral", "guidance_scale": 0.0, "seed": 7},
    {"num_inference_steps": 20, "solver": "dpmpp_2m_karras", "num_images": 2, "seed": 8},
]

ROUNDS = 10
"""At most this often the mixed jobs are sent together: how many of them meet in a step is the machine's affair."""


def test_mixed_jobs_share_batches_and_keep_their_pictures(
    grpc_client: Client, photo: Image.Image, mask: Image.Image
) -> None:
    def run(options: dict[str, Any]) -> Any:
        return grpc_client.inpaint(photo, mask, f"prompt {options['seed']}", **options)

    alone = [run(options) for options in MIXED]
    assert all(set(result.info["batch_sizes"]) == {1} for result in alone)
    largest = 0
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(len(MIXED)) as pool:
            together = list(pool.map(run, MIXED))
        for options, one, many in zip(MIXED, alone, together):
            for a, b in zip(one.images, many.images):
                apart = differences(a, b)
                assert apart.max() <= 1, f"{options}: {apart.max()}"
                assert (apart > 0).mean() <= 0.001, f"{options}: {(apart > 0).mean():.3%} of the values differ"
        largest = max(map(largest_batch, together))
        if largest >= 4:
            break
    assert largest >= 4


def test_sixteen_strangers_do_not_matter(grpc_client: Client, photo: Image.Image, mask: Image.Image) -> None:
    """The same request alone, coming with 16 others, and joining them in their midst."""

    def run(seed: int, **options: Any) -> Any:
        return grpc_client.inpaint(photo, mask, f"prompt {seed}", seed=seed, **options)

    one: dict[str, Any] = {"num_inference_steps": 10, "solver": "euler_ancestral", "guidance_scale": 6.0}
    alone = run(1, **one)
    solvers: list[Any] = ["ddim", "euler", "unipc", "pndm"]
    strangers = [partial(run, 100 + i, num_inference_steps=80, solver=solvers[i % 4]) for i in range(16)]
    for crowded in among_strangers(partial(run, 1, **one), strangers):
        apart = differences(crowded.image, alone.image)
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 0.001


def test_a_late_short_request_overtakes_a_long_one(grpc_client: Client, photo: Image.Image, mask: Image.Image) -> None:
    size = {"height": 128, "width": 128}
    long = grpc_client.submit_inpaint(photo, mask, "long", num_inference_steps=150, num_images=4, seed=1, **size)
    next(news for news in long.progress() if news.step > 0)
    short = grpc_client.inpaint(photo, mask, "short", num_inference_steps=4, seed=1, **size)
    assert not long.done()
    assert 2 in short.info["batch_sizes"], "the short request waited for the long one to end"
    assert len(long.result().info["batch_sizes"]) == 150


def test_sizes_and_tasks_may_mix(
    grpc_client: Client, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    common: dict[str, Any] = {"num_inference_steps": 8, "seed": 3}
    calls = [
        lambda: grpc_client.inpaint(photo, mask, "a", height=64, width=64, **common),
        lambda: grpc_client.inpaint(photo, mask, "b", height=72, width=104, **common),
        lambda: grpc_client.tryon(photo, garment, mask=mask, **common),
        lambda: grpc_client.tryon(photo, garment, mask=mask, strength=0.7, **common),
    ]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        together = [future.result() for future in [pool.submit(call) for call in calls * 2]]
    for one, many in zip(alone * 2, together):
        assert differences(one.image, many.image).max() <= 1


def test_info_tells_the_story(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    info = client.inpaint(photo, mask, "a", num_inference_steps=10, strength=0.5, solver="euler").info
    assert (info["solver"], info["num_inference_steps"], info["steps"]) == ("euler", 10, 5)
    assert len(info["batch_sizes"]) == 5
    assert info["unet_rows"] == 10  # guidance doubles them
    half = client.inpaint(photo, mask, "a", num_inference_steps=10, guidance_end=0.5).info
    assert half["unet_rows"] == 15
    stages = info["milliseconds"]
    assert set(stages) == {"preprocess", "encode", "wait", "denoise", "decode", "postprocess", "total"}
    parts = sum(value for name, value in stages.items() if name != "total")
    assert 0 < parts <= stages["total"] + 1
