"""The ``dressform`` command, the prototype's two functions, and what importing the package costs."""

from __future__ import annotations

import argparse
import importlib.machinery
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import dressform_bench
from dressform import (
    Cancelled,
    Client,
    DeadlineExceeded,
    DressformError,
    InvalidRequest,
    NotFound,
    Overloaded,
    PersonNotFound,
    ServerError,
    ServerUnavailable,
    errors,
    generate_tryon,
    load_models,
    testing,
)
from dressform.__main__ import main
from dressform.commands import COMMANDS, app, exits, flags, parser_of
from dressform_bench import BENCHMARKS
from dressform_contract import PARAMETERS
from unit.client_fakes import FakeTransport, answer, npy, png

# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def run(fake: FakeTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "mask", "shirt", "trousers"):
        (tmp_path / f"{name}.png").write_bytes(png((len(name), 3)))
    return lambda *words: main(words, Client("grpc://fake:1", transport=fake, retries=0))


def test_inpaint_writes_the_picture_and_prints_path_and_seed(run, fake, tmp_path, capsys):
    code = run("inpaint", "photo.png", "mask.png", "a red hat", "--seed", "7", "--no-mask-invert", "-o", "out.png")
    assert code == 0
    assert capsys.readouterr().out == "out.png  seed 7\n"
    assert Image.open(tmp_path / "out.png").size == (1, 5)
    request = fake.requests[0]
    assert request.inputs == {"image": png((5, 3)), "mask": png((4, 3)), "prompt": b"a red hat"}
    assert request.parameters == {"seed": 7, "mask_invert": False, "output_format": "png"}
    assert fake.closed


def test_every_option_is_a_flag_of_its_type(run, fake):
    words, expected = [], {}
    for name, parameter in PARAMETERS.items():
        flag = "--" + name.replace("_", "-")
        value = {"integer": 3, "number": 0.5, "boolean": True, "choice": (*parameter.choices, "")[0]}[parameter.kind]
        words += [flag] if parameter.kind == "boolean" else [flag, str(value)]
        expected[name] = value
    assert run("inpaint", "photo.png", "mask.png", "a hat", *words) == 0
    sent = fake.requests[0].parameters
    assert sent == expected
    assert {name: type(value) for name, value in sent.items()} == {n: type(v) for n, v in expected.items()}


def test_several_pictures_are_numbered_and_stored_as_they_came(run, fake, tmp_path, capsys):
    raw = npy(np.zeros((2, 2, 3), np.uint8))
    fake.reply = lambda _: answer([raw, raw], [5, 6], {"warnings": ["the prompt was cut off"]})
    assert run("inpaint", "photo.png", "mask.png", "a hat", "--num-images", "2", "-o", "x.npy") == 0
    output = capsys.readouterr()
    assert output.out == "x-1.npy  seed 5\nx-2.npy  seed 6\n"
    assert output.err == "dressform: warning: the prompt was cut off\n"
    assert (tmp_path / "x-2.npy").read_bytes() == raw
    assert fake.requests[0].parameters["output_format"] == "npy"


def test_tryon_takes_an_outfit(run, fake, capsys):
    assert (
        run("tryon", "photo.png", "shirt.png", "trousers.png", "--mask", "mask.png", "--prompt", "a man", "--seed", "9")
        == 0
    )
    assert capsys.readouterr().out == "photo-tryon.png  seed 9\n"
    assert [request.inputs["garment"] for request in fake.requests] == [png((5, 3)), png((8, 3))]
    assert [request.inputs["mask"] for request in fake.requests] == [png((4, 3))] * 2
    assert [request.inputs["prompt"] for request in fake.requests] == [b"a man"] * 2


def test_tryon_needs_no_mask(run, fake):
    assert run("tryon", "photo.png", "shirt.png", "--category", "lower") == 0
    assert set(fake.requests[0].inputs) == {"person", "garment"}
    assert fake.requests[0].parameters["category"] == "lower"


