"""Every solver's plan against diffusers' scheduler of the same configuration, given the same model outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import diffusers_solvers
from denoise.schedule import ScheduleError, SchedulerConfig
from denoise.solvers import FORM_SIZE, OUTPUTS_KEPT, SOLVERS, Plan, make_plan
from dressform_contract import SOLVERS as CONTRACT_SOLVERS

BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd15": BASE | {"steps_offset": 1, "set_alpha_to_one": False, "timestep_spacing": "leading"},
    "trailing-v": BASE | {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "linspace": BASE | {"timestep_spacing": "linspace"},
    "defaults": BASE,
    "zero-snr": BASE
    | {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    "linear": {"clip_sample": False, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
    "cosine": {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading"},
    "sigma-min": BASE | {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading", "steps_offset": 1},
}
STEPS = (1, 2, 4, 20, 50, 150)
SHAPE = (1, 4, 5, 7)


def model_output(sample: torch.Tensor, i: int) -> torch.Tensor:
    """A deterministic, non-linear stand-in for the UNet, of the same magnitude as noise."""
    return torch.sin(sample * 1.7 + i) + 0.3 * torch.cos(3 * sample)


def reference(
    name: str, config: dict[str, Any], steps: int, strength: float, eta: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """diffusers' trajectory as its inpaint pipeline runs it: samples (the first, then one per call), outputs."""
    scheduler = diffusers_solvers.scheduler(name, config)
    scheduler.set_timesteps(steps)
    begin = max(steps - min(int(steps * strength), steps), 0)
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    generator = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    from_noise = strength == 1.0
    sample = noise * scheduler.init_noise_sigma if from_noise else scheduler.add_noise(x0, noise, timesteps[:1])
    states, outputs = [sample.numpy()], []
    for i, t in enumerate(timesteps):
        output = model_output(scheduler.scale_model_input(sample, t), i)
        options: dict[str, Any] = {"eta": eta} if name == "ddim" else {}
        if name not in ("dpmpp_2m", "dpmpp_2m_karras", "unipc", "pndm"):
            options["generator"] = generator
        outputs.append(output.numpy())
        sample = scheduler.step(output, t, sample, **options).prev_sample
        states.append(sample.numpy())
    return states, outputs


def planned(plan: Plan, model_outputs: list[np.ndarray]) -> list[np.ndarray]:
    """The plan's trajectory on the same model outputs and noise."""
    generator = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)).numpy() for k in (1, 2))
    sample = np.float32(plan.start[0]) * x0 + np.float32(plan.start[1]) * noise
    saved, outputs = np.zeros_like(sample), [np.zeros_like(sample)] * OUTPUTS_KEPT
    states = [sample]
    for i in range(len(plan)):
        p, q = plan.converts[i]
        outputs = [p * sample + q * model_outputs[i], *outputs[:-1]]
        z = torch.randn(SHAPE, generator=generator).numpy() if plan.draws_noise[i] else np.zeros_like(sample)
        history = np.stack([sample, saved, *outputs, z])
        assert len(history) == FORM_SIZE
        sample = np.einsum("k,k...->...", plan.advances[i], history)
        saved = np.einsum("k,k...->...", plan.saves[i], history)
        states.append(sample)
    return states


def impossible(name: str, config: dict[str, Any], steps: int, strength: float) -> str | None:
    if int(steps * strength) < 1:
        return "leaves none to run"
    if name == "lcm" and steps > 50:
        return "at most the 50 steps"
    return None


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SOLVERS)
def test_plan_equals_diffusers(name: str, config: str) -> None:
    settings = CONFIGS[config]
    for steps in STEPS:
        for strength in (0.3, 0.6, 1.0):
            # Without any signal, diffusers' 1 - alpha - std² of eta 1 cancels to ±6e-8 (NaN or 2.4e-4; we have 0).
            for eta in (0.0, 1.0) if name == "ddim" and config != "zero-snr" else (0.0,):
                parsed = SchedulerConfig.from_json(settings)
                reason = impossible(name, settings, steps, strength)
                if reason is not None:
                    with pytest.raises(ScheduleError, match=reason):
                        make_plan(parsed, name, steps, strength, eta)
                    continue
                expected, outputs = reference(name, settings, steps, strength, eta)
                actual = planned(make_plan(parsed, name, steps, strength, eta), outputs)
                assert len(actual) == len(expected)
                for k, (a, b) in enumerate(zip(actual, expected)):
                    # 1e-4 of the largest value; zero SNR starts at sigma 4096, and diffusers' own float32 rounds that.
                    tolerance = 1e-4 * np.abs(b).max()
                    if config == "zero-snr":
                        tolerance += 2.0**-22 * np.abs(np.stack(expected[: k + 1])).max()
                    error = np.abs(a - b).max()
                    assert error <= tolerance, f"{steps=} {strength=} {eta=}: after call {k}: {error} > {tolerance}"


def test_every_solver_of_the_contract_is_there() -> None:
    assert tuple(SOLVERS) == CONTRACT_SOLVERS
