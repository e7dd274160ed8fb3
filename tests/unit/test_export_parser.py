"""The parser leaf: transformers' own answers, labels by name, and what is no parser is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from skimage import data
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor
from tritonclient.grpc.model_config_pb2 import ModelConfig

from dressform_contract import LABELS
from dressform_export import ExportError, build_random_pipeline, read_manifest, repository
from dressform_export.engines import chosen
from dressform_export.onnx_file import export_leaf
from dressform_export.parser import Parser, ParserSource, open_parser
from dressform_export.progress import Silence
from dressform_export.runner import runner
from dressform_export.verification import TOLERANCES, Reference, compare, references, verify_graph
from figures import COLOURS, write_colour_parser


@pytest.fixture(scope="module")
def random_parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "pipeline"
    return build_random_pipeline("tiny", folder, parser=True) / "parser"


def exported(source: Path, out: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The graph of the parser in ``source``: pictures [b, k, H, W, 3] → labels."""
    parser = ParserSource(str(source), None, source)
    repository.copy_models(repository.template_folder(), out, ["parser"])
    leaf = Parser(parser)
    record = export_leaf(leaf, leaf.module(parser.load()), out, chosen([]), Silence()).graphs["fp32"]
    assert all(result.difference <= result.tolerance == TOLERANCES["fp32"].labels for result in record.verification)
    height, width = parser.size
    assert record.verification[-1].shapes == {"rows": 1, "count": 2, "height": height // 8, "width": width // 8}
    session = onnxruntime.InferenceSession(str(out / record.file))
    return lambda canvases: session.run(None, {"canvases": canvases})[0]


@pytest.fixture(scope="module")
def random_graph(random_parser: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.ndarray], np.ndarray]:
    return exported(random_parser, tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize("size", [(128, 96), (72, 104), (200, 88)])
def test_labels_are_those_of_transformers(
    random_parser: Path, random_graph: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]
) -> None:
    photo = Image.fromarray(data.astronaut())
    stretched = np.asarray(photo.resize(size[::-1], Image.Resampling.BILINEAR))
    actual = random_graph(np.stack([stretched, stretched[:, ::-1]])[None])
    processor = SegformerImageProcessor.from_pretrained(random_parser)
    model = SegformerForSemanticSegmentation.from_pretrained(random_parser).eval()
    inputs = processor(photo, size={"height": size[0], "width": size[1]}, return_tensors="pt")
    with torch.inference_mode():
        (expected,) = processor.post_process_semantic_segmentation(model(**inputs), [size])
    assert actual.shape == (1, 2, *size)
    assert actual.dtype == np.uint8
    assert len(np.unique(expected)) > 3
    assert (actual[0, 0] != expected.numpy()).mean() <= 1e-3


