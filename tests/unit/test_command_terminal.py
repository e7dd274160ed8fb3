"""What commands show on a terminal: its abilities as it tells them, pictures in each protocol, progress, Ctrl-C."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dressform.commands.drawing import Canvas, iterm2, kitty, sixels
from dressform.commands.terminal import Terminal
from unit import terminals
from unit.client_fakes import png

ASK = "from dressform.commands.terminal import Terminal; print(Terminal.asked())"

COMMAND = """
import sys
from dressform import Client
from dressform.__main__ import main
from dressform.testing import FakeTransport
fake = FakeTransport(step_seconds=0.1, default_steps=8, default_size=(32, 32))
code = main(sys.argv[1:], Client(transport=fake))
print("sent", len(fake.requests), "cancelled", len(fake.cancellations))
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photo", "shirt"):
        (tmp_path / f"{name}.png").write_bytes(png((60, 80)))
    return tmp_path


@pytest.fixture
def gradient() -> Image.Image:
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1))


# --- what the terminal can ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(terminals.ANSWERS))
def test_a_terminal_is_asked_what_it_can(protocol):
    seen = terminals.run(ASK, answers=terminals.ANSWERS[protocol], pixels=(900, 760))
    cell = (10, 20) if b"[6;20;10t" in terminals.ANSWERS[protocol] else (9, 19)
    assert f"Terminal(protocol='{protocol}', cell={cell})" in seen.text
    assert "iTerm2" not in seen.text.replace("protocol='iterm2'", ""), "its answers are not echoed"
    assert seen.code == 0


def test_a_terminal_that_says_nothing_gets_blocks():
    assert "Terminal(protocol='blocks', cell=(8, 16))" in terminals.run(ASK).text


@pytest.mark.parametrize("term", ["linux", "dumb"])
def test_terminals_that_would_print_the_queries_are_not_asked(term):
    seen = terminals.run(ASK, environment={"TERM": term})
    assert "\x1b" not in seen.text
    assert "protocol='blocks'" in seen.text


def test_its_modes_are_as_before():
    script = f"import os, termios; before = termios.tcgetattr(0)\n{ASK}\nprint(before == termios.tcgetattr(0))"
    assert "True" in terminals.run(script, answers=terminals.ANSWERS["kitty"]).text


def test_without_a_terminal_nobody_is_asked():
    script = f"import os\nif os.fork(): os.wait()\nelse:\n    os.setsid()\n    {ASK}"
    seen = terminals.run(script)
    assert "protocol='blocks'" in seen.text
    assert "\x1b" not in seen.text


# --- pictures ----------------------------------------------------------------------------------------------------


def kitty_pictures(text: str) -> list[tuple[dict[str, str], Image.Image]]:
    """The pictures that kitty would show, and the keys of each."""
    pictures, data, head = [], "", {}
    for keys, payload in re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text):
        named = dict(item.split("=") for item in keys.split(","))
        if named.get("a") == "q":
            continue
        head = named if "a" in named else head
        data += payload
        if named["m"] == "0":
            pictures.append((head, Image.open(io.BytesIO(base64.b64decode(data)))))
            data = ""
    return pictures


def decoded_sixels(text: str) -> np.ndarray:
    """The picture that a VT340 would show, uint8 [H, W, 3]."""
    (width, height, body) = re.search(r'\x1bP[0-9;]*q"1;1;(\d+);(\d+)(.*?)\x1b\\', text, re.DOTALL).groups()
    canvas = np.zeros((int(height), int(width), 3), np.uint8)
    colours, colour, left, top = {}, 0, 0, 0
    for token in re.findall(r"#\d+;2;\d+;\d+;\d+|#\d+|!\d+.|[$-]|[?-~]", body):
        if token.startswith("#"):
            number, *rest = token[1:].split(";")
            colour = int(number)
            if rest:
                colours[colour] = [round(int(share) * 2.55) for share in rest[1:]]
        elif token in "$-":
            left, top = 0, top + 6 * (token == "-")
        else:
            count, bits = (int(token[1:-1]), ord(token[-1]) - 63) if token[0] == "!" else (1, ord(token) - 63)
            for row in range(6):
                if bits >> row & 1:
                    canvas[top + row, left : left + count] = colours[colour]
            left += count
    return canvas


def test_sixels_are_the_picture(gradient):
    made = decoded_sixels(sixels(gradient))
    assert made.shape == (48, 48, 3)
    assert np.abs(made.astype(int) - np.asarray(gradient).astype(int)).max() <= 32
    flat = decoded_sixels(sixels(Image.new("RGB", (7, 6), (255, 0, 51))))
    assert (flat == (255, 0, 51)).all()


def test_kitty_gets_png_in_chunks():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    text = kitty(noise, 20, 10, 7)
    assert all(len(payload) <= 4096 for payload in re.findall(r";([^\x1b]*)\x1b", text))
    ((keys, picture),) = kitty_pictures(text)
    assert (keys["c"], keys["r"], keys["i"], keys["C"], keys["q"]) == ("20", "10", "7", "1", "2")
    assert (np.asarray(picture) == np.asarray(noise)).all()


def test_iterm2_gets_a_png(gradient):
    size, data = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);width=20;height=10;preserveAspectRatio=0:([^\x07]*)\x07",
        iterm2(gradient, 20, 10),
    ).groups()
    raw = base64.b64decode(data)
    assert len(raw) == int(size)
    assert (np.asarray(Image.open(io.BytesIO(raw))) == np.asarray(gradient)).all()