@pytest.mark.parametrize(("flags", "file"), [([], "photo-mask.png"), (["-o", "m.npy"], "m.npy")])
def test_mask_writes_the_mask_and_prints_path_and_category(run, fake, tmp_path, capsys, flags, file):
    reply = {"mask_used": np.array([[png((7, 4))]], object), "info": np.array([[b'{"category": "upper"}']], object)}
    fake.reply = lambda _: reply
    assert run("mask", "photo.png", "--mask-grow", "2", *flags) == 0
    assert capsys.readouterr().out == f"{file}  upper\n"
    assert (tmp_path / file).read_bytes() == png((7, 4))
    (request,) = fake.requests
    assert (request.model, request.inputs) == ("mask", {"person": png((5, 3))})
    assert request.parameters == {"mask_grow": 2} | ({"output_format": "npy"} if flags else {})


def test_health(run, fake, capsys):
    assert run("health") == 0
    assert capsys.readouterr().out == "grpc://fake:1 is ready: inpaint, tryon  (triton 2.51.0)\n"
    fake.served = ("inpaint", "tryon", "mask")
    assert run("health") == 0
    assert capsys.readouterr().out == "grpc://fake:1 is ready: inpaint, tryon, mask  (triton 2.51.0)\n"
    fake.ready = False
    assert run("health", "--wait", "0.6") == 6
    assert "not ready" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("strength is wrong"), 2),
        (PersonNotFound("nobody is seen"), 2),
        (NotFound("no such model"), 2),
        (Overloaded("full", code="OVERLOADED", fields={"retry_after_ms": "1200"}), 3),
        (DeadlineExceeded("too late"), 4),
        (Cancelled("by somebody"), 5),
        (ServerUnavailable("no"), 6),
        (ServerError("a graph failed", code="ENGINE"), 7),
    ],
)
def test_failures_are_one_sentence_and_an_exit_code(run, fake, capsys, error, code):
    fake.error = error
    assert run("inpaint", "photo.png", "mask.png", "a hat") == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"dressform: {error}\n"
    assert run("inpaint", "photo.png", "mask.png", "a hat", "--json") == code
    output = capsys.readouterr()
    told = json.loads(output.out)["error"]
    assert (told["type"], told["message"], told["code"]) == (type(error).__name__, str(error), error.code)
    assert (told["exit_code"], told.get("retry_after")) == (code, 1.2 if code == 3 else None)
    assert output.err == f"dressform: {error}\n"


def test_every_exit_code_of_an_error_is_in_the_table():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DressformError)]
    assert {exits.code_of(kind("x")) for kind in kinds} == {2, 3, 4, 5, 6, 7}
    assert {exits.code_of(kind("x")) for kind in kinds} < set(exits.EXIT_CODES)


def test_a_missing_picture_is_bad_input(run, fake, capsys):
    assert run("tryon", "photo.png", "nowhere.png") == 2
    assert "garment: cannot read nowhere.png: No such file" in capsys.readouterr().err
    assert fake.requests == []


def test_a_bad_address_is_bad_input(capsys):
    assert main(["health", "--server", "gpu-1"]) == 2
    assert "a server's address looks like" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["paint"],
        ["inpaint", "photo.png"],
        ["inpaint", "photo.png", "mask.png", "a hat", "--seed", "many"],
        ["inpaint", "photo.png", "mask.png", "a hat", "--solver", "magic"],
        ["inpaint", "photo.png", "mask.png", "a hat", "--sede", "1"],
        ["inpaint", "photo.png", "mask.png", "a hat", "-o", "out.gif"],
        ["inpaint", "photo.png", "mask.png", "a hat", "-o", "nowhere/out.png"],
        ["mask", "photo.png", "--seed", "1"],
        ["mask", "photo.png", "--negative-prompt", "a hat"],
        ["mask", "photo.png", "--retries", "-1"],
        ["mask", "photo.png", "--timeout", "0"],
        ["mask", "photo.png", "--header", "no colon"],
        ["batch", "pairs.csv"],
        ["completion", "tcsh"],
    ],
)
def test_a_wrong_command_line_exits_with_2(run, fake, capsys, words):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert "usage: dressform" in capsys.readouterr().err
    assert fake.requests == []


