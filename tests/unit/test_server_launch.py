"""What `dressform serve` checks and says before and without Triton."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from dressform_server import (
    InstallationError,
    PortTaken,
    RepositoryError,
    Server,
    Settings,
    SettingsError,
    UnsupportedPlatform,
)
from dressform_server import settings as settings_module
from dressform_server.access import read_key
from dressform_server.container import IMAGE, KEY_SHOWN, docker_run
from dressform_server.flags import common
from dressform_server.journal import Journal, is_notable, reason_in
from dressform_server.launcher import main
from dressform_server.ports import chosen_ports
from dressform_server.repository import Repository
from dressform_server.settings import usable_cores
from dressform_server.shared_memory import Segments, started
from e2e.tls import certificates


def manifest(engine: str) -> str:
    """What the server reads of an export for ``engine`` and for tensorrt."""
    engines = {name: {"backend": name} for name in (engine, "tensorrt")}
    return json.dumps({"format": 1, "engine": engine, "engines": engines})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An exported repository of one model, as far as it is looked at before Triton is."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.pbtxt").touch()
    (tmp_path / "manifest.json").write_text(manifest("onnxruntime"))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"http_port": 70000}, "http port must be .*, not 70000"),
        ({"http_port": 8001}, "ports must differ, not be 8001, 8001, 8002"),
        ({"exit_timeout": -1}, "exit timeout .* not -1"),
        ({"longest_request": 0}, "longest request must be at least 1 second, not 0"),
        ({"onnx_threads": 0}, "ONNX threads must be at least 1, not 0"),
        ({"log_format": "xml"}, "log format must be one of text, json, not 'xml'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        Server(Path("anywhere"), **options)


@pytest.mark.parametrize(
    ("certificate", "key", "authority", "sentence"),
    [
        ("none.pem", "server.key", None, "none.pem' cannot be read"),
        ("server.pem", "none.key", None, "none.key' cannot be read"),
        ("server.pem", "client.key", None, "server.pem' and .*client.key' are no certificate and its key"),
        ("server.key", "server.key", None, "are no certificate and its key"),
        ("server.pem", "server.key", "server.key", "server.key' has no certificate"),
        ("server.pem", None, None, "TLS needs both, the certificate and its key"),
        (None, None, "ca.pem", "TLS needs both, the certificate and its key"),
    ],
)
def test_tls_files_of_no_use_are_refused(
    tmp_path: Path, certificate: str | None, key: str | None, authority: str | None, sentence: str
) -> None:
    certificates(tmp_path)
    right = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    Settings(tmp_path, **right, tls_client_ca=tmp_path / "ca.pem")  # type: ignore[arg-type]
    files = zip(("tls_certificate", "tls_key", "tls_client_ca"), (certificate, key, authority))
    with pytest.raises(SettingsError, match=sentence):
        Settings(tmp_path, **{name: tmp_path / file for name, file in files if file})  # type: ignore[arg-type]


def test_traces_without_their_packages_are_refused_with_what_to_install(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dressform_server.installation.TRACE_MODULES", ("no_such_package.sdk",))
    server = Server(repository, http_port=0, grpc_port=0, metrics_port=0, otlp_endpoint="http://127.0.0.1:4318")
    with pytest.raises(InstallationError, match=r"cannot import no_such_package.sdk: .*'dressform\[serve,trace\]'"):
        server.start()


@pytest.mark.parametrize("text", ["short", "two words in one line!", "", "schlüssel-aus-sechzehn"])
def test_poor_keys_are_refused_and_not_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_key(tmp_path / "key")
    assert not text or text not in str(refused.value)


def test_models_are_loaded_by_the_repository_alone_and_all_of_them() -> None:
    words = common(Settings(Path("models")), Path("models"), {"http": 1})
    assert {"--model-control-mode=none", "--strict-readiness=true", "--disable-auto-complete-config"} <= set(words)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_server_that_others_can_reach_says_what_that_means(repository: Path, host: str, warned: bool) -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken):  # after the warning, before Triton
            Server(repository, host=host, grpc_port=port, echo=said.append).start()
    assert any("known security holes" in line for line in said) is warned


@pytest.mark.parametrize(
    ("host", "exposed"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("10.1.2.3", True)],
)
def test_only_loopback_is_private(host: str, exposed: bool) -> None:
    assert Settings(Path("anywhere"), host=host).exposed is exposed


def test_a_container_quota_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(settings_module, "_CPU_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == 64
    quota.write_text("250000 100000\n")
    assert usable_cores() == 3
    quota.write_text("max 100000\n")
    assert usable_cores() == 64


def test_a_folder_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"does not exist.*dressform-export"):
        Repository.read(tmp_path / "missing")
    with pytest.raises(RepositoryError, match=r"no manifest.json"):
        Repository.read(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RepositoryError, match="is not JSON"):
        Repository.read(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(RepositoryError, match=r"format 1 .* has format 99"):
        Repository.read(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest("onnxruntime"))
    with pytest.raises(RepositoryError, match="no model"):
        Repository.read(tmp_path)


@pytest.mark.parametrize(("default", "engine"), [("tensorrt", None), ("onnxruntime", "tensorrt")])
def test_an_engine_without_a_backend_is_refused_with_the_container(
    repository: Path, default: str, engine: str | None
) -> None:
    (repository / "manifest.json").write_text(manifest(default))
    with pytest.raises(RepositoryError, match=r"'tensorrt' needs.*has onnxruntime, openvino") as refusal:
        Server(repository, engine=engine).start()
    assert IMAGE in str(refusal.value)
    assert ("--model-config-name=tensorrt" in str(refusal.value)) == (engine is not None)


def test_an_engine_that_was_not_exported_is_refused(repository: Path) -> None:
    with pytest.raises(RepositoryError, match="exported for onnxruntime, tensorrt, not for 'openvino'"):
        Server(repository, engine="openvino").start()


def test_an_engine_that_is_not_installed_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "manifest.json").write_text(manifest("openvino"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(InstallationError, match=r"cannot import openvino: pip install 'dressform\[serve,openvino\]'"):
        Server(repository).start()


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_another_platform_gets_the_docker_line(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    system: str,
    machine: str,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert main([str(repository), "--http-port", "9000"]) == 1
    shown = capsys.readouterr().err
    assert f"{system} on {machine}" in shown
    line = next(line for line in shown.splitlines() if line.startswith("docker run"))
    words = shlex.split(line)
    assert {"127.0.0.1:9000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"} <= set(words)
    assert f"{repository}:/models:ro" in words
    assert IMAGE in words
    assert "tritonserver --model-repository=/models" in words[-1]


def test_without_pytriton_the_docker_line_is_shown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedPlatform, match=r"not installed: pip install 'dressform\[serve\]'(?s:.*)docker run"):
        Server(repository).start()


def test_the_docker_line_names_an_absolute_folder() -> None:
    words = shlex.split(docker_run(Settings(Path("models"), http_port=0)))
    assert f"{Path.cwd()}/models:/models:ro" in words
    assert "127.0.0.1:8000:8000" in words


def test_the_docker_line_does_not_tell_the_key() -> None:
    line = docker_run(Settings(Path("models"), admin_key="0123456789abcdef"))
    assert "0123456789abcdef" not in line
    assert f"dressform-admin={KEY_SHOWN}" in line


def test_a_full_disk_costs_the_log_alone() -> None:
    shown: list[str] = []
    journal = Journal(Path("/dev/full"), shown.append, verbose=True)
    read, write = os.pipe()
    journal.follow(os.fdopen(read))
    with os.fdopen(write, "w") as triton:
        triton.write("one\ntwo\nthree\n")
    journal.finish()
    assert [line for line in shown if "cannot be written" not in line] == ["one", "two", "three"]
    assert sum("the log cannot be written: [Errno 28] No space left" in line for line in shown) == 1


def test_segments_of_a_killed_launcher_are_removed_and_no_others(tmp_path: Path) -> None:
    mine = started(os.getpid())
    names = [f"dressform_{os.getpid()}_{mine}_ab_shm", f"dressform_{os.getpid()}_{mine + 1 if mine else 0}_ab_shm"]
    names += ["dressform_4194305_12_ab_shm", "dressform_else", "another"]
    for name in names:
        (tmp_path / name).touch()
    Segments(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([names[0], "dressform_else", "another"])


def test_a_servers_own_segments_are_removed_after_it(tmp_path: Path) -> None:
    one, other = Segments(tmp_path), Segments(tmp_path)
    named = [segments.options(["python"])[0].partition("shm-region-prefix-name=")[2] for segments in (one, other)]
    for name in (*(f"{prefix}shm" for prefix in named), "dressform-77-1.jobs", "dressform-78-1.jobs"):
        (tmp_path / name).touch()
    (tmp_path / "dressform-77-1.handover").mkdir()
    one.clear(77)
    assert {file.name for file in tmp_path.iterdir()} == {f"{named[1]}shm", "dressform-78-1.jobs"}


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"grpc port {port} on 127.0.0.1 is in use.*--grpc-port"):
            chosen_ports("127.0.0.1", {"http": 0, "grpc": port, "metrics": 0})


def test_free_ports_differ() -> None:
    ports = chosen_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0})
    assert len(set(ports.values())) == 3
    assert 0 not in ports.values()


def test_a_host_elsewhere_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"address of this machine, not '192\.0\.2\.1'"):
        chosen_ports("192.0.2.1", {"http": 0})


REFUSED = (
    "E1122 19:00:30.785731 5976 model_lifecycle.cc:642] \"failed to load 'unet' version 1: Internal: "
    "TritonModelException: model.onnx: input 'sample': the configuration says A, the graph B\\n\\nAt:\\n"
    '  /backends/onnxruntime/model.py(33): initialize\\n"'
)
BROKEN = (
    "E1122 19:00:30.785731 5976 model_lifecycle.cc:642] \"failed to load 'denoise' version 1: Internal: "
    "ModuleNotFoundError: No module named 'torch'\\n\\nAt:\\n  /models/denoise/1/model.py(3): <module>\\n\""
)


def test_the_reason_of_a_failed_start_is_the_models_own() -> None:
    assert reason_in(['I1122 19:00:30.1 1 server.cc:1] "x"', REFUSED, BROKEN, REFUSED]) == (
        "model unet: model.onnx: input 'sample': the configuration says A, the graph B\n"
        "model denoise: ModuleNotFoundError: No module named 'torch' (at /models/denoise/1/model.py(3): <module>)"
    )


def test_without_a_failed_model_the_last_errors_are_the_reason() -> None:
    harmless = 'E1122 19:00:30.1 1 server.cc:241] "CudaDriverHelper has not been initialized."'
    error = 'E1122 19:00:30.1 1 grpc_server.cc:1] "no such file"'
    assert reason_in([harmless, error, "error: creating server"]) == '"no such file"\nerror: creating server'
    assert reason_in(["Segmentation fault"]) == "Segmentation fault"
    assert reason_in([]) == "its log is empty"


def test_errors_wait_until_the_server_is_ready(tmp_path: Path) -> None:
    shown: list[str] = []
    log = tmp_path / "triton.log"
    journal = Journal(log, shown.append, verbose=False)
    lines = [
        REFUSED,
        'W1122 19:00:30.1 1 a.cc:1] "careful"',
        "I1122 19:00:30.1 1 a.cc:1] \"successfully loaded 'unet'\"",
    ]
    source = tmp_path / "lines"
    source.write_text("\n".join(lines) + "\n")
    journal.follow(source.open())
    journal.finish()
    assert journal.loaded == 1
    assert shown == [lines[1]]
    journal.release()
    assert shown == [lines[1], REFUSED]
    assert log.read_text() == source.read_text()
    assert not is_notable(lines[2])
