"""The safety checker as a graph, against transformers' preprocessing and diffusers' checker; what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import safety
from dressform_export import ExportError
from dressform_export.engines import chosen
from dressform_export.onnx_file import export_leaf
from dressform_export.progress import Silence
from dressform_export.repository import copy_models, template_folder
from dressform_export.safety import SafetyChecker, _resizing, _to_8_bits, open_safety_checker
from dressform_export.source import open_source
from postprocess.safety import blanked, flagged, warnings

SIZES = [(64, 48), (96, 72), (130, 150), (32, 32), (20, 31), (511, 383)]
"""Height and width: larger than, as large as, and smaller than what the small CLIP sees."""


def pictures(count: int = 6) -> list[Image.Image]:
    """Soft pictures in all colours, and noise."""
    random = np.random.default_rng(1)
    made = []
    for height, width in SIZES:
        for number in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (3 + number, 4, 3), dtype=np.uint8))
            made.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
        made.append(Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)))
    return made


@pytest.fixture(scope="module")
def checker() -> Any:
    made = safety.random_checker()
    concepts, special = safety.cosines(made, pictures())
    made.concept_embeds_weights.data = concepts.quantile(0.97, dim=0)
    made.special_care_embeds_weights.data = special.quantile(0.7, dim=0)
    return made


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_is_pillows(height: int, width: int) -> None:
    picture = next(p for p in pictures() if p.size == (width, height))
    expected = safety.processor()(picture, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0]
    pixels = torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)
    shortest = torch.tensor(min(height, width))
    across, down = (_resizing(size, shortest, safety.SIDE) for size in (width, height))
    actual = _to_8_bits(down @ _to_8_bits(pixels @ across.T)).numpy()
    difference = np.abs(actual - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01  # ties: Pillow's weights are of 22 bits


def test_graph_decides_as_diffusers(checker: Any, tmp_path: Path) -> None:
    import onnxruntime

    leaf = SafetyChecker(safety.processor(), safety.SIDE)
    copy_models(template_folder(), tmp_path, ["safety_checker"])
    record = export_leaf(leaf, leaf.module(checker), tmp_path, chosen([]), Silence()).graphs["fp32"]
    assert len(record.verification) == len(leaf.probes)
    session = onnxruntime.InferenceSession(str(tmp_path / record.file), providers=["CPUExecutionProvider"])
    actual, expected = [], []
    for picture in pictures():
        (scores,) = session.run(None, {"images": np.asarray(picture)[None, None]})
        pixels = safety.processor()(picture, return_tensors="pt").pixel_values
        _, (concept,) = checker(clip_input=pixels, images=[np.asarray(picture)])
        actual += flagged(scores[0])
        expected.append(concept)
    assert actual == expected
    assert 3 <= sum(expected) <= len(expected) - 3, "both outcomes must happen"


def test_special_care_matters(checker: Any) -> None:
    """Otherwise agreement with diffusers would say nothing of it."""
    leaf = SafetyChecker(safety.processor(), safety.SIDE)
    (picture, *_) = [
        p for p in pictures() if (safety.cosines(checker, [p])[1] > checker.special_care_embeds_weights).any()
    ]
    images = torch.from_numpy(np.array(picture))[None, None]
    careful = leaf.module(checker)(images)
    thresholds = checker.special_care_embeds_weights.data.clone()
    checker.special_care_embeds_weights.data.fill_(1.0)
    careless = leaf.module(checker)(images)
    checker.special_care_embeds_weights.data = thresholds
    assert (careful - careless).item() == pytest.approx(0.01, abs=1e-6)


def test_what_a_score_means() -> None:
    assert flagged(np.array([-0.2, 0.0, 0.0004, 0.0006, 0.3], np.float32)) == [False, False, False, True, True]
    white = [np.full((2, 3, 3), 255, np.uint8)] * 2
    kept, black = blanked(white, [False, True])
    assert (kept == 255).all()
    assert (black == 0).all()
    assert black.shape == (2, 3, 3)
    assert warnings([False, False]) == []
    assert [text.split(":")[0] for text in warnings([False, True])] == ["picture 2 of 2 was blanked"]


@pytest.fixture
def source(tiny_source: Path, checker: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(tiny_source, folder, copy_function=os.link)
    safety.add_checker(folder, checker)
    return folder


def test_a_pipeline_with_a_checker_is_exported_with_it(source: Path, tiny_source: Path) -> None:
    assert open_safety_checker(open_source(str(source))) is not None
    assert open_safety_checker(open_source(str(source), safety_checker=False)) is None
    assert open_safety_checker(open_source(str(tiny_source))) is None


def test_checker_without_feature_extractor(source: Path) -> None:
    shutil.rmtree(source / "feature_extractor")
    with pytest.raises(ExportError, match=r"has a safety_checker, but .*preprocessor_config.json is missing"):
        open_safety_checker(open_source(str(source)))


def test_checker_without_weights(source: Path) -> None:
    (source / "safety_checker" / "model.safetensors").unlink()
    with pytest.raises(ExportError, match="has no safetensors weights"):
        open_source(str(source))


def test_sizes_as_older_pipelines_have_them(source: Path) -> None:
    path = source / "feature_extractor" / "preprocessor_config.json"
    record = json.loads(path.read_text()) | {"size": safety.SIDE, "crop_size": safety.SIDE}
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "do_rescale"}))
    assert open_safety_checker(open_source(str(source))) is not None


def test_another_preprocessing(source: Path) -> None:
    path = source / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resample": 2}))
    with pytest.raises(ExportError, match="must say resample 3 for this safety_checker, not 2"):
        open_safety_checker(open_source(str(source)))
