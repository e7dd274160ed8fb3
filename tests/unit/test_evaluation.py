"""Metrics against hand-computed values and skimage, data sets on disk, and the command on existing predictions."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from skimage.metrics import structural_similarity

from dressform_export.__main__ import main
from dressform_export.evaluation import colour, layouts, perceptual, record, serving, similarity
from dressform_export.evaluation.comparison import figures, with_hole
from dressform_export.evaluation.dataset import check_masks
from dressform_export.evaluation.errors import EvaluationError, NotComputedError
from dressform_export.evaluation.layouts import Case, pictures_by_name
from dressform_export.evaluation.sheet import Row, contact_sheet, hole_shown
from dressform_export.evaluation.sizing import Pair, Sizing
from dressform_export.fidelity import PSNR_CEILING

RED, GREEN, WHITE = (206, 38, 46), (40, 150, 70), (244, 242, 238)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(rng: np.random.Generator, height: int = 40, width: int = 32) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


class TestSimilarity:
    def test_the_ssim_map_is_skimages_inside_and_its_mean_is_over_all_pixels(self, rng: np.random.Generator) -> None:
        a = noise(rng)
        b = np.clip(a + rng.normal(0, 40, a.shape), 0, 255).astype(np.uint8)
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        _, reference = structural_similarity(a, b, channel_axis=2, full=True, **settings)
        made, r = similarity.ssim_map(a, b), similarity.SSIM_RADIUS
        np.testing.assert_allclose(made[r:-r, r:-r], reference.mean(2)[r:-r, r:-r], atol=1e-4)
        assert similarity.ssim(a, b) == pytest.approx(float(made.mean()), abs=1e-6)

    def test_inside_a_mask_only_its_pixels_count(self, rng: np.random.Generator) -> None:
        a = noise(rng)
        b = a.copy()
        b[:20, :16] = 255 - b[:20, :16]
        mask = np.zeros(a.shape[:2], bool)
        mask[26:, 22:] = True  # further than the window reaches from what differs
        assert similarity.ssim(a, b, mask) == pytest.approx(1, abs=1e-6)
        assert similarity.psnr(a, b, mask) == PSNR_CEILING
        assert similarity.ssim(a, b) < 0.9
        assert similarity.psnr(a, b, ~mask) < similarity.psnr(a, b)

    def test_psnr_by_hand(self) -> None:
        black = np.zeros((8, 8, 3), np.uint8)
        assert similarity.psnr(black, black + np.uint8(255)) == 0
        assert similarity.psnr(black, black + np.uint8(51)) == pytest.approx(10 * np.log10(25))
        half = black.copy()
        half[:4] = 255
        assert similarity.psnr(black, half) == pytest.approx(10 * np.log10(2))

    def test_iou_covered_and_mean_absolute_difference_by_hand(self) -> None:
        a, b, none = np.zeros((3, 4), bool), np.zeros((3, 4), bool), np.zeros((3, 4), bool)
        a[:, :3], b[:, 1:] = True, True
        assert similarity.iou(a, b) == pytest.approx(6 / 12)
        assert similarity.iou(none, none) == 1
        assert similarity.covered(a, b) == pytest.approx(6 / 9)
        assert similarity.covered(a, none) == 0
        dark = np.zeros((3, 4, 3), np.uint8)
        assert similarity.mean_absolute_difference(dark, dark + np.uint8(200), a) == 200
        assert similarity.mean_absolute_difference(dark, dark + np.uint8(200), none) == 0

    def test_what_cannot_be_compared_is_refused(self, rng: np.random.Generator) -> None:
        a = noise(rng)
        with pytest.raises(ValueError, match="differ in size: 40 × 32 and 39 × 32"):
            similarity.psnr(a, a[1:])
        with pytest.raises(ValueError, match="the mask is empty"):
            similarity.ssim(a, a, np.zeros(a.shape[:2], bool))
        with pytest.raises(ValueError, match="the mask is 40 × 31, the pictures are 40 × 32"):
            similarity.psnr(a, a, np.ones((40, 31), bool))
        with pytest.raises(ValueError, match="sides above 5 pixels, not 5 × 32"):
            similarity.ssim(a[:5], a[:5])

    def test_a_grey_hole_is_far_from_the_truth_and_the_rest_untouched(self, rng: np.random.Generator) -> None:
        truth = noise(rng)
        mask = np.zeros(truth.shape[:2], bool)
        mask[10:30, 8:24] = True
        grey = figures(truth, with_hole(truth, mask), mask, None)
        same = figures(truth, truth, mask, None)
        assert grey["ssim_in_mask"] < 0.2 < same["ssim_in_mask"] == pytest.approx(1, abs=1e-6)
        assert grey["psnr_in_mask"] < grey["psnr"] < same["psnr"]
        assert grey["mae_outside_mask"] == 0


class TestColour:
    @pytest.mark.parametrize("difference", [colour.mean_difference, colour.pixel_difference])
    def test_differences_of_a_published_pair(
        self, difference: Callable[[object, object], float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Sharma et al. 2005, table 1, pair 1: L*a*b* (50, 2.6772, -79.7751) and (50, 0, -82.7485) differ by 2.0425.
        monkeypatch.setattr(colour, "lab", lambda values: values)  # no colour of 8 bits is one of the pair
        pair = np.array([[50, 2.6772, -79.7751]]), np.array([[50, 0, -82.7485]])
        assert difference(*pair) == pytest.approx(2.0425, abs=1e-4)

    def test_the_mean_colour_is_compared_whatever_the_order_of_pixels(self, rng: np.random.Generator) -> None:
        pixels = noise(rng).reshape(-1, 3)
        assert colour.mean_difference(pixels, rng.permutation(pixels)) == pytest.approx(0, abs=1e-9)
        assert colour.pixel_difference(pixels, rng.permutation(pixels)) > 20
        black, white = np.zeros((4, 3), np.uint8), np.full((9, 3), 255, np.uint8)
        assert colour.mean_difference(black, white) == pytest.approx(100, abs=1e-3)

    def test_chroma_of_greys_is_0_and_of_colours_is_not(self) -> None:
        assert colour.chroma(np.array([[0, 0, 0], [128, 128, 128]], np.uint8)) == pytest.approx(0, abs=0.01)
        assert colour.chroma(np.array([[255, 0, 0]], np.uint8)) == pytest.approx(104.55, abs=0.05)

    def test_each_pixel_goes_to_the_nearest_name(self) -> None:
        pixels = np.array([RED, RED, (180, 30, 40), GREEN], np.uint8)
        assert colour.shares(pixels, {"red": RED, "green": GREEN, "white": WHITE}) == {
            "red": 0.75,
            "green": 0.25,
            "white": 0,
        }


class Features(torch.nn.Module):
    """A feature network in the shape of the TorchScript Inception: mean colours of the quarters, from -1 to 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Features()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / perceptual.INCEPTION
    torch.jit.script(Network()).save(str(path))
    return path


