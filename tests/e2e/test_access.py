"""Administration asks for a key on both protocols, nobody loads a model, and prompts stay out of the log."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from dressform import Client
from dressform_server import Server
from dressform_server.access import GRPC_HEADER, HEADER

KEY = "a-key-of-the-test-alone"
PROMPT = "a coat that nobody may read of"


def test_administration_asks_for_the_key(
    tiny_tryon_repository: Path, tmp_path: Path, photo: Image.Image, mask: Image.Image
) -> None:
    log = tmp_path / "triton.log"
    free = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with Server(tiny_tryon_repository, admin_key=KEY, log=log, **free) as server:
        server.wait_ready(60)
        http, grpc = server.http_url, triton.InferenceServerClient(server.grpc_url.removeprefix("grpc://"))
        administration = {
            "v2/systemsharedmemory/status": grpc.get_system_shared_memory_status,
            "v2/trace/setting": grpc.get_trace_settings,
            "v2/logging": grpc.get_log_settings,
        }
        for path, call in administration.items():
            for key in (None, "a-wrong-key"):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    get(f"{http}/{path}", {HEADER: key} if key else {})
                assert refused.value.code == 403, path
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(headers={GRPC_HEADER: key} if key else None)
            get(f"{http}/{path}", {HEADER: KEY})
            call(headers={GRPC_HEADER: KEY})
        with pytest.raises(InferenceServerException, match="not allowed"):
            grpc.unload_model("unet")
        grpc.close()
        for address in (server.http_url, server.grpc_url):  # users need no key
            with Client(address, timeout=60) as client:
                assert client.models()
                client.inpaint(photo, mask, PROMPT, num_inference_steps=2)
    written = log.read_text()
    assert written
    assert KEY not in written
    assert PROMPT not in written


def get(url: str, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)
