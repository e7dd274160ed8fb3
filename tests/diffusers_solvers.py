"""diffusers' scheduler for each of our solvers: what they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
}

SOLVERS = tuple(_SCHEDULERS)


def scheduler(solver: str, config: Mapping[str, Any]) -> Any:
    """diffusers' scheduler for ``solver`` with the configuration ``config``."""
    cls, extra = _SCHEDULERS[solver]
    return cls.from_config({**config, **extra})
