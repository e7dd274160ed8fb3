"""The shipped model through the real server: right pictures, and as true in a crowd as alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dressform import Client
from dressform_export.demo import MODEL
from dressform_export.demo.evaluation import inpaint, tryon
from dressform_export.demo.evaluation.judging import Patterns, region
from dressform_export.demo.wardrobe import HELD_OUT, Sample, sample
from dressform_export.evaluation.colour import mean_difference
from dressform_export.evaluation.serving import Asker
from dressform_export.progress import Silence
from dressform_server import Server
from e2e.conftest import differences
from e2e.crowd import among_strangers
from figures import of

SEED = HELD_OUT + 7000


@pytest.fixture(scope="module")
def demo(demo_server: Server) -> Iterator[Client]:
    """A client of a server of the shipped model."""
    with Client(demo_server.grpc_url, timeout=120) as client:
        yield client


def pixels(image: Any, area: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The colours [N, 3] within ``area``."""
    return np.asarray(np.asarray(image)[area])


@pytest.mark.parametrize("category", ["upper", "lower", "overall"])
def test_a_tryon_without_a_mask_puts_the_garment_on(demo: Client, category: str) -> None:
    nearer = []
    for seed in range(SEED, SEED + 4):
        drawn = sample(seed, category)
        result = demo.tryon(drawn.other_look.image, drawn.flat.image, seed=seed)
        both = region(drawn.look, category) & region(drawn.other_look, category)
        right, wrong = (pixels(look.image, both) for look in (drawn.look, drawn.other_look))
        made = pixels(result.image, both)
        nearer.append(mean_difference(made, right) < mean_difference(made, wrong))
        kept = np.asarray(result.mask_used) < 128
        assert kept[of(drawn.other_look.labels, "Face", "Hair") | drawn.other_look.hands].all()
        assert (result.info["category"], result.info["category_from"]) == (category, "auto")
    assert all(nearer)


def test_an_outfit_leaves_the_first_garment_unharmed(demo: Client) -> None:
    upper, lower = sample(SEED + 20, "upper"), sample(SEED + 21, "lower")
    person = upper.other_look.image
    first = demo.tryon(person, upper.flat.image, seed=1)
    both = demo.tryon(person, [upper.flat.image, lower.flat.image], seed=1)
    torso = region(upper.look, "upper")
    torso[np.flatnonzero(torso.any(1))[-6] :] = False  # the seam between the two may move
    assert np.median(differences(first.image, both.image)[torso]) <= 2
    legs = region(upper.look, "lower")
    made, flat = pixels(both.image, legs), pixels(lower.flat.image, lower.flat.labels > 0)
    assert mean_difference(made, flat) < mean_difference(made, pixels(person, legs))


def test_the_prompt_names_the_colour(demo: Client) -> None:
    drawn = sample(SEED + 30, "upper")
    person, worn = drawn.other_look.image, region(drawn.look, "upper")
    mask = demo.mask(person, category="upper").mask_used
    made = {
        name: pixels(demo.inpaint(person, mask, f"a {name} t-shirt", seed=3).image, worn).mean(0)
        for name in ("red", "green", "blue")
    }
    for channel, name in enumerate(("red", "green", "blue")):
        assert made[name].argmax() == channel, f"{name}: {made[name]}"


def test_sixteen_strangers_do_not_matter_to_it(demo: Client) -> None:
    drawn, others = sample(SEED + 40, "upper"), [sample(SEED + 50 + i) for i in range(4)]

    def run(one: Sample, **options: Any) -> Any:
        return demo.tryon(one.other_look.image, one.flat.image, **options)

    alone = run(drawn, seed=5)
    strangers = [partial(run, others[i % 4], seed=i, num_inference_steps=30) for i in range(16)]
    for crowded in among_strangers(partial(run, drawn, seed=5), strangers):
        assert differences(crowded.image, alone.image).max() <= 1


def test_the_figures_are_of_these_weights() -> None:
    figures = json.loads((MODEL / "evaluation.json").read_text())
    export = figures["export"]
    recorded = export["source"]["sha256"] | {
        f"parser/{name}": value for name, value in export["parser"]["sha256"].items()
    }
    weights = sorted(MODEL.rglob("*.safetensors"))
    found = {path.relative_to(MODEL).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}
    assert found == recorded
    assert sum(path.stat().st_size for path in weights) <= 25_000_000


def test_the_evaluation_reproduces_its_figures(demo: Client) -> None:
    figures = json.loads((MODEL / "evaluation.json").read_text())
    first, asker, patterns = figures["first_seed"], Asker(demo, {}, 4, Silence()), Patterns()
    fitted, _ = tryon.evaluated(asker, range(first, first + 4), given_mask=False, patterns=patterns)
    for found, recorded in zip(fitted["samples"], figures["tryon"]["samples"], strict=False):
        assert found["ssim"] == pytest.approx(recorded["ssim"], abs=0.01)
        assert found["delta_e"] == pytest.approx(recorded["delta_e"], abs=0.3)
        assert found["mask_iou"] == pytest.approx(recorded["mask_iou"], abs=0.005)
        assert found["pattern_seen"] == recorded["pattern_seen"]
    prompted, _ = inpaint.evaluated(asker, range(first, first + 1), patterns=patterns)
    (found,), recorded = prompted["samples"], figures["inpaint"]["samples"][0]
    assert found["prompt"] == recorded["prompt"]
    assert found["result"]["named_share"] == pytest.approx(recorded["result"]["named_share"], abs=0.02)
    assert found["changed"]["delta_e"] == pytest.approx(recorded["changed"]["delta_e"], abs=0.3)
