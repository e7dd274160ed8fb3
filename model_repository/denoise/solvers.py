"""Solvers as tables of coefficients.

A step of every solver served here is linear: the next sample is a weighted sum of the sample, one saved sample, the
model outputs so far and fresh noise. A job's whole trajectory is therefore a small table (`Plan`), made at admission,
and jobs of different solvers advance together in one multiply-add.

The tables are found by running each solver, written as in its paper, on *forms* instead of tensors: a form is the
vector of a quantity's coefficients over the basis ``[X, S, H0 … H4, Z]``: sample, saved sample, converted model outputs
with the newest first, noise. ``(X - sigma * H0) / alpha`` is then the form of the predicted x_0, and so on.

Every solver has one signature, ``(config, n, begin, eta)``: the steps from ``begin`` on of a schedule of ``n``.

Notation: alpha = sqrt(alpha-bar), sigma = sqrt(1 - alpha-bar), lambda = log(alpha / sigma) is half the log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from denoise.schedule import (
    Array,
    ScheduleError,
    SchedulerConfig,
    continuous_timesteps,
    discrete_timesteps,
    karras_sigmas,
    multistep_timesteps,
    timesteps_of,
)

OUTPUTS_KEPT = 5
FORM_SIZE = 2 + OUTPUTS_KEPT + 1
_BASIS: Array = np.eye(FORM_SIZE)
X, S, Z = _BASIS[0], _BASIS[1], _BASIS[-1]
H0, H1, H2, H3, H4 = _BASIS[2:-1]


@dataclass(frozen=True)
class Step:
    """One UNet call and the update that follows it.

    ``H0 = convert[0] * x + convert[1] * output`` enters the history, then ``x = advance · history`` and
    ``saved = save · history``. ``level`` is (signal, noise) of the sample before the step: x = signal x_0 + noise z.
    """

    timestep: float
    level: tuple[float, float]
    advance: Array
    save: Array
    convert: tuple[float, float] = (0.0, 1.0)
    input_scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A job's trajectory; arrays have one row per UNet call, n in all.

    ``timesteps`` [n] and ``input_scales`` [n] go to the UNet; ``converts`` [n, 2], ``advances`` and ``saves``
    [n, FORM_SIZE] update the state; ``draws_noise`` [n] says whether the step takes noise. The first sample is
    ``start[0] * x_0 + start[1] * noise``; ``levels`` [n, 2] are the (signal, noise) before each call, to which
    4-channel UNets re-noise the known area.
    """

    timesteps: NDArray[np.float32]
    input_scales: NDArray[np.float32]
    converts: NDArray[np.float32]
    advances: NDArray[np.float32]
    saves: NDArray[np.float32]
    draws_noise: NDArray[np.bool_]
    levels: NDArray[np.float32]
    start: tuple[float, float]

    def __len__(self) -> int:
        return len(self.timesteps)


Solver = Callable[[SchedulerConfig, int, int, float], Sequence[Step]]


