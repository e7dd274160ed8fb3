"""CatVTON over a pipeline's UNet: what is replaced, what is found where, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from catvton_reference import CatVTON, write_checkpoint
from dressform_export import ExportError
from dressform_export.__main__ import main
from dressform_export.catvton import Attention, open_attention
from dressform_export.graphs import UNetWithoutText
from dressform_export.settings import Settings
from dressform_export.source import TEXT_ENCODER, open_source

FILE = Path("attention") / "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_source, tmp_path_factory.mktemp("catvton") / "mix", dtype=torch.float16)


def test_unet_is_catvtons(tiny_source: Path, checkpoint: Path) -> None:
    source = open_source(str(tiny_source), attention=open_attention(str(checkpoint)))
    leaf = UNetWithoutText(source.dimensions)
    unet, expected = source.load("unet"), CatVTON(tiny_source, checkpoint).unet
    inputs = leaf.example(leaf.probes[1], torch.Generator().manual_seed(0))
    assert sorted(inputs) == ["sample", "timestep"]
    with torch.inference_mode():
        torch.testing.assert_close(leaf.module(unet)(**inputs), expected(*inputs.values(), None).sample)
        own = open_source(str(tiny_source)).load("unet")(*inputs.values(), torch.zeros(2, 77, 32)).sample
    assert (own - leaf.module(unet)(**inputs)).abs().max() > 0.1, "else the checkpoint would not matter"
    assert not [name for name, _ in unet.named_parameters() if ".attn2." in name], "weights that nothing reads"


def test_a_checkpoint_is_found_by_folder_or_file(checkpoint: Path) -> None:
    found = {open_attention(str(path)).file for path in (checkpoint, checkpoint / "attention", checkpoint / FILE)}
    assert found == {checkpoint / FILE}


@pytest.mark.parametrize(
    ("folder", "size"),
    [("mix-48k-1024", (1024, 768)), ("vitonhd-16k-512", (512, 384)), ("mine", (640, 480)), ("mine-2048", (640, 480))],
)
def test_its_folder_says_its_size(checkpoint: Path, tmp_path: Path, folder: str, size: tuple[int, int]) -> None:
    shutil.copytree(checkpoint, tmp_path / folder)
    assert open_attention(str(tmp_path / folder)).settings(640, 8) == Settings("concat", 50, "ddim", 1.0, *size)


def test_text_is_not_needed(tiny_source: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(tiny_source, folder, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    with pytest.raises(ExportError, match="has no text_encoder"):
        open_source(str(folder))
    source = open_source(str(folder), attention=open_attention(str(checkpoint)))
    assert TEXT_ENCODER not in source.components
    assert (source.dimensions.text_length, source.dimensions.text_width, source.dimensions.vocabulary) == (0, 0, 0)
    assert source.settings.tryon == "concat"


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("safety_checker", [False, True])
def test_only_what_is_needed_is_downloaded(
    tiny_source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, other: bool, safety_checker: bool
) -> None:
    asked: list[str] = []

    def download(*_: str, allow_patterns: list[str], **__: object) -> str:
        asked.extend(allow_patterns)
        return str(tiny_source)

    monkeypatch.setattr("dressform_export.source.snapshot_download", download)
    attention = open_attention(str(checkpoint)) if other else None
    open_source("owner/name", attention=attention, safety_checker=safety_checker)
    assert ("text_encoder/*.safetensors" in asked) is not other
    assert ("safety_checker/*.safetensors" in asked) is safety_checker
    assert "unet/*.safetensors" in asked


def _refused(source: Path, checkpoint: Path, sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        open_source(str(source), attention=open_attention(str(checkpoint))).load("unet")


def _changed(checkpoint: Path, folder: Path, drop: str = "", **add: torch.Tensor) -> Path:
    tensors = {name: value for name, value in load_file(checkpoint / FILE).items() if not drop or drop not in name}
    (folder / FILE).parent.mkdir(parents=True)
    save_file(tensors | add, folder / FILE)
    return folder


def test_refused_checkpoints(tiny_source: Path, checkpoint: Path, tmp_path: Path) -> None:
    _refused(tiny_source, tmp_path, r"is no CatVTON checkpoint: it has no attention/model.safetensors")
    _refused(tiny_source, _changed(checkpoint, tmp_path / "a", drop="16."), r"holds 6 self-attentions, .* UNet has 7")
    _refused(tiny_source, _changed(checkpoint, tmp_path / "b", drop="8.to_q"), r"self-attention 8 of .* UNet's is")
    other = {"8.to_q.weight": torch.zeros(3, 3)}
    _refused(tiny_source, _changed(checkpoint, tmp_path / "c", **other), r"'to_q.weight': \(3, 3\)")
    other = {"lora.down": torch.zeros(3)}
    _refused(tiny_source, _changed(checkpoint, tmp_path / "d", **other), r"has lora.down: .* only N.to_q.weight")
    _refused(tiny_source, tmp_path, "holds several checkpoints, name one of them: a, b, c, d")
    cut = _changed(checkpoint, tmp_path / "e") / FILE
    cut.write_bytes(cut.read_bytes()[:-100])
    _refused(tiny_source, tmp_path / "e", "was cut short or damaged")


def test_not_finite(tiny_source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"8.to_q.weight": torch.full_like(load_file(checkpoint / FILE)["8.to_q.weight"], float("nan"))}
    folder = _changed(checkpoint, tmp_path / "nan", **bad)
    assert main([str(tiny_source), str(tmp_path / "out"), "--tryon", f"catvton={folder}"]) == 2
    assert "the pipeline's unet gives values that are not finite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["nan"]


@pytest.mark.parametrize("given", ["catvton", "catvton=", "ip_adapter=x"])
def test_the_option_says_what_it_takes(
    tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    assert main([str(tiny_source), str(tmp_path / "out"), "--tryon", given]) == 2
    assert "--tryon must be catvton=PATH" in capsys.readouterr().err


def test_a_plain_unet_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from dressform_export import build_random_pipeline

    plain = build_random_pipeline("tiny", tmp_path / "plain", in_channels=4)
    with pytest.raises(ExportError, match="CatVTON needs an inpainting UNet of 9 input channels, not 4"):
        open_source(str(plain), attention=Attention("it", checkpoint / FILE))
