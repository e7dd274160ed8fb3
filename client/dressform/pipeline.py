"""``load_models`` and ``generate_tryon``: the two functions of the prototype that this client replaces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from dressform.client import DEFAULT_URL, Client
from dressform.errors import ServerUnavailable
from dressform.options import Keywords, nearest
from dressform.pictures import Picture

_URL_NAMES = ("server", "url")
_KEYWORDS = frozenset({"mask", "prompt", *Keywords.__annotations__})


@dataclass(frozen=True)
class Pipeline:
    """A client that is known to serve ``tryon``, and the options every call starts from."""

    client: Client
    defaults: Mapping[str, Any] = field(default_factory=dict)


def load_models(opt: Any = None, *, client: Client | None = None) -> Pipeline:
    """Connects to the server, which holds the models, and checks that it is ready.

    Args:
        opt: the server's address, or a mapping or ``argparse.Namespace`` with the address under ``server`` or ``url``
            and any keyword of ``Client.tryon`` as a default. What a namespace has besides is left alone (it may be an
            older program's); a mapping with an unknown key is refused. Without an address the environment variable
            DRESSFORM_URL counts, then grpc://127.0.0.1:8001.
        client: used instead of a new one.

    Raises:
        TypeError: at an unknown key of a mapping.
        ServerUnavailable: if the server is not ready or does not serve ``tryon``.
    """
    given = _given(opt)
    url = next((given[name] for name in _URL_NAMES if given.get(name)), None) or os.environ.get("DRESSFORM_URL")
    connected = client or Client(url or DEFAULT_URL)
    health = connected.health()
    if not health or "tryon" not in health.tasks:
        if client is None:
            connected.close()
        raise health.error or ServerUnavailable(
            health.reason or f"{connected.url} serves {', '.join(health.tasks)}, but not tryon"
        )
    return Pipeline(connected, _defaults(given))


def generate_tryon(
    person_img: Picture, cloth_img: Picture | list[Picture], pipeline: Pipeline, opt: Any = None, **options: Any
) -> Image.Image:
    """The person in the cloth.

    ``options`` are keywords of ``Client.tryon``; they win over those in ``opt``, which is as in `load_models`, and
    those over the pipeline's defaults.
    """
    return pipeline.client.tryon(
        person_img, cloth_img, **{**pipeline.defaults, **_defaults(_given(opt)), **options}
    ).image


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``Client.tryon`` among them."""
    return {name: value for name, value in given.items() if name in _KEYWORDS and value is not None}


def _given(opt: Any) -> dict[str, Any]:
    if opt is None:
        return {}
    if isinstance(opt, str):
        return {"url": opt}
    if not isinstance(opt, Mapping):
        return dict(vars(opt))
    unknown = [str(name) for name in opt if name not in _KEYWORDS and name not in _URL_NAMES]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}: {nearest(unknown[0])}")
    return dict(opt)
