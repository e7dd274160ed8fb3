"""The training loop of all networks: Muon, warm-up and cosine, clipped gradients, averaged weights, checkpoints.

Step i depends on the state, the seed and i alone, so a run that was stopped continues as if it had not been.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from pytorch_optimizer import Muon
from torch import Tensor, nn

from dressform_export.demo.training.checkpoint import Identity, State, load, save
from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.plots import plot_losses
from dressform_export.progress import Progress, Silence

Losses = Callable[[np.random.Generator], Mapping[str, Tensor]]
"""One batch's losses, scalars by name; ``loss`` is minimised, the others are recorded. All that is random is drawn
from the generator given, or from torch's own, which is seeded from it."""


@dataclass(frozen=True)
class Run:
    """How one network is trained. ``rate`` is the peak learning rate, ``clip`` the largest norm of the gradient.

    ``batch`` and ``data`` are what the losses draw: rows of a batch, and the name of what they come from.
    ``max_seconds`` ends this sitting, not the run: the checkpoint is written and the next sitting continues.
    """

    steps: int
    rate: float
    batch: int = 16
    data: str = ""
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bf16: bool = False
    log_every: int = 50
    save_seconds: float = 300.0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "rate", "batch", "warmup", "clip", "log_every", "save_seconds"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"{name} must be above 0, not {getattr(self, name)}")

    @property
    def identity(self) -> Identity:
        """What a continued run must have in common with its checkpoint; ``steps`` may grow."""
        names = ("rate", "batch", "data", "warmup", "weight_decay", "clip", "ema", "seed", "bf16")
        return {name: getattr(self, name) for name in names}

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, eq. 5)."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        passed = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.rate * 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))


def train(model: nn.Module, losses: Losses, run: Run, folder: Path, progress: Progress | None = None) -> bool:
    """Train ``model`` in place, from ``folder``'s checkpoint where there is one; whether it reached the last step.

    When it did, ``model`` holds the averaged weights. ``folder`` gets ``checkpoint.pt``, ``metrics.jsonl`` and
    ``losses.png``. SIGTERM and SIGINT end the sitting after the step at hand.

    Raises:
        TrainingError: if the checkpoint does not fit, or the loss is not finite.
    """
    progress = progress or Silence()
    weights = _trainable(model)
    state = State(model, _optimizer(model, run), EMAModel(weights, decay=run.ema, foreach=True))
    path = folder / "checkpoint.pt"
    if path.exists():
        load(state, path, run.identity)
        progress.note(f"{folder.name}: continued at step {state.step} of {run.steps}")
    _sitting(state, losses, run, path, progress)
    if state.step < run.steps:
        progress.note(f"{folder.name}: stopped at step {state.step} of {run.steps}; the same command continues")
        return False
    state.ema.copy_to(weights)
    model.eval()
    return True


def _sitting(state: State, losses: Losses, run: Run, path: Path, progress: Progress) -> None:
    """Steps until the last one, the time given, or a signal; ends with a checkpoint."""
    first, began = state.step, time.monotonic()
    saved = began
    state.model.train()
    with torch.random.fork_rng(), _signals() as stopped:
        while state.step < run.steps and not stopped.is_set():
            _step(state, losses, run)
            now = time.monotonic()
            if state.step % run.log_every == 0 or state.step == run.steps:
                _record(state, run, path.parent, (now - began) / (state.step - first), progress)
            if now - saved > run.save_seconds:
                _keep(state, run, path)
                saved = time.monotonic()
            if run.max_seconds is not None and now - began > run.max_seconds:
                break
    if state.step > first:
        _keep(state, run, path)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _optimizer(model: nn.Module, run: Run) -> Muon:
    """Muon (Jordan et al. 2024) for matrices and kernels, AdamW for embeddings, biases and gains, at one rate.

    Its steps are scaled as in Liu et al. 2025, eq. 4, to be as large as AdamW's. From one checkpoint of the
    autoencoder 60 steps reached a loss of 0.283 with it, 0.302 with AdamW, at 0.81 and 0.65 s a step on two CPU cores.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    weights = _trainable(model)
    groups = []
    for use_muon in (True, False):
        chosen = [p for p in weights if (p.ndim > 1 and id(p) not in embeddings) == use_muon]
        groups.append({"params": chosen, "use_muon": use_muon, "lr": run.rate, "weight_decay": run.weight_decay})
    groups[0]["use_adjusted_lr"] = True
    return Muon(groups)


def _keep(state: State, run: Run, path: Path) -> None:
    save(state, path, run.identity)
    if state.records:
        plot_losses(state.records, path.with_name("losses.png"))


def _step(state: State, losses: Losses, run: Run) -> None:
    rng = np.random.default_rng((run.seed, state.step))
    torch.manual_seed(int(rng.integers(2**63)))
    for group in state.optimizer.param_groups:
        group["lr"] = run.rate_at(state.step)
    weights = _trainable(state.model)
    with torch.autocast(weights[0].device.type, torch.bfloat16, enabled=run.bf16):
        found = losses(rng)
    values = {name: loss.item() for name, loss in found.items()}
    if not math.isfinite(values["loss"]):
        raise TrainingError(f"the loss is {values['loss']} at step {state.step}: lower the rate")
    state.optimizer.zero_grad()
    torch.autograd.backward(found["loss"])
    torch.nn.utils.clip_grad_norm_(weights, run.clip)
    state.optimizer.step()
    state.ema.step(weights)
    state.step += 1
    for name, value in values.items():
        state.sums[name] = state.sums.get(name, 0.0) + value


def _record(state: State, run: Run, folder: Path, seconds: float, progress: Progress) -> None:
    """One line for the reader and one for ``metrics.jsonl``: the losses' means since the last one."""
    count = state.step - (int(state.records[-1]["step"]) if state.records else 0)
    means = {name: total / count for name, total in state.sums.items()}
    rate = run.rate_at(state.step - 1)
    state.records.append({"step": state.step, **means, "rate": rate, "seconds_per_step": round(seconds, 4)})
    state.sums = {}
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in state.records)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    shown = "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    left = timedelta(seconds=round(seconds * (run.steps - state.step)))
    progress.note(
        f"{folder.name} {state.step}/{run.steps}  {shown}  rate {rate:.1e}  {seconds:.3f} s a step  {left} left"
    )


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, where handlers may be set at all: in the main thread."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in signals]
    try:
        yield stopped
    finally:
        for number, handler in zip(signals, before):
            signal.signal(number, handler)
