"""What int8 is calibrated on: the UNet's inputs of real trajectories, guidance and garments included."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dressform_export import ExportError, read_manifest
from dressform_export.__main__ import main
from dressform_export.calibration import (
    KEPT,
    SAMPLES,
    STEPS,
    Calibration,
    Call,
    called,
    drawn_rows,
    drawn_size,
    requests,
    tasks_of,
    trajectory,
)
from dressform_export.demo.training.data import Example, open_examples, write_folder
from dressform_export.manifest import CalibrationRecord
from dressform_export.progress import Silence
from dressform_export.runner import runner

C = 4


class Drawn:
    """Two examples of 64 × 48: flat colours, a box to repaint."""

    identity = "drawn"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> Example:
        person = np.full((64, 48, 3), 90 + 60 * number, np.uint8)
        mask = np.zeros((64, 48), np.uint8)
        mask[20:50, 10:40] = 255
        garment = np.full((64, 48, 3), 255, np.uint8)
        garment[10:50, 10:40] = (200, 30 + 100 * number, 40)
        return Example(person, garment, mask, (f"a shirt of kind {number}", "a red shirt"), "upper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("examples") / "folder"
    write_folder(Drawn(), made)
    return made


def collected(repository: Path, calibration: Calibration) -> tuple[list[Call], CalibrationRecord]:
    return calibration.collected(read_manifest(repository), repository, Silence())


@pytest.fixture(scope="module")
def tryon_calls(tiny_tryon_repository: Path, folder: Path) -> tuple[list[Call], CalibrationRecord]:
    return collected(tiny_tryon_repository, Calibration(str(folder), samples=15, seed=3))


@pytest.fixture(scope="module")
def tryon_trajectories(tiny_tryon_repository: Path, folder: Path) -> list[list[Call]]:
    """Of six requests, the tasks in turn."""
    manifest = read_manifest(tiny_tryon_repository)
    runners = {leaf: runner(tiny_tryon_repository / manifest.graphs[leaf].file) for leaf in called(manifest)}
    examples = open_examples(str(folder), folder, 64, 48, Silence())
    return [
        trajectory(request, manifest, tiny_tryon_repository, runners)
        for request in islice(requests(examples, manifest, np.random.default_rng(3)), 6)
    ]


def test_rows_are_what_the_graph_takes(
    tiny_tryon_repository: Path, tryon_calls: tuple[list[Call], CalibrationRecord]
) -> None:
    calls, record = tryon_calls
    manifest = read_manifest(tiny_tryon_repository)
    size, text = manifest.size, manifest.text
    assert text is not None
    assert len(calls) == record.samples == 15
    h, w = size.height // manifest.vae.factor, size.width // manifest.vae.factor
    shapes = [{name: values.shape for name, values in call.items()} for call in calls]
    assert {shape["sample"] for shape in shapes} == {(1, 2 * C + 1, h, w), (1, 2 * C + 1, 2 * h, w)}, "both tasks"
    assert {shape["timestep"] for shape in shapes} == {(1,)}
    assert {shape["encoder_hidden_states"] for shape in shapes} == {(1, text.max_length, text.hidden_size)}
    assert {values.dtype for call in calls for values in call.values()} == {np.dtype(np.float32)}
    unet = runner(tiny_tryon_repository / "unet" / "1" / "model.onnx")
    assert np.isfinite(unet(calls[-1])).all()


def test_rows_of_all_times_with_guidance_and_without(tryon_calls: tuple[list[Call], CalibrationRecord]) -> None:
    times = [float(call["timestep"][0]) for call in tryon_calls[0]]
    assert max(times) > 700
    assert min(times) < 300
    below = [call["sample"][0, C + 1 :, call["sample"].shape[2] // 2 :] for call in tryon_calls[0]]
    garments = [part.any() for call, part in zip(tryon_calls[0], below) if call["sample"].shape[2] > 8]
    assert set(garments) == {True, False}


def test_drawn_rows_are_of_different_calls(tryon_trajectories: list[list[Call]]) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for calls in tryon_trajectories:
        rows = drawn_rows(calls, rng)
        times = [float(row["timestep"][0]) for row in rows]
        assert len(rows) == KEPT
        assert times == sorted(set(times), reverse=True)
        for row in rows:
            (call,) = [call for call in calls if call["timestep"][0] == row["timestep"][0]]
            number = next(i for i in (0, 1) if all((call[name][i] == row[name][0]).all() for name in row))
            seen.add(number)
    assert seen == {0, 1}
    assert len(drawn_rows(tryon_trajectories[0][:1], rng)) == 1, "of a trajectory of one step its only one"


def test_rows_are_those_of_guidance(tryon_trajectories: list[list[Call]]) -> None:
    """Row 0 is unconditional: no garment below the person, or the empty prompt; row 1 has them."""
    for call in chain.from_iterable(tryon_trajectories):
        sample, text = call["sample"], call["encoder_hidden_states"]
        h = sample.shape[2]
        if h == 2 * sample.shape[3]:  # a garment lies below the person
            assert not sample[0, C:, h // 2 :].any()
            assert sample[1, C + 1 :, h // 2 :].any()
            assert (text[0] == text[1]).all()
        else:
            assert (sample[0] == sample[1]).all()
            assert (text[0] != text[1]).any()


def test_trajectories_are_whole_and_of_different_lengths(tryon_trajectories: list[list[Call]]) -> None:
    times = [[float(call["timestep"][0]) for call in calls] for calls in tryon_trajectories]
    assert all(STEPS[0] <= len(steps) <= STEPS[1] for steps in times)
    assert len({len(steps) for steps in times}) > 1
    for calls, steps in zip(tryon_trajectories, times):
        assert steps == sorted(set(steps), reverse=True)
        assert steps[0] - steps[-1] > 600, "from noise to picture, in as few as three steps"
        assert all((call["timestep"] == call["timestep"][0]).all() for call in calls)


def test_the_noise_goes_as_the_steps_do(tryon_trajectories: list[list[Call]]) -> None:
    """They are one trajectory's samples, not fresh noise at every timestep."""
    first, second = (call["sample"][1, :C] for call in tryon_trajectories[0][:2])
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.5


