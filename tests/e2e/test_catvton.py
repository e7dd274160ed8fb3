"""CatVTON, exported and served, against an independent torch reference of its loop; weights are random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catvton_reference import CatVTON, write_checkpoint
from dressform import Client
from dressform.errors import DressformError
from dressform_export import export_pipeline, read_manifest
from dressform_server import Server
from e2e.conftest import differences


@pytest.fixture(scope="module")
def checkpoint(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_source, tmp_path_factory.mktemp("catvton") / "mix")


@pytest.fixture(scope="module")
def reference(tiny_source: Path, checkpoint: Path) -> CatVTON:
    return CatVTON(tiny_source, checkpoint)


@pytest.fixture(scope="module")
def repository(tiny_source: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repository") / "catvton"
    export_pipeline(tiny_source, out, tryon=f"catvton={checkpoint}")
    return out


@pytest.fixture(scope="module")
def catvton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        with Client(running.grpc_url, timeout=120) as client:
            yield client


def shaped(photo: Image.Image, height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """A person of the canvas's shape but not its size, and a mask: nothing is cropped or padded on the way."""
    person = photo.resize((width * 3 // 2, height * 3 // 2), Image.Resampling.LANCZOS)
    mask = Image.new("L", person.size, 0)
    mask.paste(255, (person.width // 4, person.height // 3, person.width * 3 // 4, person.height))
    return person, mask


@pytest.mark.parametrize(
    "options",
    [
        {"height": 96, "width": 72, "num_inference_steps": 6, "seed": 3},
        {"height": 64, "width": 48, "num_inference_steps": 20, "seed": 2**33 + 7},
        {"height": 72, "width": 104, "num_inference_steps": 5, "seed": 5, "eta": 0.0},
        {"height": 96, "width": 72, "num_inference_steps": 5, "seed": 6, "guidance_scale": 1.0},
        {"height": 512, "width": 384, "num_inference_steps": 2, "seed": 7},
    ],
    ids=str,
)
def test_picture_equals_catvtons(
    catvton: Client, reference: CatVTON, photo: Image.Image, garment: Image.Image, options: dict[str, Any]
) -> None:
    person, mask = shaped(photo, options["height"], options["width"])
    served = catvton.tryon(person, garment, mask=mask, composite="none", **options)
    close = differences(served.image, reference(person, garment, mask, **options)) <= 1
    assert close.mean() >= 0.999, f"{(~close).mean():.4%} of the values differ by more than 1"


def test_what_the_reference_is_told_matters(reference: CatVTON, photo: Image.Image, garment: Image.Image) -> None:
    """Otherwise equality with it would say little."""
    person, mask = shaped(photo, 96, 72)
    base: dict[str, Any] = {"height": 96, "width": 72, "num_inference_steps": 6, "seed": 3}
    first = reference(person, garment, mask, **base)
    for change in ({"seed": 4}, {"guidance_scale": 1.0}, {"eta": 0.0}):
        assert (differences(first, reference(person, garment, mask, **(base | change))) > 1).mean() > 0.01, change
    other = Image.fromarray(255 - np.asarray(garment))
    assert (differences(first, reference(person, other, mask, **base)) > 1).mean() > 0.01, "the garment changed nothing"


def test_the_checkpoint_matters(
    tiny_source: Path, reference: CatVTON, photo: Image.Image, garment: Image.Image, tmp_path: Path
) -> None:
    other = CatVTON(tiny_source, write_checkpoint(tiny_source, tmp_path / "other", seed=2))
    person, mask = shaped(photo, 96, 72)
    base: dict[str, Any] = {"height": 96, "width": 72, "num_inference_steps": 6, "seed": 3}
    assert (differences(reference(person, garment, mask, **base), other(person, garment, mask, **base)) > 1).any()


def test_its_own_defaults(catvton: Client, repository: Path, photo: Image.Image, garment: Image.Image) -> None:
    manifest = read_manifest(repository)
    assert (manifest.tryon, manifest.text) == ("concat", None)
    assert (manifest.size.height, manifest.size.width) == (64, 48)  # the UNet's height, three quarters of it
    person, mask = shaped(photo, 64, 48)
    plain = catvton.tryon(person, garment, mask=mask, seed=1)
    spelled = catvton.tryon(
        person, garment, mask=mask, seed=1, num_inference_steps=50, solver="ddim", eta=1.0, guidance_scale=2.5
    )
    assert np.array_equal(plain.image, spelled.image)
    assert (plain.info["steps"], plain.info["unet_rows"], plain.warnings) == (50, 100, [])


def test_a_prompt_is_not_ignored_in_silence(catvton: Client, photo: Image.Image, garment: Image.Image) -> None:
    person, mask = shaped(photo, 64, 48)
    answer = catvton.tryon(person, garment, mask=mask, prompt="a red shirt", num_inference_steps=2, seed=1)
    assert answer.warnings == ["the prompt was ignored: this export has no text encoder"]


def test_without_text_there_is_no_inpainting(catvton: Client, photo: Image.Image, repository: Path) -> None:
    assert not [name for name in ("inpaint", "text_encoder", "safety_checker") if (repository / name).exists()]
    assert not (repository / "preprocess" / "tokenizer.json").exists()
    with pytest.raises(DressformError, match="inpaint"):
        catvton.inpaint(photo, Image.new("L", photo.size, 255), "a red shirt")