class TestPerceptual:
    def test_features_see_pictures_of_any_size_resized_and_scaled(self, network: Path) -> None:
        plain = [np.full((10 * i, 7 * i, 3), (0, 128, 255), np.uint8) for i in range(1, 20)]
        found = perceptual.Inception(network).features(iter(plain), batch=4)
        assert found.shape == (19, 12)
        np.testing.assert_allclose(found.reshape(19, 3, 4).mean((0, 2)), [-1, 0, 127 / 128], atol=1e-5)

    def test_frechet_and_kernel_distance_by_hand(self, rng: np.random.Generator) -> None:
        real, fake = rng.normal(0, 1, (40, 5)), rng.normal(0.5, 2, (30, 5))
        fid, _ = perceptual.frechet_and_kernel_distance(torch.tensor(real), torch.tensor(fake))
        covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
        shift = real.mean(0) - fake.mean(0)
        expected = shift @ shift + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)
        assert fid == pytest.approx(expected, rel=1e-5)

        real = real[:30]  # equal numbers: every subset holds all
        _, kid = perceptual.frechet_and_kernel_distance(torch.tensor(real), torch.tensor(fake))
        kernel = lambda x, y: (x @ y.T / 5 + 1) ** 3  # noqa: E731
        off = ~np.eye(30, dtype=bool)
        expected = kernel(real, real)[off].mean() + kernel(fake, fake)[off].mean() - 2 * kernel(real, fake).mean()
        assert kid == pytest.approx(expected, rel=1e-5)

    def test_one_picture_is_no_distribution(self) -> None:
        with pytest.raises(NotComputedError, match="at least 2 pictures a side, not 1 and 5"):
            perceptual.frechet_and_kernel_distance(torch.zeros(1, 4), torch.zeros(5, 4))

    def test_weights_that_are_not_there_are_a_reason(self, tmp_path: Path) -> None:
        with pytest.raises(NotComputedError, match=r"not at .*nothing\.pt \(--inception names another place\)"):
            perceptual.Inception(tmp_path / "nothing.pt")

    @pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
    def test_lpips_without_its_backbone_is_a_reason(self) -> None:
        with pytest.raises(NotComputedError, match="torchvision, which has LPIPS' backbone, is not installed"):
            perceptual.lpips()