def test_the_same_seed_gives_the_same_calls(
    tiny_tryon_repository: Path, folder: Path, tryon_calls: tuple[list[Call], CalibrationRecord]
) -> None:
    again, record = collected(tiny_tryon_repository, Calibration(str(folder), samples=4, seed=3))
    other, _ = collected(tiny_tryon_repository, Calibration(str(folder), samples=4, seed=4))
    assert record.identity == tryon_calls[1].identity
    for one, same, different in zip(tryon_calls[0][:4], again, other, strict=True):
        assert all((one[name] == same[name]).all() for name in one)
        assert one["sample"].shape != different["sample"].shape or (one["sample"] != different["sample"]).any()


def test_an_export_without_tryon_is_calibrated_on_prompts(tiny_repository: Path, folder: Path) -> None:
    manifest = read_manifest(tiny_repository)
    assert tasks_of(manifest) == ("inpaint",)
    examples = open_examples(str(folder), folder, 64, 48, Silence())
    made = list(islice(requests(examples, manifest, np.random.default_rng(0)), 5))
    assert {request.task for request in made} == {"inpaint"}
    assert all(request.prompt for request in made)
    assert len({request.options["seed"] for request in made}) == 5


def test_the_wardrobe_is_drawn_as_it_can_be() -> None:
    assert [drawn_size(height) for height in (512, 500, 64, 8)] == [(512, 384), (480, 360), (64, 48), (64, 48)]


@pytest.mark.parametrize("samples", [0, -1, 1001])
def test_samples_out_of_range_are_refused(samples: int) -> None:
    with pytest.raises(ExportError, match=f"from 1 to 1000 samples, not {samples}"):
        Calibration(samples=samples)


def test_what_is_no_data_ends_before_the_work(
    tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    command = [str(tiny_source), out, "--calibration", "no-such-thing"]
    assert main([*command, "--engine", "openvino-int8"]) == 2
    assert "no-such-thing is neither" in capsys.readouterr().err
    assert main(command) == 2
    assert "calibration is for engine 'openvino-int8'" in capsys.readouterr().err
    assert main([str(tiny_source), out, "--calibration-samples", "0", "--engine", "openvino-int8"]) == 2
    assert "from 1 to 1000 samples, not 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"(default {Calibration.data})" in text
    assert f"(default {SAMPLES})" in text


def test_a_damaged_example_is_named(tiny_repository: Path, folder: Path, tmp_path: Path) -> None:
    write_folder(Drawn(), tmp_path / "damaged")
    Image.new("L", (48, 64)).save(tmp_path / "damaged" / "mask" / "000000.png")
    Image.new("L", (48, 64)).save(tmp_path / "damaged" / "mask" / "000001.png")
    with pytest.raises(ExportError, match=r"mask/00000\d.png is empty: no pixel is white"):
        collected(tiny_repository, Calibration(str(tmp_path / "damaged"), samples=1))
