"""docker/: images linted, the compose file valid and strict, the build's context without what does not belong."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dressform_server import InstallationError, RepositoryError, Settings, launcher
from dressform_server.container import IMAGE
from dressform_server.health import answers_ready
from dressform_server.native import command, main
from dressform_server.ports import chosen_ports
from dressform_server.process import UNLOAD_SECONDS
from dressform_server.shared_memory import FOLDER, Segments

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = [name for name, service in SERVICES.items() if service["restart"] != "no"]


def hadolint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([Path(sys.executable).with_name("hadolint"), dockerfile], capture_output=True, text=True)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(dockerfile: Path) -> None:
    assert hadolint(dockerfile).stdout == ""
    assert hadolint(dockerfile).returncode == 0


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN pip install numpy && cd /tmp\n")
    assert hadolint(bad).returncode == 1


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_labelled_and_run_as_nobody(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    for image in re.findall(r"^(?:FROM|ARG BASE=)\s*([a-z][\w./-]*[:/][\w.:/-]+)", text, re.MULTILINE):
        assert re.search(r":\d+\.\d+", image), f"{image} has no version"
    final = text[text.rindex("FROM ") :] if "tools" not in text else text[text.index("AS tools") :]
    assert "org.opencontainers.image.title" in final
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE)[-1] == "10001"
    assert re.search(r"^HEALTHCHECK ", final, re.MULTILINE)
    assert re.search(r"^ENTRYPOINT \[", final, re.MULTILINE)
    assert text.count("\nFROM ") >= 2, "one stage"


def test_the_gpu_image_is_the_one_that_the_server_names() -> None:
    assert re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile.gpu").read_text(), re.MULTILINE) == [IMAGE, IMAGE]


def compose() -> list[str]:
    """The program that reads compose files."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("neither docker-compose nor docker compose is installed")