def written(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


@pytest.fixture
def viton_hd(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three persons and garments in VITON-HD's layout."""
    root, names = tmp_path / "zalando", ["00001_00", "00002_00", "00003_00"]
    mask = np.zeros((40, 32), np.uint8)
    mask[10:30, 8:24] = 255
    for name in names:
        written(root / "test/image" / f"{name}.jpg", noise(rng))
        written(root / "test/cloth" / f"{name}.jpg", noise(rng))
        written(root / "test/agnostic-mask" / f"{name}_mask.png", mask)
    others = [*names[1:], names[0]]
    (root / "test_pairs.txt").write_text("".join(f"{a}.jpg {b}.jpg\n" for a, b in zip(names, others, strict=True)))
    return root


@pytest.fixture
def dresscode(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two persons and garments for each category in DressCode's layout."""
    root = tmp_path / "DressCode"
    labels = np.zeros((40, 32), np.uint8)
    for number, part in enumerate(("upper_body", "lower_body", "dresses")):
        names = [f"{number}0000{i}" for i in (1, 2)]
        for name in names:
            for picture in ("0", "1"):
                written(root / part / "images" / f"{name}_{picture}.jpg", noise(rng))
            written(root / part / "label_maps" / f"{name}_4.png", labels)
        for kind, garments in (("paired", names), ("unpaired", names[::-1])):
            lines = [f"{a}_0.jpg\t{b}_1.jpg\n" for a, b in zip(names, garments, strict=True)]
            (root / part / f"test_pairs_{kind}.txt").write_text("".join(lines))
    return root


class TestLayouts:
    def test_viton_hd_paired_is_each_persons_own_garment(self, viton_hd: Path) -> None:
        cases = layouts.viton_hd(viton_hd, paired=True)
        test = viton_hd / "test"
        assert cases[0] == Case(
            name="00001_00",
            person=test / "image/00001_00.jpg",
            garment=test / "cloth/00001_00.jpg",
            category="upper",
            mask=test / "agnostic-mask/00001_00_mask.png",
            labels=None,
        )
        unpaired = layouts.viton_hd(viton_hd, paired=False)
        assert [case.garment.stem for case in unpaired] == ["00002_00", "00003_00", "00001_00"]
        assert [case.name for case in unpaired] == [case.name for case in cases]

    def test_catvtons_names_of_the_lists_come_first(self, viton_hd: Path) -> None:
        (viton_hd / "test_pairs_unpaired.txt").write_text("00003_00.jpg 00001_00.jpg\n")
        assert [case.name for case in layouts.viton_hd(viton_hd, paired=False)] == ["00003_00"]

    def test_dresscode_has_three_parts(self, dresscode: Path) -> None:
        cases = layouts.dresscode(dresscode, paired=True)
        assert [case.category for case in cases] == ["upper", "upper", "lower", "lower", "overall", "overall"]
        part = dresscode / "lower_body"
        assert cases[2] == Case(
            name="lower_body/100001_0",
            person=part / "images/100001_0.jpg",
            garment=part / "images/100001_1.jpg",
            category="lower",
            mask=part / "agnostic_masks/100001_0.png",
            labels=part / "label_maps/100001_4.png",
        )
        unpaired = layouts.dresscode(dresscode, paired=False, categories=("overall",))
        assert [case.garment.name for case in unpaired] == ["200002_1.jpg", "200001_1.jpg"]

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda root: (root / "test_pairs.txt").unlink(), r"has no test_pairs_paired\.txt or test_pairs\.txt"),
            (lambda root: (root / "test_pairs.txt").write_text("a.jpg\n"), r"line 1: a person and a garment"),
            (lambda root: (root / "test_pairs.txt").write_text("\n"), "lists no pair"),
            (
                lambda root: (root / "test/cloth/00002_00.jpg").unlink(),
                r"1 pictures are missing: .*cloth/00002_00\.jpg",
            ),
            (
                lambda root: (root / "test_pairs.txt").write_text("00001_00.jpg 00002_00.jpg\n" * 2),
                "1 persons twice: 00001_00",
            ),
        ],
    )
    def test_what_a_layout_lacks_is_said(self, viton_hd: Path, change: Callable[[Path], object], sentence: str) -> None:
        change(viton_hd)
        with pytest.raises(EvaluationError, match=sentence):
            layouts.viton_hd(viton_hd, paired=True)

    def test_a_paired_list_is_no_unpaired_one(self, viton_hd: Path) -> None:
        (viton_hd / "test_pairs.txt").write_text("00001_00.jpg 00001_00.jpg\n")
        with pytest.raises(EvaluationError, match="leave --unpaired out"):
            layouts.viton_hd(viton_hd, paired=False)

    def test_a_missing_category_is_not_passed_over(self, dresscode: Path) -> None:
        (dresscode / "dresses").rename(dresscode / "gowns")
        with pytest.raises(EvaluationError, match=r"has no dresses: name the categories that it has \(--category\)"):
            layouts.dresscode(dresscode, paired=True)

    def test_masks_are_there_before_anything_is_served(self, viton_hd: Path, dresscode: Path) -> None:
        cases = layouts.viton_hd(viton_hd, paired=True)
        check_masks(cases, "given")
        with pytest.raises(EvaluationError, match=r"3 of 3 cases have no mask .*no ATR label maps.* automatic"):
            check_masks(cases, "labels")
        cases = layouts.dresscode(dresscode, paired=True)
        check_masks(cases, "labels")
        with pytest.raises(EvaluationError, match=r"6 of 6 .*upper_body/000001_0: .*agnostic_masks/000001_0\.png"):
            check_masks(cases, "given")
        check_masks(cases, "automatic")

    def test_pictures_by_name_wants_one_for_each(self, tmp_path: Path, rng: np.random.Generator) -> None:
        written(tmp_path / "a/b.png", noise(rng))
        (tmp_path / "notes.txt").write_text("no picture")
        assert pictures_by_name(tmp_path) == {"a/b": tmp_path / "a/b.png"}
        written(tmp_path / "a/b.jpg", noise(rng))
        with pytest.raises(EvaluationError, match=r"two pictures named a/b: b\.jpg and b\.png"):
            pictures_by_name(tmp_path)
        with pytest.raises(EvaluationError, match="there is no folder"):
            pictures_by_name(tmp_path / "nothing")
        (tmp_path / "empty").mkdir()
        with pytest.raises(EvaluationError, match="holds no picture"):
            pictures_by_name(tmp_path / "empty")


