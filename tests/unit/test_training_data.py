"""Training examples: a folder gives the very pictures that were written to it; what is wrong with one is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from denoise import admission
from dressform_export.demo.training import latents as latents_module
from dressform_export.demo.training import parser
from dressform_export.demo.training.data import (
    PARTS,
    Example,
    Examples,
    Mirrored,
    free_form,
    open_examples,
    write_folder,
)
from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.latents import Latents, encoded, holes
from dressform_export.demo.training.rendered import rendered
from dressform_export.demo.training.text import LENGTH, VOCABULARY, new_tokenizer
from dressform_export.demo.training.unet import GARMENT_WEIGHT, KEPT_WEIGHT, DenoiserLosses, new_scheduler
from dressform_export.demo.wardrobe import ATR, HELD_OUT, caption, sample
from dressform_export.progress import Silence
from preprocess import masks

SEEDS = 6

HALF = 2.0**-11
"""The largest relative error of a number rounded to half precision."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def wardrobe(work: Path) -> Examples:
    return open_examples(f"wardrobe:{SEEDS}", work, 128, 96, Silence())


@pytest.fixture
def folder(wardrobe: Examples, tmp_path: Path) -> Path:
    write_folder(_First(wardrobe, 2), tmp_path / "examples")
    return tmp_path / "examples"


class _First:
    """The first few of other examples."""

    def __init__(self, examples: Examples, count: int) -> None:
        self._examples, self._count, self.identity = examples, count, f"{count} of {examples.identity}"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Example:
        return self._examples[number]


def _same(one: Example, other: Example) -> bool:
    pixels = all(np.array_equal(getattr(one, part), getattr(other, part)) for part in PARTS)
    return pixels and (one.captions, one.category) == (other.captions, other.category)


def test_drawn_seeds_are_the_wardrobes_own(work: Path) -> None:
    drawn = rendered(SEEDS, work, 128, 96, Silence())
    for seed in (0, SEEDS - 1):
        truth = sample(seed)
        for row, look, flat in ((2 * seed, truth.look, truth.flat), (2 * seed + 1, truth.other_look, truth.other_flat)):
            assert np.array_equal(drawn.looks[row], look.image)
            assert np.array_equal(drawn.flats[row], flat.image)
            assert np.array_equal(drawn.labels[:, row], [look.labels, flat.labels])
    assert (drawn.garment(2), drawn.garment(3)) == (sample(1).garment, sample(1).other)


def test_examples_as_the_service_meets_them(wardrobe: Examples) -> None:
    """Of each look: its own mask, then that of the garment worn before, which still shows outside of it."""
    truth = sample(1)
    worn, met = wardrobe[4], wardrobe[5]
    assert np.array_equal(worn.person, truth.look.image)
    assert np.array_equal(worn.mask, truth.mask())
    assert np.array_equal(met.mask, truth.mask(other=True))
    inside = met.mask == 255
    assert np.array_equal(met.person[inside], truth.look.image[inside])
    assert np.array_equal(met.person[~inside], truth.other_look.image[~inside])
    assert all(truth.garment.colour in text for text in (*worn.captions, *met.captions))


def test_folder_equals_wardrobe(wardrobe: Examples, tmp_path: Path) -> None:
    write_folder(wardrobe, tmp_path / "examples")
    folder = open_examples(str(tmp_path / "examples"), tmp_path, 128, 96, Silence())
    assert len(folder) == len(wardrobe) > 4 * SEEDS
    assert all(_same(folder[i], wardrobe[i]) for i in range(len(wardrobe)))


def test_mirrored(wardrobe: Examples) -> None:
    both = Mirrored(wardrobe)
    assert len(both) == 2 * len(wardrobe)
    assert _same(both[3], wardrobe[3])
    assert np.array_equal(both[len(wardrobe) + 3].mask, wardrobe[3].mask[:, ::-1])
    assert both.identity != wardrobe.identity