def test_serve_without_its_packages_says_what_to_install(monkeypatch, capsys):
    for name in ("dressform_server", "dressform_server.launcher"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["serve", "repository"]) == 1
    assert "pip install 'dressform[serve]'" in capsys.readouterr().err


def test_a_command_that_is_nearly_right_is_guessed(run, capsys):
    with pytest.raises(SystemExit) as caught:
        run("tryno", "person.jpg")
    assert caught.value.code == 2
    assert "there is no command 'tryno': did you mean tryon?" in capsys.readouterr().err


def test_help_has_every_command_and_exit_code(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name}" in text for name in COMMANDS)
    assert exits.table() in text


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.passes_on])
def test_examples_of_help_are_right(name):
    lines = [line.strip() for line in COMMANDS[name].load().EXAMPLES.splitlines() if line.startswith("  dressform ")]
    assert len(lines) >= 1
    for line in lines:
        words = shlex.split(line, comments=True, posix=True)
        ends = [i for i, word in enumerate(words) if word in ("|", "&&", ">", "<")]
        assert words[:2] == ["dressform", name]
        parser_of(name).parse_args(words[2 : ends[0] if ends else None])
    assert "\n".join(lines[:1]) in parser_of(name).format_help()


def test_results_as_json(run, fake, capsys):
    fake.reply = lambda request: answer([png((4, 5))], [7], {"steps": 4, "warnings": ["the prompt was cut off"]})
    assert run("tryon", "photo.png", "shirt.png", "--json", "--request-id", "a" * 22, "-o", "x.png") == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert document.pop("seconds") >= 0
    assert document == {
        "outputs": ["x.png"],
        "seeds": [7],
        "request_id": "a" * 22,
        "warnings": ["the prompt was cut off"],
        "info": {"steps": 4, "warnings": ["the prompt was cut off"]},
    }


def test_pipes(run, fake, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(png((9, 9)))))
    assert run("inpaint", "-", "mask.png", "a hat", "-o", "-") == 0
    assert capfdbinary.readouterr().out == png((1, 5))
    assert fake.requests[0].inputs["image"] == png((9, 9))


@pytest.mark.parametrize("words", [["--json"], ["--num-images", "2"]])
def test_stdout_takes_one_picture_only(run, fake, capsys, words):
    assert run("inpaint", "photo.png", "mask.png", "a hat", "-o", "-", *words) == 2
    assert "leave --json and --num-images out" in capsys.readouterr().err
    assert fake.requests == []