class TestSizing:
    def test_sizes_that_differ_need_a_size(self, tmp_path: Path, rng: np.random.Generator) -> None:
        truth, small = written(tmp_path / "t.png", noise(rng)), written(tmp_path / "p.png", noise(rng, 20, 16))
        mask = written(tmp_path / "m.png", np.full((40, 32), 255, np.uint8))
        pair = Pair("p", truth, small, mask)
        with pytest.raises(EvaluationError, match=r"p: the prediction is 20 × 16, the truth 40 × 32 .*--size 20x16"):
            Sizing().loaded(pair)
        shapes = [array.shape[:2] for array in Sizing((24, 20)).loaded(pair) if array is not None]
        assert shapes == [(24, 20)] * 3

    def test_interpolation_is_as_named(self, tmp_path: Path, rng: np.random.Generator) -> None:
        path = written(tmp_path / "t.png", noise(rng))
        pair = Pair("t", path, path, None)
        for name, filter_ in (("box", Image.Resampling.BOX), ("bicubic", Image.Resampling.BICUBIC)):
            truth, prediction, _ = Sizing((20, 16), name).loaded(pair)
            np.testing.assert_array_equal(truth, np.asarray(Image.open(path).resize((16, 20), filter_)))
            np.testing.assert_array_equal(truth, prediction)
        with pytest.raises(EvaluationError, match="interpolation must be one of lanczos, bicubic, bilinear, box"):
            Sizing(None, "cubic")

    def test_a_mask_of_another_size_and_a_broken_file_are_refused(
        self, tmp_path: Path, rng: np.random.Generator
    ) -> None:
        path = written(tmp_path / "t.png", noise(rng))
        mask = written(tmp_path / "m.png", np.full((20, 16), 255, np.uint8))
        with pytest.raises(EvaluationError, match=r"m\.png is 20 × 16, its person 40 × 32"):
            Sizing().loaded(Pair("t", path, path, mask))
        (tmp_path / "b.png").write_bytes(b"no picture")
        with pytest.raises(EvaluationError, match=r"b\.png cannot be read"):
            Sizing().loaded(Pair("b", path, tmp_path / "b.png", None))


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


