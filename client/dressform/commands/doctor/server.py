"""Checks of a server: whether it answers, what it serves, and if asked whether it makes a picture."""

from __future__ import annotations

import time
from collections.abc import Iterator

from PIL import Image

from dressform.client import Client
from dressform.commands.doctor.findings import Finding, fault, note, ok
from dressform.errors import AccessDenied, DressformError

QUESTION_SECONDS = 5.0
_TINY = 64
_REQUEST_SECONDS = 300.0


def checks(client: Client, request: bool, timeout: float) -> Iterator[Finding]:
    """All of them; ``request``: whether a picture is to be made. ``timeout``: seconds for each answer."""
    health = client.health(timeout)
    if not health:
        mend = "check the address, start it (dressform serve REPO), or look at its log"
        if isinstance(health.error, AccessDenied):
            mend = health.error.advice
        yield fault("server", health.reason, mend)
        return
    yield ok("server", f"{client.url} is ready: {health.server} serves {', '.join(health.tasks)}")
    yield _models(client, timeout)
    if request:
        yield _picture(client, health.tasks)


def _models(client: Client, timeout: float) -> Finding:
    try:
        models = client.models(timeout)
    except DressformError as error:
        return note("models", f"not told: {error}", "a proxy may keep the repository's index to itself")
    broken = [f"{model.name} ({model.reason or 'not ready'})" for model in models if not model.ready]
    if broken:
        return fault(
            "models", f"not ready: {', '.join(broken)}", "look at the server's log; export again if a graph is broken"
        )
    return ok("models", ", ".join(f"{model.name} {model.version}" for model in models))


def _picture(client: Client, tasks: tuple[str, ...]) -> Finding:
    if "inpaint" not in tasks:
        return note("request", "not tried: the server has no inpaint")
    began = time.monotonic()
    photo, mask = Image.new("RGB", (_TINY, _TINY), "grey"), Image.new("L", (_TINY, _TINY), 255)
    try:
        result = client.inpaint(photo, mask, "a coat", num_inference_steps=1, timeout=_REQUEST_SECONDS)
    except DressformError as error:
        return fault("request", str(error), "look at the server's log")
    size = "{width} × {height}".format(**result.info)
    return ok("request", f"one step at {size} took {time.monotonic() - began:.1f} s")