@pytest.mark.parametrize("profile", ["cpu", "gpu", "edge", "app", "export", "monitoring", "bench"])
def test_compose_takes_each_profile(profile: str) -> None:
    checked = subprocess.run(
        [*compose(), "-f", DOCKER / "compose.yaml", "--profile", profile, "config"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARN" not in checked.stderr, checked.stderr
    profiles = {name: service["profiles"] for name, service in yaml.safe_load(checked.stdout)["services"].items()}
    assert [profile] in profiles.values()


def test_compose_would_refuse_a_mistake(tmp_path: Path) -> None:
    bad = tmp_path / "compose.yaml"
    bad.write_text((DOCKER / "compose.yaml").read_text().replace("read_only: true", "read_onely: true"))
    assert subprocess.run([*compose(), "-f", bad, "config"], capture_output=True).returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if "build" not in service:
        assert re.search(r":v?\d+\.\d+", service["image"]), "no version"
    for port in service.get("ports", []):
        assert name == "edge" or port.startswith("127.0.0.1:"), f"{port} is open to the world"
    for variable, value in service.get("environment", {}).items():
        assert not re.search("KEY|PASSWORD|TOKEN", variable) or value.startswith("/run/secrets/"), variable


@pytest.mark.parametrize("name", LASTING)
def test_lasting_services_have_a_health_check(name: str) -> None:
    service = SERVICES[name]
    if "healthcheck" not in service:
        target = service["build"].get("target", "")
        assert target == ""
        text = (ROOT / service["build"]["dockerfile"]).read_text()
        assert "8000/v2/health/ready" in text[text.rindex("HEALTHCHECK") :]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_stop_leaves_time_to_finish(name: str) -> None:
    service = SERVICES[name]
    parser = argparse.ArgumentParser(exit_on_error=False)
    launcher.add_shared_arguments(parser)
    known, _ = parser.parse_known_args(["/models", *service["command"]])
    assert known.longest_request < known.exit_timeout
    assert int(service["stop_grace_period"].removesuffix("s")) > known.exit_timeout + UNLOAD_SECONDS
    assert service["shm_size"].startswith("${DRESSFORM_SHM:-")


@pytest.mark.parametrize("name", ["edge", "app"])
def test_what_requests_flow_through_ends_after_the_servers(name: str) -> None:
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace >= max(int(SERVICES[server]["stop_grace_period"].removesuffix("s")) for server in ("cpu", "gpu"))


@pytest.mark.parametrize(("name", "add"), [("cpu", launcher.add_arguments), ("gpu", launcher.add_shared_arguments)])
def test_servers_understand_their_commands(name: str, add: Callable[[argparse.ArgumentParser], None]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add(parser)
    text = (ROOT / SERVICES[name]["build"]["dockerfile"]).read_text()
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[-1])
    assert parser.parse_args([*entry[entry.index("/models") :], *SERVICES[name]["command"]]).host == "0.0.0.0"


def test_secrets_are_files_that_git_does_not_see() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    for secret in COMPOSE["secrets"].values():
        path = DOCKER / secret["file"]
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps ``path`` out of the context: the last pattern that matches it or a parent decides."""
    found = False
    for pattern in patterns:
        rest = pattern.removeprefix("!").split("**/")
        words = [re.escape(word).replace(r"\*", "[^/]*") for word in rest]
        if re.fullmatch("(.*/)?".join(words) + "(/.*)?", path):
            found = not pattern.startswith("!")
    return found


def test_the_context_holds_what_is_copied_and_no_weights() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    files = [ROOT / name for name in listed if name and not ignored(name, patterns)]
    assert not [file for file in files if file.suffix in (".safetensors", ".onnx", ".bin", ".pt")]
    assert sum(file.stat().st_size for file in files) < 8e6
    tops = {file.relative_to(ROOT).parts[0] for file in files}
    copied = {
        word
        for dockerfile in DOCKERFILES
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile.read_text(), re.MULTILINE)
        for word in line.split()
    }
    assert tops == copied


PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}


@pytest.fixture
def triton(tmp_path: Path) -> Path:
    """A folder like NVIDIA's /opt/tritonserver, whose program tells its arguments."""
    binary = tmp_path / "triton" / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    binary.chmod(0o755)
    for backend in ("onnxruntime", "python", "tensorrt"):
        (tmp_path / "triton" / "backends" / backend).mkdir(parents=True)
    return tmp_path / "triton"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.pbtxt").touch()
    engines = '{"cuda": {"backend": "onnxruntime"}, "openvino": {"backend": "openvino"}}'
    (folder / "manifest.json").write_text(f'{{"format": 1, "engine": "cuda", "engines": {engines}}}')
    return folder


def test_the_native_server_is_as_strict_as_the_embedded(triton: Path, repository: Path) -> None:
    words = command(
        Settings(repository, host="127.0.0.1", engine="cuda", exit_timeout=120), PORTS, triton, Segments(triton)
    )
    assert words[0] == str(triton / "bin" / "tritonserver")
    assert {
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--exit-timeout-secs=120",
        "--http-address=127.0.0.1",
        "--model-config-name=cuda",
    } <= set(words)


def test_the_native_server_says_what_it_cannot_serve(
    triton: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RepositoryError, match="'openvino' needs Triton's backend openvino"):
        command(Settings(repository, engine="openvino"), PORTS, triton, Segments(triton))
    with pytest.raises(InstallationError, match=r"missing: this is for NVIDIA's container; elsewhere: dressform serve"):
        command(Settings(repository), PORTS, triton / "nowhere", Segments(triton))
    assert main([str(repository / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("dressform: ")


def native_run(triton: Path, repository: Path, *words: str) -> list[str]:
    """The lines of the native server around ``triton``, whose program ends at once."""
    code = f"from pathlib import Path; from dressform_server import native; native.TRITON = Path({str(triton)!r})\n"
    free = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    return subprocess.run(
        [
            sys.executable,
            "-c",
            code + "import sys; sys.exit(native.main())",
            repository,
            "--engine=cuda",
            *free,
            *words,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr.splitlines()


def test_the_native_server_runs_triton(triton: Path, repository: Path) -> None:
    became = native_run(triton, repository, "--triton-option=--log-verbose=1")
    assert "--model-config-name=cuda" in became
    assert became[-1] == "--log-verbose=1"


def test_the_native_server_logs_as_the_embedded_does(triton: Path, repository: Path) -> None:
    (triton / "bin" / "tritonserver").write_text(
        "#!/bin/sh\n"
        'echo "plain"\n'
        r"""echo 'I1122 19:00:30.785731 5976 model.py:1] "request id=eb2ee5ab task=inpaint outcome=done ms=26.4"' >&2"""
    )
    plain, request = [json.loads(line) for line in native_run(triton, repository, "--log-format", "json")]
    assert (plain["message"], plain["source"]) == ("plain", "triton")
    assert request["message"] == "request"
    assert (request["id"], request["outcome"]) == ("eb2ee5ab", "done")


def test_the_native_server_leaves_no_shared_memory_of_its_own_or_its_predecessors(
    triton: Path, repository: Path
) -> None:
    left = FOLDER / "dressform_4194305_12_test_shm"  # of an id that no process has
    left.touch()
    (triton / "bin" / "tritonserver").write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in *,shm-region-prefix-name=*)\n'
        '    name="/dev/shm/${word#*name=}segment"; touch "$name" && echo "$name";;\n'
        "esac; done\n"
    )
    (named,) = native_run(triton, repository)
    assert re.fullmatch(r"/dev/shm/dressform_\d+_\d+_\w+_segment", named)
    assert not Path(named).exists()
    assert not left.exists()


STAND_IN = """
import http.server, os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(os.pathsep)
from jobs.heart import Heart
from jobs.shared_file import server_path
from jobs.table import JobTable
table = JobTable.open(server_path(os.getpid()))
if sys.argv[3] == "dead":
    os.getpid, own = (lambda: 2**22 + 1), os.getpid  # an id that no process has
    table.enrol("unet")
    os.getpid = own
else:
    table.claim("", 8000)  # in flight for eight seconds
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Health).serve_forever()
"""
"""Serves health, and has a job table: what `attend` goes by."""


def attended(tmp_path: Path, case: str) -> tuple[subprocess.Popen[str], int]:
    """The native server around a stand-in for Triton, and its HTTP port."""
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copytree(ROOT / "model_repository" / "jobs", repository / "jobs")
    shutil.copy(ROOT / "client" / "dressform_contract.py", repository)
    port = chosen_ports("127.0.0.1", {"http": 0})["http"]
    words = [sys.executable, "-c", STAND_IN, str(repository), str(port), case]
    code = "import sys; from pathlib import Path; from dressform_server import native, settings, shared_memory\n"
    code += f"known = settings.Settings(Path({str(repository)!r}), host='127.0.0.1', exit_timeout=30)\n"
    code += f"segments = shared_memory.Segments(Path({str(tmp_path)!r}))\n"
    code += f"sys.exit(native.attend({words!r}, known, '127.0.0.1:{port}', segments, native._write))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True), port


def test_the_native_server_ends_where_a_stage_is_dead(tmp_path: Path) -> None:
    native, _ = attended(tmp_path, "dead")
    _, said = native.communicate(timeout=60)
    assert (native.returncode, said) == (1, "the process of unet is dead\n")


def test_the_native_server_finishes_what_is_in_flight(tmp_path: Path) -> None:
    native, port = attended(tmp_path, "busy")
    deadline = time.monotonic() + 30
    while not answers_ready(f"127.0.0.1:{port}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # `attend` has seen it too
    native.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = native.communicate(timeout=60)
    assert (native.returncode, said) == (0, "")
    assert time.monotonic() - began > 1, "it waited for the job's lease"
    assert not answers_ready(f"127.0.0.1:{port}")


def test_operators_are_told_how_each_secret_is_made() -> None:
    told = (ROOT / "docs/operations.md").read_text()
    for secret in COMPOSE["secrets"].values():
        assert f"> docker/{secret['file'].removeprefix('./')}" in told


def test_what_is_mounted_from_here_is_here() -> None:
    sources = [volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    own = [source for source in sources if source.startswith("./")]
    assert {"./balancer", "./monitoring/prometheus.yml"} <= set(own)
    assert [source for source in own if not (DOCKER / source).exists()] == []