def test_models_and_statistics(run, fake, capsys):
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["model", "version", "state", "reason"],
        ["inpaint", "1", "ready"],
    ]
    assert run("models", "--json") == 0
    models = json.loads(capsys.readouterr().out)
    assert models[1] == {"name": "tryon", "version": "1", "ready": True, "reason": ""}
    counted = {
        "name": "unet",
        "execution_count": "3",
        "inference_stats": {"success": {"count": "5", "ns": "2000000000"}},
    }
    fake.statistics = lambda timeout: [counted]
    assert run("stats") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["unet", "5", "0", "3", "0.400", "0.000", "0.000"]
    assert run("stats", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unet"]["succeeded"] == 5


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_wrong_address_is_told_at_once(tmp_path, monkeypatch, capsys, scheme):
    pauses = []
    monkeypatch.setattr("dressform.core.Core._pause", lambda self, call, seconds: pauses.append(seconds))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(png())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"
        assert main(["mask", "photo.png", "--server", url]) == 6
    assert pauses == []
    assert "Is it running" in (said := capsys.readouterr().err) or "dressform serve" in said


@pytest.mark.parametrize(
    ("words", "failure", "sent", "code"),
    [
        ([], "UNAVAILABLE", 1, 6),
        (["--retries", "1"], "UNAVAILABLE", 2, 0),
        ([], "OVERLOADED", 2, 0),
        (["--retries", "0"], "OVERLOADED", 1, 3),
    ],
)
def test_retries_are_made_after_the_first_answer_or_where_asked_for(tmp_path, monkeypatch, words, failure, sent, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(png())
    fake = testing.FakeTransport()
    fake.fail(failure, retry_after_ms=1)
    monkeypatch.setattr(flags, "Client", lambda *a, **k: Client(*a, **k, transport=fake))
    assert main(["inpaint", "photo.png", "photo.png", "a hat", *words]) == code
    assert len(fake.requests) == sent


def test_serve_hands_its_arguments_to_the_server(monkeypatch):
    launcher = pytest.importorskip("dressform_server.launcher")
    seen = []
    monkeypatch.setattr(launcher, "run", lambda arguments: seen.append(arguments) or 3)
    assert main(["serve", "some/repository", "--http-port", "0"]) == 3
    assert (seen[0].repository, seen[0].http_port) == (Path("some/repository"), 0)


def test_export_passes_on_to_its_own_command(tmp_path, capsys):
    assert main(["export", "random", "tiny", str(tmp_path / "source")]) == 0
    assert (tmp_path / "source" / "model_index.json").is_file()
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "out")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_export_without_its_packages_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dressform_export.exporter", None)
    assert main(["export", "source", "out"]) == 1
    assert "pip install 'dressform[export]'" in capsys.readouterr().err


def test_bench_lists_every_benchmark_and_runs_it(capfd):
    assert main(["bench"]) == 0
    listed = capfd.readouterr().out
    programs = {
        path.stem for path in Path(dressform_bench.__file__).parent.glob("*.py") if "__main__" in path.read_text()
    }
    assert {words[-1].rpartition(".")[2] for _, words in BENCHMARKS.values() if words[0] == "-m"} >= programs
    assert all(f"  {name} " in listed and what in listed for name, (what, _) in BENCHMARKS.items())
    assert main(["bench", "trace", "--help"]) == 0
    assert "usage: python -m dressform_bench.trace" in capfd.readouterr().out
    assert main(["bench", "magic"]) == 2


def test_app_starts_streamlit_on_loopback_with_the_address(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(app, "ended", lambda words, environment: seen.append((words, environment)) or 0)
    found = importlib.machinery.ModuleSpec("x", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: found)
    assert main(["app", "--port", "8600", "--server", "http://there:8000"]) == 0
    ((words, environment),) = seen
    assert words[1:5] == ["-m", "streamlit", "run", str(tmp_path / "page.py")]
    assert words[5:9] == ["--server.address", "127.0.0.1", "--server.port", "8600"]
    assert environment == {"DRESSFORM_URL": "http://there:8000"}
    assert main(["app", "--host", "0.0.0.0"]) == 0
    assert seen[1][1] == {}, "without a flag the page looks into its environment and its secrets"
    assert seen[1][0][6] == "0.0.0.0"
    with pytest.raises(SystemExit):
        main(["app", "--port", "99999999"])


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
words = ["-m", "dressform", "health", "--server", sys.argv[1], "--wait", "60"]
os.execv(sys.executable, [sys.executable, *words])
"""


def test_a_closed_terminal_ends_it_but_not_under_nohup():
    paths = os.pathsep.join(path for path in sys.path if path)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        subprocess.Popen(
            [sys.executable, "-c", IGNORING, f"http://127.0.0.1:{listener.getsockname()[1]}"],
            env={**os.environ, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        listener.settimeout(60)
        listener.accept()[0].close()  # it is up, and asks
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "interrupted" in process.stderr.read()


def test_what_a_command_starts_has_time_to_end():
    """Ctrl-C to us alone: it is told to end, and does."""
    child = "import time; print('up', flush=True); time.sleep(60)"
    script = f"from dressform.commands.children import ended; ended([{sys.executable!r}, '-c', {child!r}])"
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        (pid,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert not pid.is_running()


@pytest.mark.parametrize("header", ["authorization: Bearer …", "x-shop: a\nb"])
def test_a_header_that_cannot_be_sent_is_named(capsys, header):
    for scheme in ("http", "grpc"):
        assert main(["health", "--server", f"{scheme}://127.0.0.1:1", "--header", header]) == 2
        assert "must be printable ASCII" in capsys.readouterr().err


def test_refused_credentials_are_no_server_that_is_away(capsys):
    class Guard(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Guard) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        assert main(["health", "--server", f"http://127.0.0.1:{proxy.server_port}"]) == 2
        proxy.shutdown()
    assert "Check the API key or token" in capsys.readouterr().err


def test_app_without_its_packages_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert "pip install 'dressform[app]'" in capsys.readouterr().err


# --- load_models and generate_tryon ------------------------------------------------------------------------------


def test_generate_tryon_gives_a_pil_image(fake):
    pipeline = load_models({"num_inference_steps": 4, "mask": png(), "seed": 1}, client=Client(transport=fake))
    result = generate_tryon(Image.new("RGB", (8, 6)), Image.new("RGB", (4, 4)), pipeline, seed=2)
    assert isinstance(result, Image.Image)
    request = fake.requests[0]
    assert request.model == "tryon"
    assert request.parameters == {"num_inference_steps": 4, "seed": 2}
    assert request.inputs["mask"] == png()


@pytest.mark.parametrize(
    ("opt", "environment", "url"),
    [
        (None, None, "grpc://127.0.0.1:8001"),
        (None, "grpc://there:1", "grpc://there:1"),
        ("http://here:2", "grpc://there:1", "http://here:2"),
        ({"server": "http://here:3"}, None, "http://here:3"),
        ({"url": "http://here:4"}, None, "http://here:4"),
        (
            argparse.Namespace(server=None, url="http://here:5", gmm_checkpoint="x.pth", workers=4),
            None,
            "http://here:5",
        ),
    ],
)
def test_load_models_finds_the_address(monkeypatch, fake, opt, environment, url):
    seen = []
    monkeypatch.setattr("dressform.pipeline.Client", lambda url: seen.append(url) or Client(url, transport=fake))
    monkeypatch.delenv("DRESSFORM_URL", raising=False)
    if environment:
        monkeypatch.setenv("DRESSFORM_URL", environment)
    assert load_models(opt).defaults == {}
    assert seen == [url]


def test_load_models_refuses_what_it_does_not_know(fake):
    with pytest.raises(TypeError, match=r"unknown option 'sed': did you mean seed\?"):
        load_models({"sed": 1}, client=Client(transport=fake))


@pytest.mark.parametrize(
    ("fake", "text"),
    [
        (FakeTransport(ready=False), "not ready"),
        (FakeTransport(served=("inpaint",)), "serves inpaint, but not tryon"),
        (FakeTransport(served=()), "serves none of inpaint, tryon"),
        (FakeTransport(error=ServerUnavailable("grpc://x:1: connection refused")), "connection refused"),
    ],
)
def test_load_models_checks_the_server(fake, text):
    with pytest.raises(ServerUnavailable, match=text) as caught:
        load_models(client=Client(transport=fake))
    assert not fake.closed  # it is the caller's
    assert str(caught.value).count("dressform serve") == 1


# --- import ------------------------------------------------------------------------------------------------------

_IMPORT = """
import sys
before = set(sys.modules)
import dressform, dressform.__main__
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = packages - set(sys.stdlib_module_names) - {"dressform", "dressform_contract"}
print(*sorted(foreign))
"""

_CLIENTS = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "diffusers", "transformers", "onnxruntime", "onnx", "rich", "locust"}:
            raise ImportError(f"{name} is not the client's to need")
sys.meta_path.insert(0, Refuse())
import dressform, dressform.__main__
dressform.Client("grpc://127.0.0.1:1"), dressform.Client("http://127.0.0.1:1")
heavy = [name for name in ("torch", "diffusers", "onnxruntime", "onnx") if name in sys.modules]
assert not heavy, heavy
"""


def _python(script: str) -> str:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_light():
    """No torch, numpy, httpx, grpc or rich: `dressform bench import-time` says what it costs."""
    assert set(_python(_IMPORT).split()) <= {"PIL", "defusedxml"}


def test_clients_need_tritonclient_numpy_and_pillow_alone():
    _python(_CLIENTS)