def test_free_form_masks_stay_within_the_garments_bounds(wardrobe: Examples) -> None:
    mask = wardrobe[0].mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    drawn = [free_form(mask, np.random.default_rng(seed)) for seed in range(20)]
    for one in drawn:
        assert one.shape == mask.shape
        assert set(np.unique(one)) == {0, 255}
        assert holes(one[None], 8)[0, 0].any()
        beyond = np.ones_like(mask, bool)
        beyond[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = False
        assert not one[beyond].any()
    assert len({one.tobytes() for one in drawn}) == 20


def test_pictures_of_other_sizes_are_placed_as_the_service_places_them(folder: Path) -> None:
    person = Image.open(folder / "person" / "000000.png")
    person.resize((200, 200)).save(folder / "person" / "000000.png")
    Image.new("L", (200, 200), 255).save(folder / "mask" / "000000.png")
    example = open_examples(str(folder), folder, 128, 96, Silence())[0]
    assert example.person.shape == (128, 96, 3)
    assert example.mask.shape == (128, 96)
    square = np.asarray(person.resize((200, 200)).resize((96, 96), Image.Resampling.LANCZOS))
    assert np.array_equal(example.person[16:112], square)


def _caption(folder: Path, **change: object) -> None:
    lines = (folder / "captions.jsonl").read_text().splitlines()
    entry = {key: value for key, value in (json.loads(lines[0]) | change).items() if value is not None}
    (folder / "captions.jsonl").write_text("\n".join([*lines, json.dumps(entry)]))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no captions": (lambda f: (f / "captions.jsonl").unlink(), "captions.jsonl is missing"),
    "empty": (lambda f: (f / "captions.jsonl").write_text(""), "has no lines"),
    "not JSON": (lambda f: (f / "captions.jsonl").write_text("{"), "line 1 of .* is not JSON"),
    "a key lacks": (lambda f: _caption(f, caption=None), "must be an object of the strings name, caption, category"),
    "no string": (lambda f: _caption(f, caption=3), "must be an object of the strings"),
    "category": (lambda f: _caption(f, category="shoes"), "one of upper, lower, overall, not 'shoes'"),
    "two categories": (lambda f: _caption(f, name="000000", category="overall"), "000000 was lower before"),
    "no such picture": (lambda f: _caption(f, name="x"), "person has no picture of x: none of x.png, x.jpg, x.jpeg"),
    "no mask": (lambda f: (f / "mask" / "000001.png").unlink(), "mask has no picture of 000001"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folders_are_refused_at_once(folder: Path, case: str) -> None:
    change, sentence = WRONG[case]
    change(folder)
    with pytest.raises(TrainingError, match=sentence):
        open_examples(str(folder), folder, 128, 96, Silence())


def test_wrong_pictures_are_named(folder: Path) -> None:
    examples = open_examples(str(folder), folder, 128, 96, Silence())
    Image.new("L", (96, 128), 0).save(folder / "mask" / "000000.png")
    with pytest.raises(TrainingError, match=r"mask/000000.png is empty"):
        examples[0]
    Image.new("L", (10, 20), 255).save(folder / "mask" / "000000.png")
    with pytest.raises(TrainingError, match=r"000000.png has \(20, 10\) pixels .*, its person \(128, 96\)"):
        examples[0]
    (folder / "garment" / "000001.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"garment/000001.png is 10 bytes that are no PNG"):
        examples[1]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nowhere", "wardrobe:SEEDS, as in wardrobe:6000, or a folder; nowhere is neither"),
        ("wardrobe:many", "wardrobe:many is neither"),
        ("wardrobe:0", "from 1 to 1000000 training seeds, not 0"),
        (f"wardrobe:{HELD_OUT + 1}", "training seeds, not 1000001"),
    ],
)
def test_wrong_data_is_refused(tmp_path: Path, spec: str, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        open_examples(spec, tmp_path, 128, 96, Silence())


def test_sizes_that_the_wardrobe_has_not(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="4:3"):
        open_examples("wardrobe:1", tmp_path, 64, 64, Silence())


# Latents


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        levels = 4
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels,
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.5,
        ).eval()


@pytest.fixture(scope="module")
def latents(wardrobe: Examples, vae: AutoencoderKL, work: Path) -> Latents:
    return encoded(wardrobe, vae, work, Silence())


def test_latents_are_the_vaes(wardrobe: Examples, vae: AutoencoderKL, latents: Latents) -> None:
    assert len(latents) == len(wardrobe)
    assert len(latents.garments) == 2 * SEEDS  # each encoded once
    for number in (0, 5, len(wardrobe) - 1):
        example = wardrobe[number]
        image = torch.from_numpy(example.person.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        hole = torch.from_numpy(example.mask.copy()) == 255
        flat = torch.from_numpy(example.garment.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        kept = (latents.targets[number], latents.masked[number], latents.garments[latents.garment_of[number]])
        with torch.inference_mode():
            for picture, found in zip((image, image.masked_fill(hole, 0), flat), kept):
                posterior = vae.encode(picture).latent_dist
                expected = 0.5 * torch.cat([posterior.mean, posterior.std], 1)[0].numpy()
                assert found.astype(np.float32) == pytest.approx(expected, rel=HALF, abs=1e-5)
        assert latents.captions[number] == list(example.captions)
        assert np.array_equal(latents.holes[number, :1], masks.latent(example.mask, 8))


def test_latents_are_kept(
    wardrobe: Examples, vae: AutoencoderKL, latents: Latents, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(latents_module, "_encode")
        assert np.array_equal(encoded(wardrobe, vae, work, Silence()).targets, latents.targets)
    with torch.no_grad():
        vae.quant_conv.bias[0] += 1
        other = encoded(_First(wardrobe, 1), vae, work, Silence())
        vae.quant_conv.bias[0] -= 1
    expected = latents.targets[0, 0].astype(np.float32) + 0.5  # rounded before and after
    assert other.targets[0, 0].astype(np.float32) == pytest.approx(expected, rel=HALF, abs=2 * HALF)


def test_a_hole_touches_the_square_of_any_of_its_pixels() -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[0, 0] = mask[15, 23] = 255
    nearest, touched = holes(mask[None], 8)[0]
    assert nearest.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert touched.tolist() == [[1, 0, 0], [0, 0, 1]]


class _Recorder(torch.nn.Module):
    """In the UNet's place: keeps what it is given."""

    device = torch.device("cpu")
    set_attn_processor = staticmethod(lambda _: None)


def _drawn(latents: Latents, tmp_path: Path) -> DenoiserLosses:
    tokenizer = new_tokenizer(["a red shirt"], tmp_path)
    recorder: object = _Recorder()
    return DenoiserLosses(recorder, recorder, tokenizer, new_scheduler().config, latents, 64)  # type: ignore[arg-type]


def test_rows_are_laid_out_as_the_service_lays_them(latents: Latents, tmp_path: Path) -> None:
    """Try-on rows against `denoise.admission`: mask and masked image, the garment below, zeros where it is dropped."""
    rows = _drawn(latents, tmp_path)._tryon(np.random.default_rng(3))
    mask, masked = rows.extra[:, :1, :16], rows.extra[:, 1:, :16]
    dropped = ~rows.extra[:, :, 16:].flatten(1).any(1)
    assert 0 < dropped.sum() < 32
    for i in range(64):
        garment = rows.clean[i, None, :, 16:].numpy()
        served = admission._tryon_extra(mask[i].numpy(), masked[i, None].numpy(), garment)
        assert np.array_equal(served[0 if dropped[i] else 1, 0], rows.extra[i].numpy())
        assert rows.weight[i, 0, 16:].unique().tolist() == pytest.approx([GARMENT_WEIGHT])
        assert rows.weight[i, 0, :16].unique().tolist() == pytest.approx([KEPT_WEIGHT, 1.0])
    prompted = (rows.tokens != rows.tokens[dropped][0]).any(1)
    assert not (prompted & dropped).any()
    assert 2 < prompted.sum() < 32


def test_prompts_are_dropped_now_and_then(latents: Latents, tmp_path: Path) -> None:
    rows = _drawn(latents, tmp_path)._inpaint(np.random.default_rng(0))
    assert rows.clean.shape == (64, 4, 16, 12)
    assert rows.extra.shape == (64, 5, 16, 12)
    empty = torch.tensor(new_tokenizer(["a red shirt"], tmp_path)("", padding="max_length").input_ids)
    assert 1 < (rows.tokens == empty).all(1).sum() < 20


# Prompts and labels


def test_both_tokenizers_agree(tmp_path: Path) -> None:
    from transformers import CLIPTokenizerFast

    captions = [caption(sample(seed).garment, np.random.default_rng(seed)) for seed in range(300)]
    slow = new_tokenizer(captions, tmp_path)
    fast = CLIPTokenizerFast.from_pretrained(tmp_path)
    assert len(slow) == len(fast) <= VOCABULARY
    assert slow.model_max_length == fast.model_max_length == LENGTH
    others = ["", "A RED-and-white T-shirt, isn't it?", "naïve élan 42 %", "  two\nlines "]
    for text in captions + others:
        assert slow(text).input_ids == fast(text).input_ids
        assert len(slow(text).input_ids) <= LENGTH
    assert slow.tokenize("a turquoise dress") == ["a</w>", "turquoise</w>", "dress</w>"]
    padded = slow("a dress", padding="max_length").input_ids
    assert padded == fast("a dress", padding="max_length").input_ids
    assert len(padded) == LENGTH


def test_labels_change_sides_in_the_mirror() -> None:
    mirrored = {name: ATR[parser.MIRRORED[number]] for number, name in enumerate(ATR)}
    assert mirrored["Left-arm"] == "Right-arm"
    assert mirrored["Right-shoe"] == "Left-shoe"
    assert mirrored["Dress"] == "Dress"
    assert [parser.MIRRORED[number] for number in parser.MIRRORED] == list(range(18))


def test_labels_move_with_their_picture(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture painted by its own labels still shows them after the augmentation, mirrored ones by the other side."""
    monkeypatch.setattr(parser, "JITTER", 0.0)
    labels = rendered(SEEDS, work, 128, 96, Silence()).labels[0, :8].copy()
    pictures = np.repeat((labels * 14)[..., None], 3, -1)
    images, moved = parser.augmented(pictures, labels, np.random.default_rng(0))
    shown = (images[:, 0] * 255 / 14).round().long()
    sides = torch.tensor(parser.MIRRORED)[moved]
    agreement = torch.stack([(shown == moved).flatten(1), (shown == sides).flatten(1)]).float().mean(2)
    assert agreement.max(0).values.min() > 0.93  # borders are mixed colours
    assert 0 < (agreement[1] > agreement[0]).sum() < 8