def test_blocks_are_two_pixels_each():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=10, height=14)
    picture = Image.new("RGB", (2, 2), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 1, 2, 2))
    console.print(
        Canvas(console, Terminal("blocks", (8, 16))).picture([picture.resize((20, 20), Image.Resampling.NEAREST)])
    )
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 5
    assert all(line.count("▀") == 10 for line in lines)
    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]
    assert "38;2;0;0;255;48;2;0;0;255" in lines[-1]


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "sixel", "blocks"])
@pytest.mark.parametrize("size", [(300, 20), (20, 300), (1, 1), (4000, 3000)])
def test_pictures_of_any_shape_fit(protocol, size):
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80, height=24)
    lines = console.render_lines(Canvas(console, Terminal(protocol)).picture([Image.new("RGB", size)] * 2))
    shown = [line for line in lines if any(segment.text.strip() or len(segment.text) > 1 for segment in line)]
    assert 1 <= len(shown) <= 21
    assert max(sum(segment.cell_length for segment in line if not segment.control) for line in lines) <= 80


# --- a request under way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(terminals.ANSWERS))
def test_previews_and_the_result_are_shown(folder, protocol):
    seen = terminals.run(
        COMMAND,
        *("tryon", "photo.png", "shirt.png", "--seed", "7", "--preview"),
        answers=terminals.ANSWERS[protocol],
        folder=folder,
    )
    assert seen.code == 0, seen.text
    assert "photo-tryon.png  seed 7" in seen.text
    assert "running" in seen.text
    assert re.search(r"[3-8]/8", seen.text)
    final = Image.open(folder / "photo-tryon.png").getpixel((0, 0))
    if protocol == "kitty":
        pictures = kitty_pictures(seen.text)
        colours = [picture.convert("RGB").getpixel((0, 0)) for _, picture in pictures]
        greens = [colour for colour in colours if colour != final]
        assert len({keys["i"] for keys, _ in pictures}) == 1, "each takes the place of the one before"
        assert len(greens) >= 2
        assert all(red == blue == 0 < green for red, green, blue in greens)
        assert colours[-1] == final
    elif protocol == "iterm2":
        last = seen.text.rpartition("\x1b]1337;")[2].partition(":")[2].partition("\x07")[0]
        assert Image.open(io.BytesIO(base64.b64decode(last))).getpixel((0, 0)) == final
        assert seen.text.count("\x1b]1337;File=") >= 3
    elif protocol == "sixel":
        last = decoded_sixels("\x1bP" + seen.text.rpartition("\x1bP")[2])
        assert np.abs(last[0, 0].astype(int) - final).max() <= 3
        assert seen.text.count('q"1;1;') >= 3
    else:
        assert "▀" in seen.text
        assert "38;2;{};{};{};48;2;".format(*final) in seen.text


def test_without_preview_there_is_a_bar_and_no_picture(folder):
    seen = terminals.run(COMMAND, "tryon", "photo.png", "shirt.png", folder=folder)
    assert seen.code == 0
    assert "running" in seen.text
    assert "\x1b[c" not in seen.text
    assert "▀" not in seen.text


def test_json_stays_one_line_beside_the_bar(folder):
    script = COMMAND.replace("fake = ", "out, sys.stdout = sys.stdout, open('out.json', 'w')\nfake = ", 1)
    seen = terminals.run(script, "tryon", "photo.png", "shirt.png", "--json", "--seed", "7", folder=folder)
    assert seen.code == 0
    assert "running" in seen.text
    first, *rest = (folder / "out.json").read_text().splitlines()
    assert '"seeds": [7]' in first
    assert rest == ["sent 1 cancelled 0"]


def test_ctrl_c_cancels_the_job_and_leaves_130(folder):
    words = ("tryon", "photo.png", "shirt.png", "--num-inference-steps", "150")
    seen = terminals.run(COMMAND, *words, folder=folder, interrupt_at="/150")
    assert seen.code == 130, seen.text
    assert re.search(r"sent 1 cancelled [12]\r", seen.text), "closing may cancel it once more"
    assert "dressform: interrupted" in seen.text
    assert "Traceback" not in seen.text
    assert not (folder / "photo-tryon.png").exists()


def test_an_id_that_cannot_be_watched_is_waited_for(folder):
    seen = terminals.run(COMMAND, "tryon", "photo.png", "shirt.png", "--request-id", "short", folder=folder)
    assert seen.code == 0, seen.text
    assert (folder / "photo-tryon.png").is_file()


def test_a_batch_has_a_bar(folder):
    (folder / "pairs.csv").write_text("person,garment\n" + "photo.png,shirt.png\n" * 12)
    seen = terminals.run(COMMAND, "batch", "pairs.csv", "-o", "out", "--concurrency", "4", folder=folder)
    assert seen.code == 0, seen.text
    assert "12/12" in seen.text
    assert re.search(r"\d/min", seen.text)
    assert re.search(r"\d:\d\d:\d\d", seen.text)
    assert "12 of 12 done" in seen.text
    assert "seed" not in seen.text, "no line for each pair between"


def test_a_table_is_drawn_on_a_terminal(folder):
    seen = terminals.run(COMMAND, "models", folder=folder)
    assert "│ tryon" in seen.text
    assert seen.code == 0