def make_plan(config: SchedulerConfig, solver: str, steps: int, strength: float = 1.0, eta: float = 0.0) -> Plan:
    """The plan of ``steps`` steps of ``solver``, of which the last ``int(steps * strength)`` are run.

    Raises:
        ScheduleError: if the solver is unknown, no step is left, or the schedule has no such number of steps.
    """
    if solver not in SOLVERS:
        raise ScheduleError(f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
    run = min(int(steps * strength), steps)
    if run < 1:
        raise ScheduleError(
            f"strength {strength:g} of {steps} steps leaves none to run: their product must be at least 1"
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # the last sigma is 0, its lambda infinite
        rows = SOLVERS[solver](config, steps, steps - run, eta)
    advances = np.stack([row.advance for row in rows])
    table = np.concatenate([advances, np.stack([row.save for row in rows])])
    if not np.isfinite(table).all():
        raise ScheduleError(f"solver {solver} has no finite plan of {steps} steps on this schedule; try ddim")
    # Strength 1 starts from noise alone, scaled as the solver's sample is at its first sigma.
    signal, noise = rows[0].level
    start = (signal, noise) if strength < 1.0 else (0.0, _first_noise(config, solver, noise))
    return Plan(
        timesteps=np.array([row.timestep for row in rows], np.float32),
        input_scales=np.array([row.input_scale for row in rows], np.float32),
        converts=np.array([row.convert for row in rows], np.float32),
        advances=advances.astype(np.float32),
        saves=table[len(rows) :].astype(np.float32),
        draws_noise=advances[:, -1] != 0,
        levels=np.array([row.level for row in rows], np.float32),
        start=start,
    )


def _first_noise(config: SchedulerConfig, solver: str, sigma: float) -> float:
    if not solver.startswith("euler"):
        return 1.0
    leading = (config.spacing or "linspace") == "leading"
    return math.hypot(sigma, 1.0) if leading else sigma


def _x0_and_eps(
    config: SchedulerConfig, alpha: float, sigma: float, sample: Array, output: Array
) -> tuple[Array, Array]:
    """Predicted x_0 and noise from a model output (Salimans & Ho 2022 for v)."""
    if config.prediction_type == "epsilon":
        return (sample - sigma * output) / alpha, output
    return alpha * sample - sigma * output, alpha * output + sigma * sample


def _final_alpha_bar(config: SchedulerConfig, alpha_bar: Array, default_to_one: bool) -> float:
    to_one = default_to_one if config.set_alpha_to_one is None else config.set_alpha_to_one
    return 1.0 if to_one else float(alpha_bar[0])


def ddim(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """Song, Meng & Ermon 2020, eq. 12 and 16."""
    alpha_bar = config.alphas_cumprod()
    final = _final_alpha_bar(config, alpha_bar, default_to_one=True)
    rows = []
    for t in discrete_timesteps(config, n, config.spacing or "leading")[begin:]:
        previous = t - config.num_train_timesteps // n
        a, a_prev = alpha_bar[t], alpha_bar[previous] if previous >= 0 else final
        alpha, sigma = math.sqrt(a), math.sqrt(1 - a)
        x0, eps = _x0_and_eps(config, alpha, sigma, X, H0)
        std = eta * math.sqrt(max((1 - a_prev) / (1 - a) * (1 - a / a_prev), 0.0))
        x = math.sqrt(a_prev) * x0 + math.sqrt(max(1 - a_prev - std**2, 0.0)) * eps + std * Z
        rows.append(Step(float(t), (alpha, sigma), x, S))
    return rows


def _euler_sigmas(config: SchedulerConfig, n: int) -> tuple[Array, Array]:
    training = config.sigmas()
    t = continuous_timesteps(config, n, config.spacing or "linspace")
    sigmas = np.interp(t, np.arange(len(training)), training)
    return t, sigmas


def _euler_step(config: SchedulerConfig, t: float, sigma: float, target: float) -> Step:
    """From ``sigma`` to ``target`` along dx/dsigma = (x - D) / sigma (Karras et al. 2022, algorithm 1)."""
    scale = 1 / math.hypot(sigma, 1.0)
    epsilon = config.prediction_type == "epsilon"
    denoised = X - sigma * H0 if epsilon else X * scale**2 - H0 * sigma * scale
    x = X + (X - denoised) / sigma * (target - sigma)
    return Step(t, (1.0, sigma), x, S, input_scale=scale)


def euler(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """Karras et al. 2022, algorithm 1 without churn."""
    t, sigmas = _euler_sigmas(config, n)
    training = config.sigmas()
    if config.karras:
        sigmas = karras_sigmas(sigmas[-1], sigmas[0], n)
        t = timesteps_of(sigmas, training)
    sigmas = np.append(sigmas, 0.0 if config.final_sigma_zero else training[0])
    return [_euler_step(config, float(t[i]), sigmas[i], sigmas[i + 1]) for i in range(begin, len(t))]


def euler_ancestral(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """k-diffusion's ancestral sampling: down to sigma_down along the ODE, then noise of sigma_up."""
    t, sigmas = _euler_sigmas(config, n)
    sigmas = np.append(sigmas, 0.0)
    rows = []
    for i in range(begin, len(t)):
        sigma, target = sigmas[i], sigmas[i + 1]
        up = math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2)
        row = _euler_step(config, float(t[i]), sigma, math.sqrt(target**2 - up**2))
        rows.append(replace(row, advance=row.advance + up * Z))
    return rows


@dataclass(frozen=True)
class _LogSnr:
    """alpha, sigma and lambda at the points of a multistep schedule, the last one clean."""

    timesteps: Array
    alpha: Array
    sigma: Array
    lambda_: Array

    def converted(self, config: SchedulerConfig, i: int) -> tuple[float, float]:
        """(p, q) with x_0 = p x + q output."""
        if config.prediction_type == "epsilon":
            return 1 / float(self.alpha[i]), -float(self.sigma[i] / self.alpha[i])
        return float(self.alpha[i]), -float(self.sigma[i])


def _log_snr(config: SchedulerConfig, n: int, karras: bool) -> _LogSnr:
    training = config.sigmas()
    t = multistep_timesteps(config, n, config.spacing or "linspace").astype(np.float64)
    if karras:
        ratios = karras_sigmas(training[0], training[-1], n)
        t = timesteps_of(ratios, training).round()
    else:
        ratios = np.interp(t, np.arange(len(training)), training)
    ratios = np.append(ratios, 0.0 if config.final_sigma_zero else training[0])
    alpha = 1 / np.sqrt(ratios**2 + 1)
    sigma = ratios * alpha
    return _LogSnr(t, alpha, sigma, np.log(alpha) - np.log(sigma))


def _dpmpp_2m(config: SchedulerConfig, n: int, begin: int, karras: bool) -> list[Step]:
    grid = _log_snr(config, n, karras)
    count = len(grid.timesteps)
    rows: list[Step] = []
    for i in range(begin, count):
        h = grid.lambda_[i + 1] - grid.lambda_[i]
        slope = H0 * 0
        first_order_last = config.final_sigma_zero or config.euler_at_final or (config.lower_order_final and count < 15)
        if rows and not (i == count - 1 and first_order_last):
            r = (grid.lambda_[i] - grid.lambda_[i - 1]) / h
            slope = (H0 - H1) / r
        x = grid.sigma[i + 1] / grid.sigma[i] * X - grid.alpha[i + 1] * np.expm1(-h) * (H0 + 0.5 * slope)
        level = (float(grid.alpha[i]), float(grid.sigma[i]))
        rows.append(Step(float(grid.timesteps[i]), level, x, S, convert=grid.converted(config, i)))
    return rows


def dpmpp_2m(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """DPM-Solver++(2M), Lu et al. 2022 (2211.01095), algorithm 2, midpoint."""
    return _dpmpp_2m(config, n, begin, karras=False)


def dpmpp_2m_karras(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """DPM-Solver++(2M) on the sigmas of Karras et al. 2022, eq. 5."""
    return _dpmpp_2m(config, n, begin, karras=True)


def unipc(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """UniPC of data prediction, Zhao et al. 2023 (2302.04867), algorithms 5 to 8; order and B(h) as configured."""
    if config.solver_order > 3:
        raise ScheduleError(f"unipc is served up to solver_order 3, not {config.solver_order}")
    grid = _log_snr(config, n, config.karras)
    count = len(grid.timesteps)
    rows: list[Step] = []
    order = 0
    for i in range(begin, count):
        x, outputs = X, (H0, H1, H2, H3)
        if rows and i - 1 not in config.disable_corrector:  # correct the sample that the model has just seen
            x = _unipc_update(grid, config, S, i - 1, outputs[1:], order, newest=H0)
        order = min(config.solver_order, len(rows) + 1)
        if config.lower_order_final:
            order = min(order, count - i)
        advanced = _unipc_update(grid, config, x, i, outputs, order)
        level = (float(grid.alpha[i]), float(grid.sigma[i]))
        rows.append(Step(float(grid.timesteps[i]), level, advanced, x, convert=grid.converted(config, i)))
    return rows


def _unipc_update(
    grid: _LogSnr,
    config: SchedulerConfig,
    x: Array,
    i: int,
    outputs: Sequence[Array],
    order: int,
    newest: Array | None = None,
) -> Array:
    """From point i to i + 1: UniP of ``order``, or UniC where ``newest``, the output at i + 1, is given.

    ``outputs`` are the data predictions at i, i - 1, … .
    """
    m0 = outputs[0]
    hh = -(grid.lambda_[i + 1] - grid.lambda_[i])
    ratios = [(grid.lambda_[i - k] - grid.lambda_[i]) / -hh for k in range(1, order)]
    differences = [(m - m0) / r for m, r in zip(outputs[1:], ratios)]
    if newest is not None:
        ratios.append(1.0)
        differences.append(newest - m0)
    big_b = hh if config.solver_type == "bh1" else np.expm1(hh)
    weights = _unipc_weights(np.array(ratios), float(hh), float(big_b))
    residual = sum((w * d for w, d in zip(weights, differences)), start=0 * m0)
    x = grid.sigma[i + 1] / grid.sigma[i] * x - grid.alpha[i + 1] * np.expm1(hh) * m0
    return np.asarray(x - grid.alpha[i + 1] * big_b * residual) if differences else np.asarray(x)


def _unipc_weights(ratios: Array, hh: float, big_b: float) -> Array:
    """rho of eq. 8: R rho = b; one half where there is a single unknown (order 2 predictor, order 1 corrector)."""
    if len(ratios) < 2:
        return np.full(len(ratios), 0.5)
    count = len(ratios)
    phi, factorial, b = math.expm1(hh) / hh - 1, 1, []
    for k in range(1, count + 1):
        b.append(phi * factorial / big_b)
        factorial *= k + 1
        phi = phi / hh - 1 / factorial
    return np.linalg.solve(np.stack([ratios**k for k in range(count)]), np.array(b))


def lcm(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """Latent consistency sampling, Luo et al. 2023 (2310.04378), algorithm 3, boundary condition of eq. 9."""
    original = config.original_inference_steps
    if n > original:
        raise ScheduleError(f"lcm takes at most the {original} steps that it was distilled with, not {n}")
    alpha_bar = config.alphas_cumprod()
    grid = (np.arange(1, original + 1) * (config.num_train_timesteps // original) - 1)[::-1]
    timesteps = grid[np.floor(np.linspace(0, original, n, endpoint=False)).astype(np.int64)]
    rows = []
    for i in range(begin, n):
        t = int(timesteps[i])
        alpha, sigma = math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t])
        x0, _ = _x0_and_eps(config, alpha, sigma, X, H0)
        scaled = t * config.timestep_scaling
        c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / math.sqrt(scaled**2 + 0.25)
        x = c_out * x0 + c_skip * X
        if i < n - 1:
            a_prev = alpha_bar[timesteps[i + 1]]
            x = math.sqrt(a_prev) * x + math.sqrt(1 - a_prev) * Z
        rows.append(Step(float(t), (alpha, sigma), x, S))
    return rows


# Adams-Bashforth weights by number of outputs at hand; PLMS keeps four (Liu et al. 2022, eq. 12).
_PLMS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def pndm(config: SchedulerConfig, n: int, begin: int, eta: float) -> list[Step]:
    """PNDM without Runge-Kutta steps (PLMS), Liu et al. 2022 (2202.09778), eq. 9 and 12; one call more than steps."""
    alpha_bar = config.alphas_cumprod(rescaled=False)
    final = _final_alpha_bar(config, alpha_bar, default_to_one=False)
    t = discrete_timesteps(config, n, config.spacing or "leading")
    calls = np.concatenate([t[:1], t[1:2], t[1:]])
    gap = config.num_train_timesteps // n
    rows: list[Step] = []
    for call in calls[begin:]:
        now, previous, sample, save = int(call), int(call) - gap, X, S
        if not rows:  # the first call: an Euler step, tried …
            output, save = H0, X
        elif len(rows) == 1:  # … and taken again with the mean of both slopes; this output is not kept for later
            now, previous, sample = now + gap, now, S
            output = (H0 + H1) / 2
        else:
            kept = [H0, H1, H2, H3, H4][: len(rows) + 1]
            kept = [h for k, h in enumerate(kept) if k != len(rows) - 1][:4]
            output = sum((w * h for w, h in zip(_PLMS[len(kept)], kept)), start=0 * H0)
        a, a_prev = alpha_bar[now], alpha_bar[previous] if previous >= 0 else final
        level = (math.sqrt(alpha_bar[int(call)]), math.sqrt(1 - alpha_bar[int(call)]))
        rows.append(Step(float(call), level, _pndm_transfer(config, a, a_prev, sample, output), save))
    return rows


def _pndm_transfer(config: SchedulerConfig, a: float, a_prev: float, sample: Array, output: Array) -> Array:
    if config.prediction_type == "v_prediction":
        output = math.sqrt(a) * output + math.sqrt(1 - a) * sample
    denominator = a * math.sqrt(1 - a_prev) + math.sqrt(a * (1 - a) * a_prev)
    return np.asarray(math.sqrt(a_prev / a) * sample - (a_prev - a) * output / denominator)


SOLVERS: dict[str, Solver] = {
    "ddim": ddim,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_karras": dpmpp_2m_karras,
    "unipc": unipc,
    "lcm": lcm,
    "pndm": pndm,
}
