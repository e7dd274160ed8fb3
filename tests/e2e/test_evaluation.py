"""The evaluation command through the real Triton, on a tiny random pipeline: what it asks for, writes and repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dressform_export.__main__ import main
from dressform_export.demo.wardrobe import HELD_OUT, sample
from dressform_server import Server

STEPS = ("--set", "num_inference_steps=2")


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def wardrobe(server: Server, repository: Path, out: Path, *words: object) -> dict:
    common = ("--url", server.grpc_url, "--repository", repository, "--out", out, "--mask", "given", *STEPS)
    assert evaluate("wardrobe", *common, *words) == 0
    return json.loads((out / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def report(server: Server, tiny_tryon_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("evaluation")
    return wardrobe(server, tiny_tryon_repository, out, "--seeds", 5, "--prompts", 3), out


def test_held_out_samples_are_judged_beside_their_controls(report: tuple[dict, Path]) -> None:
    found, out = report
    assert found["held_out"] is True
    assert found["settings"] == {"num_inference_steps": 2}
    assert found["tryon"]["served"]["num_inference_steps"] == 2
    assert found["composite"] == "soft"
    assert [row["seed"] for row in found["tryon"]["samples"]] == list(range(HELD_OUT, HELD_OUT + 5))
    summary = found["tryon"]["summary"]
    assert set(summary["ssim"]) == {"result", "grey", "wrong"}
    assert summary["ssim"]["result"] < summary["ssim"]["wrong"], "random weights paint noise"
    assert summary["mask_iou"]["all"] == 1, "the mask was given"
    assert summary["protected_covered"]["worst"] == 0
    assert found["inpaint"]["summary"]["truth"]["colour_dominates"] == 1
    assert found["inpaint"]["summary"]["result"]["colours_present"] < 1
    assert list(found["inpaint"]["summary"]["guidance_scale"]["by_scale"]) == ["1", "3", "7.5", "12"]
    assert set(found["inpaint"]["summary"]["negative_prompt"]["share_of_dominant_colour"]) == {
        "none",
        "named",
        "unrelated",
    }
    for name in ("tryon", "inpaint"):
        assert Image.open(out / f"{name}.png").height > 384


def test_a_picture_of_the_processing_size_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--url", server.grpc_url, "--out", tmp_path, "--mask", "given", "--seeds", 1, "--prompts", 0, *STEPS)
    assert evaluate("wardrobe", *words, "--set", "composite=none") == 2
    assert "the server's picture is 64 × 64, the one sent 128 × 96" in capsys.readouterr().err


def test_a_few_seeds_give_again_what_the_report_says(
    report: tuple[dict, Path], server: Server, tiny_tryon_repository: Path, tmp_path: Path
) -> None:
    words = ("--seeds", 2, "--prompts", 0, "--first", HELD_OUT + 3, "--in-flight", 1)
    again = wardrobe(server, tiny_tryon_repository, tmp_path, *words)
    assert "inpaint" not in again
    for row, known in zip(again["tryon"]["samples"], report[0]["tryon"]["samples"][3:], strict=True):
        assert row["seed"] == known["seed"]
        for measure in ("ssim", "psnr", "delta_e"):  # a batch-mate may move a value by 1 of 255
            assert row[measure] == pytest.approx(known[measure], rel=1e-2, abs=1e-2)
    assert again["export"] == report[0]["export"]


def test_an_export_that_has_no_parser_says_so(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("wardrobe", "--url", server.grpc_url, "--out", tmp_path, "--seeds", 1, "--prompts", 0) == 2
    assert "mask" in capsys.readouterr().err
    assert not (tmp_path / "evaluation.json").exists()


@pytest.fixture
def dresscode(tmp_path: Path) -> Path:
    """Held-out samples as a DressCode folder, with label maps: two upper garments and a dress."""
    root = tmp_path / "DressCode"
    for part, category, seeds in (("upper_body", "upper", (1, 2)), ("dresses", "overall", (3,))):
        for folder in ("images", "label_maps"):
            (root / part / folder).mkdir(parents=True)
        lines = []
        for seed in seeds:
            one, stem = sample(HELD_OUT + seed, category), f"00000{seed}"
            Image.fromarray(one.look.image).save(root / part / "images" / f"{stem}_0.jpg", quality=95)
            Image.fromarray(one.flat.image).save(root / part / "images" / f"{stem}_1.jpg", quality=95)
            Image.fromarray(one.look.labels).save(root / part / "label_maps" / f"{stem}_4.png")
            lines.append(f"{stem}_0.jpg {stem}_1.jpg")
        (root / part / "test_pairs_paired.txt").write_text("\n".join(lines))
    return root


def test_a_data_set_is_served_and_judged_with_masks_of_its_labels(
    dresscode: Path, tiny_tryon_repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--repository", tiny_tryon_repository, "--out", out, "--mask", "labels", "--set", "composite=hard", *STEPS)
    parts = ("--category", "upper", "--category", "overall")
    assert evaluate("dresscode", dresscode, *words, *parts) == 0  # a server of its own
    found = json.loads((out / "evaluation.json").read_text())
    assert found["composite"] == "hard"
    assert found["metrics"]["mae_outside_mask"] == 0
    assert found["metrics"]["ssim_in_mask"] < found["metrics"]["ssim"]
    assert set(found["control_grey"]) == set(found["metrics"]) - {"fid", "kid"}
    assert [row["name"] for row in found["samples"]] == [
        "upper_body/000001_0",
        "upper_body/000002_0",
        "dresses/000003_0",
    ]
    mask = np.asarray(Image.open(out / "masks/dresses/000003_0.png")) > 0
    np.testing.assert_array_equal(mask, sample(HELD_OUT + 3, "overall").mask() > 0)

    # What was served is what a later comparison of the files finds, but for the masks: the data set has none.
    again = tmp_path / "again"
    assert evaluate("dresscode", dresscode, "--predictions", out / "predictions", "--out", again, *parts) == 0
    metrics = json.loads((again / "evaluation.json").read_text())["metrics"]
    assert metrics == {name: found["metrics"][name] for name in metrics}
    assert set(metrics) >= {"ssim", "psnr"}


def test_an_engine_of_the_export_is_served_and_recorded(engines_repository: Path, tmp_path: Path) -> None:
    words = ("wardrobe", "--repository", engines_repository, "--mask", "given", "--seeds", 1, "--prompts", 0, *STEPS)
    assert evaluate(*words, "--engine", "onnxruntime-fp16", "--out", tmp_path / "fp16") == 0
    export = json.loads((tmp_path / "fp16/evaluation.json").read_text())["export"]
    manifest = json.loads((engines_repository / "manifest.json").read_text())
    assert (export["engine"], export["precision"]) == ("onnxruntime-fp16", "fp16")
    assert export["graphs"]["unet"] == manifest["engines"]["onnxruntime-fp16"]["graphs"]["unet"]["sha256"]
    log = (tmp_path / "fp16/triton.log").read_text()
    assert "onnxruntime-fp16" in log or "model.fp16" in log
    assert evaluate(*words, "--engine", "tensorrt", "--out", tmp_path / "none") == 2
