"""``dressform doctor`` finds faults that are there: made here for real as far as a test can."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dressform import Client
from dressform.__main__ import main
from dressform.commands.doctor import machine, packages
from dressform.testing import FakeTransport
from unit.client_fakes import SERVERS, Kserve

PORTS = ("--http-port", "--grpc-port", "--metrics-port")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture
def words() -> list[str]:
    """The command line with ports that are free."""
    return ["doctor", *(word for pair in zip(PORTS, map(str, free_ports(3))) for word in pair)]


def findings(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    code = main([*words, "--json"])
    document = json.loads(capsys.readouterr().out)
    found = {finding["check"]: finding for finding in document["findings"]}
    assert document["faults"] == sum(finding["state"] == "fault" for finding in found.values())
    assert all(finding["mend"] for finding in found.values() if finding["state"] == "fault")
    return code, found


def in_python(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_this_machine_is_well(words, capsys):
    code, found = findings(words, capsys)
    assert code == 0, [finding for finding in found.values() if finding["state"] == "fault"]
    assert found["Python"]["found"].startswith(sys.version.split()[0])
    assert found["Triton"]["found"].endswith("tritonserver runs")
    assert "CPUExecutionProvider" in found["onnxruntime"]["found"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok    Python: " in lines[0]
    assert lines[-1] == "no faults"


def test_a_taken_port_is_found_unless_a_dressform_server_has_it(words, capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        code, found = findings([*words, "--grpc-port", str(listener.getsockname()[1])], capsys)
    assert code == 1
    assert found["grpc port"]["state"] == "fault"
    assert "in use by another program" in found["grpc port"]["found"]
    assert "--grpc-port" in found["grpc port"]["mend"]
    assert found["http port"]["state"] == "ok"
    with SERVERS["grpc"](Kserve()) as server:
        code, found = findings([*words, "--grpc-port", server.url.rpartition(":")[2]], capsys)
    assert (code, found["grpc port"]["state"]) == (0, "ok")
    assert "a Dressform server answers" in found["grpc port"]["found"]


@pytest.mark.parametrize("module", ["pytriton", "onnxruntime", "tokenizers"])
def test_a_missing_module_is_found(module, words):
    script = f"""
import importlib.abc, importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {module!r} else find(name, package)
from dressform.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    done = in_python(script, *words)
    assert done.returncode == (0 if module == "pytriton" else 1), done.stderr  # without Triton it is a client
    assert {
        "pytriton": "note  Triton: the embedded Triton is not installed",
        "onnxruntime": "fault Triton: cannot import onnxruntime",
        "tokenizers": "fault Triton: cannot import tokenizers",
    }[module] in done.stdout
    assert "pip install 'dressform[serve]'" in done.stdout


def test_an_engine_that_is_broken_is_found(tmp_path, words):
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino/__init__.py").write_text("import libopenvino_that_is_nowhere")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    script += "from dressform.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    done = in_python(script, *words)
    assert done.returncode == 1
    assert "fault openvino: cannot be imported: No module named 'libopenvino_that_is_nowhere'" in done.stdout


def test_a_triton_that_lacks_a_library_is_found(monkeypatch, tmp_path):
    found = packages.Installation.find()
    (tmp_path / "bin").mkdir()
    shutil.copy(found.binary, tmp_path / "bin")  # it finds its libraries by where it lies
    stripped = packages.Installation(tmp_path, tmp_path, tmp_path / "libpython.so")
    monkeypatch.setattr(packages.Installation, "find", lambda: stripped)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    *_, finding = packages.triton()
    assert finding.state == "fault"
    assert "error while loading shared libraries" in finding.found


def test_a_python_without_its_library_is_found(monkeypatch):
    monkeypatch.setattr("dressform_server.installation.sysconfig.get_config_var", lambda name: None)
    (finding,) = packages.triton()
    assert finding.state == "fault"
    assert "without a shared library" in finding.found


def test_a_full_shared_memory_is_found(words):
    """On a real tmpfs of 8 MiB over /dev/shm, in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=8m tmpfs /dev/shm"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small /dev/shm here")
    command = f"mount -t tmpfs -o size=8m tmpfs /dev/shm && exec {sys.executable} -m dressform {' '.join(words)}"
    done = subprocess.run([unshare, "--mount", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "fault shared memory: 8 MiB free of 8 MiB at /dev/shm, less than 64 MiB" in done.stdout
    assert "--shm-size=2g" in done.stdout


def test_limits_of_space_are_as_documented(monkeypatch, tmp_path):
    for free, state in ((2**20, "fault"), (2**30 - 1, "fault"), (5 * 2**30, "note"), (20 * 2**30, "ok")):
        usage = shutil._ntuple_diskusage(2**40, 2**40 - free, free)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert machine.disk(tmp_path).state == state
    assert machine.shared_memory(tmp_path / "nothing").state == "note"


def test_versions_other_than_those_that_were_tried_are_told(monkeypatch):
    assert packages.versions().state == "ok"
    real = packages.metadata.version
    monkeypatch.setattr(packages.metadata, "version", lambda name: "9.9" if name == "numpy" else real(name))
    finding = packages.versions()
    assert (finding.state, "numpy 9.9 (tried: 1.26.4)" in finding.found) == ("note", True)
    assert "requirements.lock" in finding.mend


def nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_gpu_that_the_engine_does_not_use_and_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    nvidia_smi(tmp_path, "echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 560.35.03'")
    assert machine.gpu().state == "ok"
    assert "H100" in machine.gpu().found
    finding = next(packages.engines(gpu=True))
    assert (finding.state, finding.mend) == ("note", "pip install 'dressform[serve-gpu]'")
    nvidia_smi(tmp_path, 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the driver"; exit 9')
    assert machine.gpu().state == "fault"
    assert "couldn't communicate with the driver" in machine.gpu().found


def test_a_server_is_examined(words, capsys):
    fake = FakeTransport(default_size=(64, 64))
    code = main([*words, "--server", "grpc://there:1", "--request", "--json"], Client("grpc://there:1", transport=fake))
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert code == 0
    assert found["server"]["found"] == "grpc://there:1 is ready: fake 1 serves inpaint, tryon, mask"
    assert found["models"]["found"] == "inpaint 1, tryon 1, mask 1"
    assert found["request"]["found"].startswith("one step at 64 × 64 took ")


def test_faults_of_a_server_are_found(words, capsys):
    fake = FakeTransport()
    fake.models = lambda timeout: [{"name": "unet", "version": "1", "state": "UNAVAILABLE", "reason": "no such graph"}]
    fake.fail("INTERNAL")
    code = main([*words, "--server", "grpc://there:1", "--request", "--json"], Client("grpc://there:1", transport=fake))
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert code == 1
    assert found["models"]["found"] == "not ready: unet (no such graph)"
    assert "told to fail" in found["request"]["found"]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_wrong_address_is_found(scheme, words, capsys):
    code, found = findings([*words, "--server", f"{scheme}://127.0.0.1:{free_ports(1)[0]}"], capsys)
    assert code == 1
    assert "refused" in found["server"]["found"]
    assert "dressform serve" in found["server"]["mend"]


def test_a_check_that_cannot_be_made_is_a_fault_and_the_others_go_on(words, capsys):
    code, found = findings([*words, "--folder", "/nonexistent/folder"], capsys)
    assert code == 1
    assert found["disk"]["state"] == "fault"
    assert "cannot be checked" in found["disk"]["found"]
    assert found["versions"]["state"] in ("ok", "note")


def test_a_picture_needs_a_server(words, capsys):
    assert main([*words, "--request"]) == 2
    assert "--request needs --server" in capsys.readouterr().err
