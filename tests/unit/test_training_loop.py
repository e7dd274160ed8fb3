"""The training loop: a stopped run continues as if it had not been, bit for bit; what does not fit is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.loop import Losses, Run, train

RUN = Run(steps=20, rate=1e-2, warmup=4, log_every=6)


def _model(seed: int = 0) -> nn.Module:
    """Small, but with all that has a state: dropout, running statistics, a frozen weight."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Dropout(0.2), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 3, 1)
        )
    model[-1].requires_grad_(False)
    return model


def _losses(model: nn.Module, at: int | None = None, factor: float = 1.0) -> Losses:
    """The error of 0 predicted from noise; in call ``at`` the process is told to end."""
    calls = 0

    def losses(rng: np.random.Generator) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.from_numpy(rng.standard_normal((4, 3, 8, 8)).astype(np.float32)) + 0.1 * torch.randn(4, 3, 8, 8)
        loss = factor * (model(x) ** 2).mean()
        return {"loss": loss, "double": 2 * loss}

    return losses


def _records(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert record.pop("seconds_per_step") > 0
    return records


def test_stopped_and_continued_is_the_same_run(tmp_path: Path) -> None:
    whole, stopped = _model(), _model()
    assert train(whole, _losses(whole), RUN, tmp_path / "whole")
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert not train(stopped, _losses(stopped, at=9), RUN, tmp_path / "stopped")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    torch.manual_seed(99)  # what the process drew meanwhile does not matter
    again = _model(seed=1)
    assert train(again, _losses(again), RUN, tmp_path / "stopped")
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    records = _records(tmp_path / "whole")
    assert records == _records(tmp_path / "stopped")
    assert [record["step"] for record in records] == [6, 12, 18, 20]
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert all(record["double"] == pytest.approx(2 * record["loss"]) for record in records)
    assert (tmp_path / "whole" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        model = _model()
        train(model, _losses(model), Run(steps=2, rate=1e-2, log_every=2, seed=seed), tmp_path / str(seed))
        found.append(_records(tmp_path / str(seed)))
    assert found[0] != found[1]


def test_averaged_weights_come_out(tmp_path: Path) -> None:
    """With averages over the whole run the result lags behind the weights that the checkpoint goes on from."""
    model = _model()
    before = {name: values.detach().clone() for name, values in model.named_parameters()}
    train(model, _losses(model), Run(steps=10, rate=1e-2, warmup=1, ema=0.9), tmp_path)
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    moved = {name: float((values.detach() - before[name]).norm()) for name, values in model.named_parameters()}
    assert 0 < moved["0.weight"] < float((last["0.weight"] - before["0.weight"]).norm())
    assert moved["4.weight"] == 0
    assert not model.training


def test_a_sitting_ends_in_time(tmp_path: Path) -> None:
    model = _model()
    assert not train(model, _losses(model), Run(steps=1000, rate=1e-2, max_seconds=0.0), tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def test_rate() -> None:
    run = Run(steps=100, rate=2.0, warmup=10)
    assert [run.rate_at(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert run.rate_at(55) == pytest.approx(1.0)
    assert run.rate_at(100) == pytest.approx(0.0)


@pytest.mark.parametrize("change", [{"rate": 1e-3}, {"seed": 5}, {"batch": 3}, {"data": "wardrobe:7"}, {"bf16": True}])
def test_other_options_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    model = _model()
    train(model, _losses(model), Run(steps=1, rate=1e-2), tmp_path)
    (name,) = change
    with pytest.raises(TrainingError, match=rf"was made with {name} .*, not {change[name]!r}"):
        train(model, _losses(model), Run(**{"steps": 2, "rate": 1e-2, **change}), tmp_path)


def test_more_steps_are_a_longer_run(tmp_path: Path) -> None:
    model = _model()
    train(model, _losses(model), Run(steps=2, rate=1e-2), tmp_path)
    assert train(model, _losses(model), Run(steps=4, rate=1e-2), tmp_path)
    assert [record["step"] for record in _records(tmp_path)] == [2, 4]


def test_unfit_checkpoints_are_refused(tmp_path: Path) -> None:
    model = _model()
    train(model, _losses(model), Run(steps=1, rate=1e-2), tmp_path)
    with pytest.raises(TrainingError, match="is of another network"):
        train(nn.Sequential(nn.Conv2d(3, 4, 1)), _losses(model), Run(steps=1, rate=1e-2), tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TrainingError, match="cannot be read"):
        train(model, _losses(model), Run(steps=1, rate=1e-2), tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(TrainingError, match="the loss is inf at step 0"):
        train(model, _losses(model, factor=float("inf")), RUN, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["steps", "rate", "batch", "warmup"])
def test_runs_are_checked(name: str) -> None:
    with pytest.raises(TrainingError, match=f"{name} must be above 0, not 0"):
        Run(**{"steps": 1, "rate": 1.0, name: 0})
