"""The state of a training run in one file: all that the next step depends on, replaced in one go.

No generator's state is in it: `dressform_export.demo.training.loop` seeds each step with (seed, step) alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from dressform_export.demo.training.errors import TrainingError

Identity = Mapping[str, str | int | float | bool]
"""The options that a run may not change half-way, by name."""


@dataclass
class State:
    """A run between two steps.

    ``step`` counts the steps taken; ``records`` are the lines of ``metrics.jsonl``; ``sums`` are the losses' sums since
    the last of them.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMAModel
    step: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


def save(state: State, path: Path, identity: Identity) -> None:
    """Write ``state``; a reader, or a run that is killed meanwhile, finds either the old file or the new one."""
    content = {
        "identity": dict(identity),
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "ema": state.ema.state_dict(),
        "step": state.step,
        "records": state.records,
        "sums": state.sums,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(state: State, path: Path, identity: Identity) -> None:
    """Fill ``state`` from the file at ``path``.

    Raises:
        TrainingError: if the file cannot be read, belongs to a run with other options, or to another network.
    """
    device = next(state.model.parameters()).device
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch has no common base for a damaged file
        raise TrainingError(f"the checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error
    then = content["identity"]
    for name in sorted({*then, *identity}):
        if then.get(name) != identity.get(name):
            raise TrainingError(
                f"the checkpoint {path} was made with {name} {then.get(name)!r}, not {identity.get(name)!r}: continue "
                "with the same options, or begin in another work folder"
            )
    try:
        state.model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise TrainingError(f"the checkpoint {path} is of another network: {str(error).splitlines()[0]}") from error
    state.optimizer.load_state_dict(content["optimizer"])
    state.ema.load_state_dict(content["ema"])
    state.ema.to(device)
    state.step, state.records, state.sums = content["step"], content["records"], content["sums"]