def test_outputs_are_put_in_the_contracts_order(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(len(LABELS)).tolist()
    graph = exported(write_colour_parser(tmp_path / "parser", (64, 48), order), tmp_path / "out")
    labels = np.random.default_rng(2).integers(0, len(LABELS), (2, 3, 24, 40), np.uint8)
    assert np.array_equal(graph(COLOURS[labels]), labels)


def test_config_and_models(tmp_path: Path, random_parser: Path) -> None:
    """The parser brings ``mask`` with it, and its tensors are the contract between the two."""
    exported(random_parser, tmp_path)
    config = text_format.Parse((tmp_path / "parser" / "config.pbtxt").read_text(), ModelConfig())
    assert [(t.name, list(t.dims)) for t in (*config.input, *config.output)] == [
        ("canvases", [-1, -1, -1, 3]),
        ("labels", [-1, -1, -1]),
    ]
    configs = repository.read_configs(repository.template_folder())
    leaves = ["text_encoder", "vae_encoder", "vae_decoder", "unet"]
    with_parser = repository.models_to_export(configs, [*leaves, "parser"])
    assert set(with_parser) - set(repository.models_to_export(configs, leaves)) == {"mask", "parser"}


def test_the_folder_of_a_pipeline_is_taken_by_itself(random_parser: Path, tmp_path: Path) -> None:
    pipeline = random_parser.parent
    found = open_parser(None, pipeline)
    assert found is not None
    assert (found.folder, found.size) == (random_parser, (128, 96))
    assert open_parser("none", pipeline) is None
    assert open_parser(None, tmp_path) is None
    other = write_colour_parser(tmp_path / "other", (64, 48))
    given = open_parser(str(other), pipeline)
    assert given is not None
    assert given.folder == other
    with pytest.raises(ExportError, match="neither a folder nor a hub id"):
        open_parser("no such thing", pipeline)


def test_the_manifest_records_it(colour_parser_repository: Path, tiny_repository: Path) -> None:
    manifest = read_manifest(colour_parser_repository)
    assert manifest.parser is not None
    assert (manifest.parser.height, manifest.parser.width, manifest.parser.resample) == (128, 96, 2)
    assert set(manifest.parser.sha256) == {"model.safetensors"}
    assert "parser" in manifest.graphs
    manifest.write(colour_parser_repository.parent)
    assert read_manifest(colour_parser_repository.parent) == manifest
    assert read_manifest(tiny_repository).parser is None
    assert not (tiny_repository / "mask").exists()
    assert not (tiny_repository / "parser").exists()


def test_a_hub_id_is_downloaded(random_parser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dressform_export import source

    asked: list[str] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(name)
        assert {"config.json", "preprocessor_config.json", "*.safetensors"} <= set(allow_patterns)
        return str(random_parser)

    monkeypatch.setattr(source, "snapshot_download", download)
    found = open_parser("owner/segformer", Path("/nowhere"))
    assert asked == ["owner/segformer"]
    assert found is not None
    assert (found.id, found.revision) == ("owner/segformer", random_parser.name)


def changed(file: str, **values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        record: dict[str, Any] = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(record))

    return edit


FASHION = {str(n): label for n, label in enumerate(LABELS)} | {"17": "Shawl"}


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (changed("config.json", model_type="mask2former"), "is a mask2former: a segformer is needed"),
        (
            changed("config.json", id2label={"0": "cat", "1": "dog"}),
            "lacks the labels Background, .*has.* cat, dog",
        ),
        (
            changed("config.json", id2label=FASHION),
            r"lacks the labels Scarf and has others, shawl: .*ATR, Back",
        ),
        (changed("preprocessor_config.json", do_resize=False), "must resize pictures .* do_resize False"),
        (changed("preprocessor_config.json", size={"shortest_edge": 512}), "to a height and a width.*shortest_edge"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "is not a safetensors file"),
    ],
)
def test_what_is_no_parser_is_refused(
    random_parser: Path, tmp_path: Path, edit: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(random_parser, tmp_path / "parser")
    edit(tmp_path / "parser")
    with pytest.raises(ExportError, match=re.compile(sentence)):
        _ = ParserSource("the one", None, tmp_path / "parser").parameters


def test_half_precision_weights_are_widened(random_parser: Path, tmp_path: Path) -> None:
    SegformerForSemanticSegmentation.from_pretrained(random_parser).half().save_pretrained(tmp_path / "parser")
    shutil.copy(random_parser / "preprocessor_config.json", tmp_path / "parser")
    loaded = ParserSource("the one", None, tmp_path / "parser").load()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_labels_may_be_written_differently(random_parser: Path, tmp_path: Path) -> None:
    shutil.copytree(random_parser, tmp_path / "parser")
    names = {str(n): label.lower().replace("-", "_") for n, label in enumerate(LABELS)}
    changed("config.json", id2label=names)(tmp_path / "parser")
    assert ParserSource("the one", None, tmp_path / "parser").order == tuple(range(len(LABELS)))


def test_verification_finds_a_changed_weight(random_parser: Path, tmp_path: Path) -> None:
    exported(random_parser, tmp_path)
    parser = ParserSource(str(random_parser), None, random_parser)
    leaf, model = Parser(parser), parser.load()
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(-1)  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match=r"the parser graph in fp32 differs .* by [\d.]+ at .* at most 0\.001"):
        verify_graph(leaf.name, references(leaf, leaf.module(model)), runner(tmp_path / "parser" / "1" / "model.onnx"))


def test_a_thousandth_of_the_labels_may_differ() -> None:
    expected = Reference({}, {}, np.zeros((1, 2000), np.uint8), labels=True)
    actual = expected.expected.copy()
    actual[0, :2] = 17
    assert compare(expected, actual).difference == TOLERANCES["fp32"].labels
    actual[0, 2] = 1
    result = compare(expected, actual)
    assert result.difference > result.tolerance
    assert compare(expected, actual[:, 1:]).difference == float("inf")
