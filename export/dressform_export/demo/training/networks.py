"""What is trained, in order: each network's data, run and result in the work folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from torch import nn

from dressform_export.demo.evaluation.classifier import PatternClassifier, save_classifier
from dressform_export.demo.training.classifier import ClassifierLosses
from dressform_export.demo.training.data import Examples, Mirrored, open_examples, wardrobe_seeds
from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.latents import encoded
from dressform_export.demo.training.loop import Losses, Run, train
from dressform_export.demo.training.parser import ParserLosses, new_parser, save_parser
from dressform_export.demo.training.pipeline import save_pipeline
from dressform_export.demo.training.rendered import Rendered, rendered
from dressform_export.demo.training.text import new_text_encoder, new_tokenizer
from dressform_export.demo.training.unet import DenoiserLosses, new_scheduler, new_unet
from dressform_export.demo.training.vae import VaeLosses, new_vae, normalise_latents
from dressform_export.progress import Progress
from dressform_export.source import Source

SIZE = (128, 96)
"""Height and width of the demonstration's pictures."""

SETTINGS = {"tryon": "concat", "num_inference_steps": 20, "solver": "ddim", "tryon_eta": 0.0}

RUNS = {
    "vae": Run(steps=2_200, rate=1e-3, batch=8, warmup=50, ema=0.998, weight_decay=1e-4, bf16=True),
    "parser": Run(steps=4_000, rate=3e-3, batch=8, ema=0.998, bf16=True),
    "classifier": Run(steps=1_000, rate=1e-3, batch=32, bf16=True),
    "unet": Run(steps=5_000, rate=1e-3, batch=16, warmup=100, bf16=True),
}

FINE_TUNING = Run(steps=10_000, rate=1e-5, batch=8, warmup=500, bf16=True)
"""For a pipeline that knows a lot already."""


@dataclass(frozen=True)
class Job:
    """One network to train: ``run`` as changed by the command's options, and where things are."""

    name: str
    run: Run
    work: Path
    out: Path
    size: tuple[int, int]
    mirror: bool
    progress: Progress

    @property
    def folder(self) -> Path:
        """The network's own part of the work folder."""
        return self.work / self.name

    def wardrobe(self) -> Rendered:
        """The wardrobe that ``data`` names, drawn.

        Raises:
            TrainingError: if ``data`` is a folder, which has no labels.
        """
        seeds = wardrobe_seeds(self.run.data)
        if seeds is None:
            raise TrainingError(f"{self.name} is trained on labels: data must be wardrobe:SEEDS, not {self.run.data}")
        return rendered(seeds, self.work, *self.size, self.progress)

    def examples(self) -> Examples:
        """The examples that ``data`` names, twice if they are to be mirrored."""
        examples = open_examples(self.run.data, self.work, *self.size, self.progress)
        return Mirrored(examples) if self.mirror else examples

    def train(self, model: nn.Module, losses: Losses) -> bool:
        """Train ``model`` in the network's folder; whether it is done."""
        return train(model, losses, self.run, self.folder, self.progress)


def train_vae(job: Job) -> bool:
    """The autoencoder, on all looks and flat garments."""
    wardrobe = job.wardrobe()
    pictures, labels = (array.reshape(-1, *array.shape[2:]) for array in (wardrobe.pictures, wardrobe.labels))
    vae = _seeded(job, new_vae)
    if not job.train(vae, VaeLosses(vae, pictures, labels, job.run.batch)):
        return False
    normalise_latents(vae, pictures[:: max(len(pictures) // 1024, 1)])
    vae.half().save_pretrained(job.folder / "model")
    return True


def train_parser(job: Job) -> bool:
    """The garment parser."""
    parser = _seeded(job, new_parser)
    if not job.train(parser, ParserLosses(parser, job.wardrobe(), job.run.batch)):
        return False
    save_parser(parser, *job.size, job.folder / "model")
    return True


def train_classifier(job: Job) -> bool:
    """The evaluation's pattern classifier."""
    classifier = _seeded(job, PatternClassifier)
    if not job.train(classifier, ClassifierLosses(classifier, job.wardrobe(), job.run.batch)):
        return False
    save_classifier(classifier, job.folder / "classifier.safetensors")
    return True


def train_unet(job: Job) -> bool:
    """The denoiser and its text encoder, then the whole pipeline."""
    weights = job.work / "vae" / "model"
    if not weights.is_dir():
        raise TrainingError(f"{weights} is missing: the unet learns in a trained vae's latents; train that first")
    vae = AutoencoderKL.from_pretrained(weights).float().requires_grad_(False).eval().to(_device())
    latents = encoded(job.examples(), vae, job.work, job.progress)
    tokenizer = new_tokenizer((text for texts in latents.captions for text in texts), job.folder / "tokenizer")
    text_encoder = _seeded(job, lambda: new_text_encoder(tokenizer))
    unet = _seeded(job, lambda: new_unet(text_encoder.config.hidden_size))
    trained, scheduler = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(_device()), new_scheduler()
    losses = DenoiserLosses(unet, text_encoder, tokenizer, scheduler.config, latents, job.run.batch)
    if not job.train(trained, losses):
        return False
    pipeline = StableDiffusionInpaintPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    parser = job.work / "parser" / "model"
    _finish(job, pipeline, SETTINGS, parser if parser.is_dir() else None)
    return True


def fine_tune(job: Job, source: Source) -> bool:
    """The UNet of ``source`` on the data; all else of that pipeline stays as it is.

    Raises:
        TrainingError: if it is no inpainting UNet.
    """
    d = source.dimensions
    if d.in_channels != 2 * d.latent_channels + 1:
        raise TrainingError(
            f"{source.id} has a UNet of {d.in_channels} channels, and only inpainting ones, of "
            f"{2 * d.latent_channels + 1}, learn to read a garment"
        )
    vae, text_encoder, unet = (source.load(name).to(_device()) for name in ("vae", "text_encoder", "unet"))
    latents = encoded(job.examples(), vae, job.work, job.progress)
    unet.requires_grad_(True)
    losses = DenoiserLosses(unet, text_encoder, source.tokenizer, source.scheduler, latents, job.run.batch)
    if not job.train(unet, losses):
        return False
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        source.folder,
        unet=unet,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    settings = {name: value for name, value in asdict(source.settings).items() if value is not None}
    parser = source.folder / "parser"
    _finish(job, pipeline, settings | {"tryon": "concat"}, parser if parser.is_dir() else None)
    return True


NETWORKS: dict[str, Callable[[Job], bool]] = {
    "vae": train_vae,
    "parser": train_parser,
    "classifier": train_classifier,
    "unet": train_unet,
}
"""In the order in which they need each other."""


def _finish(
    job: Job, pipeline: StableDiffusionInpaintPipeline, settings: Mapping[str, Any], parser: Path | None
) -> None:
    height, width = job.size
    save_pipeline(pipeline, {**settings, "height": height, "width": width}, job.out, parser)
    job.progress.note(f"the pipeline is in {job.out}" + ("" if parser else ", without a parser: none is trained yet"))


def _seeded(job: Job, build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(job.run.seed)
        return build()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
