"""Administration asks for a key on both protocols, gRPC speaks TLS, and prompts stay out of the log."""

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

from dressform import TLS, AccessDenied, Client, DressformError
from dressform_contract import ADMIN_HEADER, TRITON_PREFIX
from dressform_server import Server
from e2e.launching import launch
from e2e.tls import certificates
from waiting import wait_until

GRPC_HEADER = TRITON_PREFIX + ADMIN_HEADER
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
                    get(f"{http}/{path}", {ADMIN_HEADER: key} if key else {})
                assert refused.value.code == 403, path
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(headers={GRPC_HEADER: key} if key else None)
            get(f"{http}/{path}", {ADMIN_HEADER: KEY})
            call(headers={GRPC_HEADER: KEY})
        with pytest.raises(InferenceServerException, match="not allowed"):
            grpc.unload_model("unet", headers={GRPC_HEADER: KEY})
        grpc.close()
        for address in (server.http_url, server.grpc_url):
            with Client(address, timeout=60) as client:  # users need no key
                client.inpaint(photo, mask, PROMPT, num_inference_steps=2)
                assert client.health().ready
                with pytest.raises(AccessDenied):
                    client.models()
            with Client(address, timeout=60, headers={"Dressform-Admin": KEY}) as operator:
                assert {"inpaint", "unet"} <= {model.name for model in operator.models()}
    written = log.read_text()
    assert written
    assert KEY not in written
    assert PROMPT not in written


def get(url: str, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)


@pytest.mark.parametrize("mutual", [False, True])
def test_grpc_is_encrypted_and_knows_its_clients(
    tiny_tryon_repository: Path, tmp_path: Path, photo: Image.Image, mask: Image.Image, mutual: bool
) -> None:
    certificates(tmp_path)
    options: dict[str, Any] = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    options |= {"tls_client_ca": tmp_path / "ca.pem"} if mutual else {}
    own = {"certificate_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"} if mutual else {}
    right = TLS(ca_file=tmp_path / "ca.pem", **own)
    with Server(tiny_tryon_repository, http_port=0, grpc_port=0, metrics_port=0, **options) as server:
        server.wait_ready(60)
        assert server.grpc_url.startswith("grpcs://")
        with Client(server.grpc_url, timeout=60, tls=right) as client:
            handle = client.submit_inpaint(photo, mask, PROMPT, num_inference_steps=5)
            assert [news.state for news in handle.progress()][-1] == "done"
            assert handle.result().images
        refused = [(server.grpc_url, TLS()), (server.grpc_url.replace("grpcs", "grpc"), None)]
        if mutual:
            stranger = {"certificate_file": tmp_path / "stranger.pem", "key_file": tmp_path / "stranger.key"}
            refused += [(server.grpc_url, TLS(ca_file=tmp_path / "ca.pem", **extra)) for extra in ({}, stranger)]
        for url, tls in refused:
            with Client(url, timeout=5, tls=tls, retries=0) as client, pytest.raises(DressformError):
                client.inpaint(photo, mask, PROMPT, num_inference_steps=1)


def test_the_log_is_json_from_the_first_line_to_the_last(
    tiny_tryon_repository: Path, tmp_path: Path, photo: Image.Image, mask: Image.Image
) -> None:
    said, log = tmp_path / "said", tmp_path / "triton.log"
    launched = launch(
        tiny_tryon_repository,
        "--log-format",
        "json",
        "--log-file",
        str(log),
        "--verbose",
        log=said,
    )
    try:
        wait_until(lambda: "ready: " in said.read_text(), 60)
        sentences = [json.loads(line)["message"] for line in said.read_text().splitlines()]
        (ready,) = [sentence for sentence in sentences if sentence.startswith("ready: ")]
        with Client(ready.split()[2], timeout=60) as client:
            client.inpaint(photo, mask, PROMPT, num_inference_steps=2, headers={"dressform-client": "shop-a"})
        wait_until(lambda: "shop-a" in log.read_text(), 30)
    finally:
        launched.terminate()
        assert launched.wait(60) == 0
    entries = [json.loads(line) for path in (said, log) for line in path.read_text().splitlines()]
    assert all(entry.keys() >= {"time", "level", "source", "message"} for entry in entries)
    requests = [entry for entry in entries if entry["message"] == "request"]
    assert all((one["client"], one["outcome"]) == ("shop-a", "done") for one in requests)
    assert requests
    assert PROMPT not in said.read_text() + log.read_text()
