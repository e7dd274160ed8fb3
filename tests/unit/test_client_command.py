"""The ``dressform`` command, the prototype's two functions, and what importing the package costs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dressform import Client, InvalidRequest, Overloaded, ServerUnavailable, generate_tryon, load_models
from dressform.__main__ import main
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
    assert capsys.readouterr().out == "grpc://fake:1 is ready: inpaint, tryon\n"
    fake.served = ("inpaint", "tryon", "mask")
    assert run("health") == 0
    assert capsys.readouterr().out == "grpc://fake:1 is ready: inpaint, tryon, mask\n"
    fake.ready = False
    assert run("health") == 1
    assert "not ready" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(InvalidRequest("strength is wrong"), 2), (Overloaded("full"), 1), (ServerUnavailable("no"), 1)]
)
def test_failures_are_one_sentence_and_an_exit_code(run, fake, capsys, error, code):
    fake.error = error
    assert run("inpaint", "photo.png", "mask.png", "a hat") == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"dressform: {error}\n"


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


def test_serve_hands_its_arguments_to_the_server(monkeypatch):
    launcher = pytest.importorskip("dressform_server.launcher")
    seen = []
    monkeypatch.setattr(launcher, "run", lambda arguments: seen.append(arguments) or 3)
    assert main(["serve", "some/repository", "--http-port", "0"]) == 3
    assert (seen[0].repository, seen[0].http_port) == (Path("some/repository"), 0)


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
import sys, time
before = set(sys.modules)
began = time.process_time()
import dressform
seconds = time.process_time() - began
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = packages - set(sys.stdlib_module_names) - {"dressform", "dressform_contract"}
print(seconds, *sorted(foreign))
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


def test_importing_is_quick_and_light():
    runs = [_python(_IMPORT).split() for _ in range(3)]
    assert set(runs[0][1:]) <= {"PIL", "defusedxml"}
    assert min(float(run[0]) for run in runs) < 0.5


def test_clients_need_tritonclient_numpy_and_pillow_alone():
    _python(_CLIENTS)