class TestCommand:
    def test_a_folder_against_itself_and_against_noise(
        self, tmp_path: Path, rng: np.random.Generator, network: Path
    ) -> None:
        for name in ("a", "sub/b", "c"):
            truth = noise(rng)
            written(tmp_path / "truths" / f"{name}.png", truth)
            written(tmp_path / "same" / f"{name}.png", truth)
            written(tmp_path / "other" / f"{name}.png", noise(rng))
        written(tmp_path / "same/extra.png", noise(rng))
        reports = {}
        for made in ("same", "other"):
            out = tmp_path / f"out-{made}"
            predictions = tmp_path / made
            words = ("--predictions", predictions, "--out", out, "--inception", network)
            assert evaluate("folder", tmp_path / "truths", *words) == 0
            reports[made] = json.loads((out / "evaluation.json").read_text())
            assert Image.open(out / "predictions.png").width > 1000
        same, other = reports["same"], reports["other"]
        assert same["metrics"].pop("kid") < 0  # unbiased: pairs of one picture count on one side alone
        assert same["metrics"] == pytest.approx({"ssim": 1, "psnr": 100, "fid": 0}, abs=1e-4)
        assert same["unused_predictions"] == 1
        assert [row["name"] for row in same["samples"]] == ["a", "c", "sub/b"]
        assert other["metrics"]["ssim"] < 0.2
        assert other["metrics"]["fid"] > same["metrics"]["fid"]
        assert "3 of 3 pictures have no mask" in other["not_computed"]["ssim_in_mask"]
        assert ("lpips" in other["metrics"]) != ("lpips" in other["not_computed"])
        assert other["resize"] == "none"
        assert other["versions"]["torchmetrics"]

    def test_predictions_of_a_data_set_are_compared_inside_its_masks(
        self, viton_hd: Path, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-weights"))
        for path in sorted((viton_hd / "test/image").iterdir()):
            person = np.asarray(Image.open(path)).copy()
            person[10:30, 8:24] = noise(rng, 20, 16)
            written(tmp_path / "made" / f"{path.stem}.png", person)
        out = tmp_path / "out"
        assert evaluate("viton-hd", viton_hd, "--predictions", tmp_path / "made", "--out", out) == 0
        report = json.loads((out / "evaluation.json").read_text())
        metrics, control = report["metrics"], report["control_grey"]
        assert report["paired"] is True
        assert metrics["ssim_in_mask"] < metrics["ssim"] < 1
        assert metrics["mae_outside_mask"] == control["mae_outside_mask"] == 0
        assert control["psnr_in_mask"] > metrics["psnr_in_mask"]  # grey is nearer to noise than other noise is
        assert "--inception" in report["not_computed"]["fid"]
        assert (out / "tryon.png").is_file()

    def test_an_empty_mask_is_named(self, viton_hd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        written(viton_hd / "test/agnostic-mask/00002_00_mask.png", np.zeros((40, 32), np.uint8))
        words = ("--predictions", viton_hd / "test/image", "--out", tmp_path / "out")
        assert evaluate("viton-hd", viton_hd, *words) == 2
        assert "00002_00: the mask is empty" in capsys.readouterr().err

    def test_unpaired_gives_distributions_alone(self, dresscode: Path, tmp_path: Path, network: Path) -> None:
        for path in sorted(dresscode.glob("*/images/*_0.jpg")):
            part = path.parents[1].name
            written(tmp_path / "made" / part / f"{path.stem}.png", np.asarray(Image.open(path).resize((16, 20))))
        out = tmp_path / "out"
        words = ("--predictions", tmp_path / "made", "--out", out, "--unpaired", "--inception", network)
        assert evaluate("dresscode", dresscode, *words) == 2  # other sizes than the truths'
        assert evaluate("dresscode", dresscode, *words, "--size", "20x16", "--interpolation", "bicubic") == 0
        report = json.loads((out / "evaluation.json").read_text())
        assert set(report["metrics"]) == {"fid", "kid"}
        assert "unpaired" in report["not_computed"]["ssim"]
        assert report["compared_at"] == "20 × 16"
        assert "bicubic" in report["resize"]
        assert report["pictures"] == 6

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("viton-hd", "DATA", "--predictions", "EMPTY"), "holds no picture"),
            (("viton-hd", "DATA", "--predictions", "ONE"), "2 of 3 pictures have no prediction of their name"),
            (("viton-hd", "DATA"), "name what to evaluate: --repository FOLDER, or --url"),
            (("viton-hd", "DATA", "--repository", "EMPTY"), "is no exported repository"),
            (("viton-hd", "DATA", "--engine", "openvino"), "--engine openvino is one of an export: name it with"),
            (("viton-hd", "DATA", "--predictions", "ONE", "--engine", "openvino"), "compared as they are: leave"),
            (("viton-hd", "DATA", "--mask", "labels", "--repository", "EMPTY"), "no ATR label maps"),
            (("viton-hd", "DATA", "--predictions", "ONE", "--set", "seed=1"), "compared as they are"),
            (("viton-hd", "DATA", "--set", "steps=1"), "--set takes NAME=VALUE with the name of a request option"),
            (("viton-hd", "DATA", "--set", "num_images=2"), "other than output_format and num_images"),
            (("viton-hd", "DATA", "--url", "http://127.0.0.1:9"), "no server to evaluate"),
            (("wardrobe", "--seeds", "0", "--prompts", "0"), "nothing to evaluate: 0 seeds and 0 prompts"),
            (("folder", "DATA", "--predictions", "NOWHERE"), "there is no folder"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_sentence(
        self,
        words: tuple[str, ...],
        sentence: str,
        viton_hd: Path,
        tmp_path: Path,
        rng: np.random.Generator,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "empty").mkdir()
        written(tmp_path / "one/00001_00.png", noise(rng))
        named = {"DATA": viton_hd, "EMPTY": tmp_path / "empty", "ONE": tmp_path / "one", "NOWHERE": tmp_path / "no"}
        out = tmp_path / "out"
        assert evaluate(*[named.get(word, word) for word in words], "--out", out) == 2
        message = capsys.readouterr().err
        assert message.startswith("dressform-export: ")
        assert sentence in message
        assert not (out / "evaluation.json").exists()

    @pytest.mark.parametrize("words", [("--size", "512"), ("--size", "0x9"), ("--rows", "0")])
    def test_words_of_another_form_are_refused(
        self, words: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            evaluate("folder", "x", "--predictions", "y", "--out", "z", *words)
        assert f"{words[1]!r} must be" in capsys.readouterr().err


class TestSettings:
    def test_words_become_typed_options(self) -> None:
        words = ["num_inference_steps=5", "guidance_scale=2", "composite=none", "mask_invert=true"]
        expected = {"num_inference_steps": 5, "guidance_scale": 2.0, "composite": "none", "mask_invert": True}
        assert serving.options(words) == expected
        assert serving.composite(serving.options(words)) == "none"
        assert serving.composite({}) == "soft"

    @pytest.mark.parametrize("word", ["num_inference_steps=0", "guidance_scale=much", "composite=yes", "seed=1.5"])
    def test_values_that_the_contract_refuses_are_refused(self, word: str) -> None:
        with pytest.raises(EvaluationError, match=f"--set {word}: {word.partition('=')[0]} must be"):
            serving.options([word])


class TestReport:
    def test_figures_are_rounded_and_finite(self, tmp_path: Path) -> None:
        record.write({"a": [1 / 3, {"b": np.float64(2 / 3)}], "n": 7, "s": "×"}, tmp_path / "r.json")
        assert json.loads((tmp_path / "r.json").read_text()) == {"a": [0.33333, {"b": 0.66667}], "n": 7, "s": "×"}
        with pytest.raises(ValueError, match="not JSON compliant"):
            record.write({"a": float("nan")}, tmp_path / "r.json")

    def test_an_export_is_named_by_its_hashes_and_no_path_of_this_machine(self, tiny_repository: Path) -> None:
        found = record.exported(tiny_repository)
        assert found is not None
        assert found["source"]["id"] == "tiny"
        assert set(found["graphs"]) >= {"unet", "vae_decoder"}
        assert len(found["manifest_sha256"]) == 64
        assert record.exported(None) is None


class TestSheet:
    def test_every_picture_is_there_upscaled_in_its_column(self) -> None:
        rows = [
            Row([np.full((4, 3, 3), value, np.uint8) for value in (10 * i, 10 * i + 5)], ["a"]) for i in range(1, 4)
        ]
        sheet = np.asarray(contact_sheet(("left", "right"), rows, cell=(12, 9), across=2))
        for value in (10, 15, 20, 25, 30, 35):
            assert (sheet == value).all(-1).sum() >= 12 * 9
        lines = [np.flatnonzero((sheet == value).all(-1).any(0))[0] for value in (10, 15, 20, 25)]
        assert lines == sorted(lines)
        with pytest.raises(ValueError, match="a row has 2 pictures for 3 columns"):
            contact_sheet(("a", "b", "c"), rows, cell=(12, 9))

    def test_the_hole_is_tinted_and_the_rest_is_not(self, rng: np.random.Generator) -> None:
        pixels = noise(rng)
        mask = np.zeros(pixels.shape[:2], bool)
        mask[5:9, 5:9] = True
        shown = hole_shown(pixels, mask)
        np.testing.assert_array_equal(shown[~mask], pixels[~mask])
        assert (shown[mask][:, 0].astype(int) >= pixels[mask][:, 0] // 2 + 127).all()
