"""What cannot be exported ends in one sentence, exit code 2, and no OUT, whole or half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dressform_export import ExportError, exporter, onnx_file, read_manifest, source
from dressform_export.__main__ import main
from dressform_export.graphs import UNet
from dressform_export.scheduler import SOLVER_OF_SCHEDULER, checked_scheduler, solver_of
from dressform_export.settings import Settings
from dressform_export.verification import references

Edit = Callable[[Path], None]


def change(file: str, **values: object) -> Edit:
    """An edit that sets keys of a JSON file; the value ``...`` removes the key."""

    def edit(folder: Path) -> None:
        path = folder / file
        record: dict[str, Any] = json.loads(path.read_text()) | values
        path.unlink()  # the copy is made of hard links
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))

    return edit


def remove(name: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def overwrite(file: str, content: bytes) -> Edit:
    def edit(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).write_bytes(content)

    return edit


def truncate(file: str) -> Edit:
    return lambda folder: overwrite(file, (folder / file).read_bytes()[:-1000])(folder)


def drop_tensor(file: str, name: str) -> Edit:
    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / file)
        del tensors[name]
        (folder / file).unlink()
        save_file(tensors, folder / file, metadata={"format": "pt"})

    return edit


UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"

REFUSED: list[tuple[Edit, str]] = [
    (remove("model_index.json"), "is not a diffusers pipeline: it has no model_index.json"),
    (overwrite("model_index.json", b"{"), "model_index.json is not JSON"),
    (remove("vae"), "has no vae: the folder vae is missing"),
    (remove("tokenizer"), "has no tokenizer: the folder tokenizer is missing"),
    (remove("unet/config.json"), "has no unet: unet/config.json is missing"),
    (remove(UNET_WEIGHTS), "has no safetensors weights"),
    (truncate(UNET_WEIGHTS), "bytes where its header says .*: it was cut short or damaged"),
    (overwrite(UNET_WEIGHTS, b"junk"), "is not a safetensors file"),
    (change("unet/config.json", in_channels=8), r"has 8 input channels, and only 9 \(inpainting.*\) and 4"),
    (change("unet/config.json", time_cond_proj_dim=256), "has time_cond_proj_dim 256: extra conditioning"),
    (change("unet/config.json", num_class_embeds=10), "has num_class_embeds 10: extra conditioning"),
    (change("unet/config.json", addition_embed_type="text_time"), "has addition_embed_type 'text_time'"),
    (change("unet/config.json", cross_attention_dim=64), "cross_attention_dim is 64, but .* hidden_size is 32"),
    (change("model_index.json", text_encoder_2=["transformers", "CLIPTextModel"]), "has a text_encoder_2, and only"),
    (change("model_index.json", text_encoder=["transformers", "T5EncoderModel"]), "text_encoder is T5EncoderModel"),
    (change(SCHEDULER, _class_name="HeunDiscreteScheduler"), "scheduler is HeunDiscreteScheduler, .* DDIMScheduler"),
    (change(SCHEDULER, clip_sample=True), "has clip_sample on"),
    (change(SCHEDULER, thresholding=True), "has thresholding on"),
    (change(SCHEDULER, rescale_betas_zero_snr=True), "has rescale_betas_zero_snr on with prediction_type epsilon"),
    (change(SCHEDULER, prediction_type="sample"), "prediction_type is 'sample'"),
    (change("dressform.json", colour="red"), "dressform.json has colour, and only these keys are known"),
    (change("dressform.json", tryon="magic"), "tryon must be one of none, concat, not 'magic'"),
    (change("dressform.json", num_inference_steps=True), "num_inference_steps must be an integer from 1 to 150"),
    (change("dressform.json", height=100), "height must be a multiple of the VAE factor 8, not 100"),
]


@pytest.fixture
def edited(tiny_source: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """A copy of the tiny pipeline with one edit."""

    def make(edit: Edit) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(tiny_source, folder, copy_function=os.link)
        edit(folder)
        return folder

    return make


@pytest.mark.parametrize(("edit", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_refused_source(
    edited: Callable[[Edit], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], edit: Edit, sentence: str
) -> None:
    assert main([str(edited(edit)), str(tmp_path / "out")]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.match(f"dressform-export: .*{sentence}", last), last
    assert [path.name for path in tmp_path.iterdir()] == ["edited"]


def test_missing_tensor(edited: Callable[[Edit], Path]) -> None:
    damaged = source.open_source(str(edited(drop_tensor(UNET_WEIGHTS, "conv_out.bias"))))
    with pytest.raises(ExportError, match=r"the weights in .*unet lack conv_out.bias \(1 in all\)"):
        damaged.load("unet")


def test_neither_folder_nor_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is neither a folder nor a hub id such as owner/name"):
        exporter.export_pipeline("no such thing", tmp_path / "out")


def test_revision_of_a_folder(tiny_source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is for hub ids"):
        exporter.export_pipeline(tiny_source, tmp_path / "out", revision="main")


def test_hub_id_is_downloaded_at_its_revision(tiny_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str | None]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        calls.append((name, revision))
        assert "unet/*.safetensors" in allow_patterns
        return str(tiny_source)

    monkeypatch.setattr(source, "snapshot_download", download)
    found = source.open_source("owner/name", "v1")
    assert calls == [("owner/name", "v1")]
    assert (found.id, found.revision) == ("owner/name", tiny_source.name)


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr(source, "snapshot_download", download)
    with pytest.raises(ExportError, match=r"owner/name .* could not be had from the hub: no route to host$"):
        source.open_source("owner/name")


def test_no_room_on_the_disk(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(exporter.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ExportError, match=r"needs 0\.1 GB in .*, and 0\.0 GB are free"):
        exporter.export_pipeline(tiny_source, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ExportError("a difference"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_nothing_stays_of_an_export_that_fails(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out.")], "the failure comes in mid-export"
        raise error

    monkeypatch.setattr(onnx_file, "verify_graph", fail)
    code = main([str(tiny_source), str(tmp_path / "out")])
    assert code == 2
    assert not list(tmp_path.iterdir())


def test_occupied_out(tiny_source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    for force in (False, True):
        with pytest.raises(ExportError, match="exists already"):
            exporter.export_pipeline(tiny_source, tmp_path / "out", force=force)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"


def test_force_replaces_an_export_but_only_with_a_good_one(
    edited: Callable[[Edit], Path],
    tiny_source: Path,
    tiny_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(tiny_repository, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "verify_graph", lambda *_: (_ for _ in ()).throw(ExportError("no")))
        assert main([str(tiny_source), str(tmp_path / "out"), "--force"]) == 2
    assert read_manifest(tmp_path / "out").tryon == "none"
    exporter.export_pipeline(edited(change("dressform.json", tryon="concat")), tmp_path / "out", force=True)
    assert read_manifest(tmp_path / "out").tryon == "concat"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited", "out"]


def test_missing_clip_sample_is_written_as_false() -> None:
    config = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}
    written, warnings = checked_scheduler(config)
    assert written["clip_sample"] is False
    assert len(warnings) == 1
    assert "clip_sample" in warnings[0]
    assert checked_scheduler(written) == (written, ())


def test_warnings_reach_the_manifest(edited: Callable[[Edit], Path], tmp_path: Path) -> None:
    def edit(folder: Path) -> None:
        change("model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])(folder)
        change(SCHEDULER, clip_sample=...)(folder)

    exporter.export_pipeline(edited(edit), tmp_path / "out", safety_checker=False)
    clip_sample, safety_checker = read_manifest(tmp_path / "out").warnings
    assert "clip_sample" in clip_sample
    assert "safety_checker is left out" in safety_checker
    assert json.loads((tmp_path / "out" / "denoise" / "scheduler_config.json").read_text())["clip_sample"] is False


def test_weights_that_are_not_finite(tiny_source: Path) -> None:
    pipeline = source.open_source(str(tiny_source))
    leaf, model = UNet(pipeline.dimensions), pipeline.load("unet")
    model.conv_out.bias[0] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(ExportError, match="the pipeline's unet gives values that are not finite"):
        references(leaf, leaf.module(model))


def test_zero_snr_is_fine_with_v_prediction() -> None:
    config = {
        "_class_name": "DDIMScheduler",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "clip_sample": False,
    }
    assert checked_scheduler(config) == (config, ())


def test_solver_by_scheduler() -> None:
    assert {solver_of({"_class_name": name}) for name in SOLVER_OF_SCHEDULER} == set(SOLVER_OF_SCHEDULER.values())
    assert solver_of({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}) == "dpmpp_2m_karras"


def test_settings_default_to_the_pipeline() -> None:
    assert Settings() == Settings("none", 30, None, 0.0, None, None)
