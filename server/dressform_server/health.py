"""Whether a server of this machine is ready, and where it answers."""

from __future__ import annotations

import urllib.request


def address(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def answers_ready(http_address: str) -> bool:
    """Whether every model is ready. Not asked through a proxy of the environment: it is this machine's own."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{http_address}/v2/health/ready", timeout=2):
            return True
    except OSError:  # urllib's errors are OSErrors: no answer yet, or 400 while models load
        return False
