"""Noise schedules: the betas, timesteps and sigmas that a diffusers ``scheduler_config.json`` describes.

Notation: ``alphas_cumprod[t]`` is the product of (1 - beta) up to training timestep t (Ho et al. 2020), called
alpha-bar in the papers; ``sigma = sqrt((1 - alphas_cumprod) / alphas_cumprod)`` is the noise-to-signal ratio
(Karras et al. 2022). The betas and their products are kept in float32 as diffusers has them, since models are trained
and used with those (near zero SNR the difference shows); all other arithmetic is float64.

Spacings are those of Lin et al. 2023, table 2. A key that the file lacks takes the default of the diffusers class that
implements the solver, which is what ``from_config`` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPACINGS = ("leading", "linspace", "trailing")
_UNSUPPORTED = (
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)


class ScheduleError(ValueError):
    """A scheduler configuration, or a number of steps, that no linear plan exists for."""


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: plans are remembered by it
class SchedulerConfig:
    """The part of ``scheduler_config.json`` that the solvers read.

    ``spacing`` and ``set_alpha_to_one`` are None where the file has no such key: each solver then has its own default.
    """

    num_train_timesteps: int = 1000
    betas: Array = field(default_factory=lambda: _betas({}))
    prediction_type: str = "epsilon"
    spacing: str | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool | None = None
    zero_snr: bool = False
    karras: bool = False
    final_sigma_zero: bool = True
    lower_order_final: bool = True
    euler_at_final: bool = False
    solver_order: int = 2
    solver_type: str = "bh2"
    disable_corrector: tuple[int, ...] = ()
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ScheduleError(f"prediction_type must be epsilon or v_prediction, not {self.prediction_type!r}")
        if self.spacing is not None and self.spacing not in SPACINGS:
            raise ScheduleError(f"timestep_spacing must be one of {', '.join(SPACINGS)}, not {self.spacing!r}")
        if self.zero_snr and self.prediction_type == "epsilon":
            raise ScheduleError(
                "rescale_betas_zero_snr needs prediction_type v_prediction: at zero signal, epsilon says nothing of x_0"
            )

    @classmethod
    def from_json(cls, config: Mapping[str, object]) -> SchedulerConfig:
        """Read a diffusers scheduler configuration.

        Raises:
            ScheduleError: for what is not a linear function of sample, outputs and noise (``clip_sample``,
                ``thresholding``), or not implemented.
        """
        for key in ("clip_sample", "thresholding"):
            if config.get(key):
                raise ScheduleError(
                    f"{key} is true: clipped steps are not linear and are not supported; set it to false"
                )
        for key in _UNSUPPORTED:
            if config.get(key):
                raise ScheduleError(f"{key} is true, which is not supported; supported are plain and Karras sigmas")
        for key, fine in (("interpolation_type", "linear"), ("timestep_type", "discrete"), ("predict_x0", True)):
            if config.get(key, fine) != fine:
                raise ScheduleError(f"{key} must be {fine!r}, not {config[key]!r}")
        if config.get("skip_prk_steps") is False and config.get("_class_name") == "PNDMScheduler":
            raise ScheduleError("skip_prk_steps must be true: pndm is served without Runge-Kutta steps (PLMS)")
        get = config.get
        spacing, to_one = get("timestep_spacing"), get("set_alpha_to_one")
        is_unipc = get("_class_name") == "UniPCMultistepScheduler"
        return cls(
            num_train_timesteps=_integer(get("num_train_timesteps", 1000)),
            betas=_betas(config),
            prediction_type=str(get("prediction_type", "epsilon")),
            spacing=None if spacing is None else str(spacing),
            steps_offset=_integer(get("steps_offset", 0)),
            set_alpha_to_one=None if to_one is None else bool(to_one),
            zero_snr=bool(get("rescale_betas_zero_snr", False)),
            karras=bool(get("use_karras_sigmas", False)),
            final_sigma_zero=get("final_sigmas_type", "zero") == "zero",
            lower_order_final=bool(get("lower_order_final", True)),
            euler_at_final=bool(get("euler_at_final", False)),
            solver_order=_integer(get("solver_order", 2)) if is_unipc else 2,
            solver_type=str(get("solver_type", "bh2")) if is_unipc else "bh2",
            disable_corrector=tuple(_integer(i) for i in _items(get("disable_corrector"))),
            original_inference_steps=_integer(get("original_inference_steps", 50)),
            timestep_scaling=float(_number(get("timestep_scaling", 10.0))),
        )

    def alphas_cumprod(self, *, rescaled: bool = True) -> Array:
        """alpha-bar by training timestep, ``[num_train_timesteps]``; ``rescaled=False`` leaves zero-SNR out (pndm)."""
        betas = self.betas.astype(np.float32)
        if self.zero_snr and rescaled:
            betas = _zero_terminal_snr(betas)
        return _cumprod(betas).astype(np.float64)

    def sigmas(self) -> Array:
        """sigma by training timestep, ``[num_train_timesteps]``, finite also at zero SNR (alpha-bar ≥ 2**-24)."""
        alphas = self.alphas_cumprod()
        if self.zero_snr:
            alphas[-1] = 2.0**-24
        return np.sqrt((1 - alphas) / alphas)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScheduleError(f"a number was expected in the scheduler configuration, not {value!r}")
    return float(value)


def _integer(value: object) -> int:
    return int(_number(value))


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _betas(config: Mapping[str, object]) -> Array:
    """The training betas, ``[num_train_timesteps]``."""
    if config.get("trained_betas") is not None:
        return np.array([_number(beta) for beta in _items(config["trained_betas"])])
    n = _integer(config.get("num_train_timesteps", 1000))
    start, end = _number(config.get("beta_start", 0.0001)), _number(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return _linspace(start, end, n)
    if kind == "scaled_linear":  # latent diffusion (Rombach et al. 2022)
        return np.asarray(_linspace(math.sqrt(start), math.sqrt(end), n).astype(np.float32) ** 2, np.float64)
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        t = np.arange(n + 1) / n
        alpha_bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.asarray(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999))
    raise ScheduleError(f"beta_schedule must be linear, scaled_linear or squaredcos_cap_v2, not {kind!r}")


def _cumprod(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """The running product of (1 - beta); torch accumulates it in float64 and stores float32."""
    return np.cumprod((1 - betas).astype(np.float64)).astype(np.float32)


def _linspace(start: float, end: float, n: int) -> Array:
    """torch.linspace in float32: from both ends to the middle."""
    low, high = np.float32(start), np.float32(end)
    i, step = np.arange(n, dtype=np.float32), (high - low) / np.float32(max(n - 1, 1))
    return np.where(i < n // 2, low + step * i, high - step * (n - 1 - i)).astype(np.float64)


def _zero_terminal_snr(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Betas rescaled so that the last timestep has no signal (Lin et al. 2023, algorithm 1)."""
    root = np.sqrt(_cumprod(betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - np.concatenate([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


def discrete_timesteps(config: SchedulerConfig, n: int, spacing: str) -> NDArray[np.int64]:
    """Training timesteps of ``n`` steps, ``[n]``, descending, as ddim and pndm have them."""
    train = config.num_train_timesteps
    if n > train:
        raise ScheduleError(f"num_inference_steps {n} is above the {train} steps of training")
    if spacing == "linspace":
        return np.linspace(0, train - 1, n).round()[::-1].astype(np.int64)
    if spacing == "leading":
        return (np.arange(n) * (train // n))[::-1].astype(np.int64) + config.steps_offset
    return np.round(np.arange(train, 0, -train / n)).astype(np.int64) - 1


def multistep_timesteps(config: SchedulerConfig, n: int, spacing: str) -> NDArray[np.int64]:
    """Training timesteps of ``n`` steps, ``[n]``, descending, as dpmpp_2m and unipc have them (n + 1, last cut)."""
    train = config.num_train_timesteps
    if spacing == "linspace":
        return np.linspace(0, train - 1, n + 1).round()[::-1][:-1].astype(np.int64)
    if spacing == "leading":
        return (np.arange(n + 1) * (train // (n + 1)))[::-1][:-1].astype(np.int64) + config.steps_offset
    return np.arange(train, 0, -train / n).round().astype(np.int64) - 1


def continuous_timesteps(config: SchedulerConfig, n: int, spacing: str) -> Array:
    """Timesteps of ``n`` steps, ``[n]``, descending, not rounded for linspace, as the euler solvers have them."""
    if spacing == "linspace":
        return np.linspace(0, config.num_train_timesteps - 1, n, dtype=np.float32)[::-1].astype(np.float64)
    return discrete_timesteps(config, n, spacing).astype(np.float64)


def karras_sigmas(low: float, high: float, n: int) -> Array:
    """``n`` sigmas from ``high`` down to ``low`` (Karras et al. 2022, eq. 5, rho = 7)."""
    ramp = np.linspace(0, 1, n)
    return np.asarray((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7)


def timesteps_of(sigmas: Array, training: Array) -> Array:
    """Timesteps at which training had these ``sigmas``: linear between neighbours in log sigma."""
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), np.log(training), np.arange(len(training)))
