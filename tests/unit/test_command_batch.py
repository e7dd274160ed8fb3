"""``dressform batch``: what it reads, refuses, makes, records, goes on with, and waits for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from dressform import Client, InvalidRequest, Overloaded, ServerError, ServerUnavailable
from dressform.__main__ import main
from dressform.commands.batch.manifest import Manifest, keyed
from dressform.commands.batch.pairs import checked
from dressform.commands.batch.patience import Outage, Patience
from dressform.commands.batch.rows import read
from dressform.testing import FakeTransport
from unit.client_fakes import png


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport(default_size=(16, 16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("anna", "ben", "shirt", "coat", "mask"):
        (tmp_path / f"{name}.png").write_bytes(png((len(name) + 8, 12), (len(name), *name.encode()[:2])))
    return tmp_path


@pytest.fixture
def run(fake: FakeTransport, folder: Path):
    return lambda *words: main(["batch", *words], Client(transport=fake))


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


# --- what is read -------------------------------------------------------------------------------------------------


def test_a_csv_with_options(folder):
    source = write(
        folder / "pairs.csv",
        "\ufeffperson;garment;mask;category;seed;Prompt;guidance_scale;mask_invert;name",
        "anna.png;shirt.png|coat.png;;upper;7;a man, seated;3;yes;first",
        "",
        "ben.png;coat.png;mask.png;;;;;;",
    )
    first, second = checked(read(Path(source)), {"negative_prompt": "a hat"}, {"seed": 1, "strength": 1})
    assert (first.name, first.where, first.task) == ("first", f"{source}:2", "tryon")
    assert first.keywords == {
        "person": folder / "anna.png",
        "garment": [folder / "shirt.png", folder / "coat.png"],
        "prompt": "a man, seated",
        "negative_prompt": "a hat",
        "category": "upper",
        "seed": 7,
        "guidance_scale": 3.0,
        "mask_invert": True,
        "strength": 1.0,
    }
    assert (second.name, second.where) == ("ben-coat", f"{source}:4")
    assert second.keywords["mask"] == folder / "mask.png"
    assert second.keywords["seed"] == 1


def test_a_csv_of_inpaint(folder):
    source = write(folder / "rows.csv", "image,mask,prompt", "anna.png,mask.png,a red hat")
    (pair,) = checked(read(Path(source)), {}, {"output_format": "jpeg", "num_images": 2})
    assert pair.task == "inpaint"
    assert [str(path) for path in pair.outputs] == ["anna-1.jpg", "anna-2.jpg"]


def test_equal_pairs_have_names_of_their_own(folder):
    source = write(folder / "pairs.csv", "person,garment", *["anna.png,shirt.png"] * 3)
    pairs = checked(read(Path(source)), {}, {})
    assert [pair.name for pair in pairs] == ["anna-shirt", "anna-shirt.2", "anna-shirt.3"]
    assert [pair.name for pair in keyed(pairs).values()] == [pair.name for pair in pairs]


def test_folders_of_equal_names(tmp_path):
    for path in ("person/a.jpg", "person/b.png", "garment/a.webp", "garment/b.png", "mask/b.png", "person/notes.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(png())
    a, b = checked(read(tmp_path), {}, {})
    assert (a.name, set(a.pictures)) == ("a", {"person", "garment"})
    assert (b.name, b.pictures["mask"]) == ("b", (tmp_path / "mask/b.png",))
    (tmp_path / "garment/c.png").write_bytes(png())
    with pytest.raises(InvalidRequest, match=r"person/c: person is missing"):
        checked(read(tmp_path), {}, {})


def test_viton_hd(tmp_path):
    for path in ("image/00891_00.jpg", "cloth/01430_00.jpg", "agnostic-mask/00891_00_mask.png"):
        (tmp_path / "test" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / path).write_bytes(png())
    listing = Path(write(tmp_path / "test_pairs.txt", "00891_00.jpg 01430_00.jpg"))
    for source in (listing, tmp_path):
        (pair,) = checked(read(source), {}, {})
        assert pair.name == "00891_00-01430_00"
        assert pair.pictures["garment"] == (tmp_path / "test/cloth/01430_00.jpg",)
        assert pair.pictures["mask"] == (tmp_path / "test/agnostic-mask/00891_00_mask.png",)
    write(listing, "00891_00.jpg 01430_00.jpg x", "00891_00.jpg")
    with pytest.raises(InvalidRequest, match=r"(?s)txt:1: 'x' is one word too many.*txt:2: garment is missing"):
        checked(read(listing), {}, {})


# --- what is refused ----------------------------------------------------------------------------------------------


def test_every_bad_line_is_named_before_anything_is_sent(run, fake, folder, capsys):
    (folder / "empty.png").touch()
    lines = [
        "person,garment,seed,strength,mask_invert,name",
        "anna.png,shirt.png,many,2,maybe,",
        "nobody.png,empty.png,,,,",
        "anna.png,,,,,",
        "anna.png,shirt.png,7,0.5,no,fine",
        "ben.png,coat.png,,,,fine",
        "ben.png,coat.png,,,,../up",
        "ben.png,coat.png,,,,,,more",
    ]
    assert run(write(folder / "pairs.csv", *lines), "-o", "out") == 2
    said = capsys.readouterr().err
    for number, texts in {
        2: (
            "seed must be an integer",
            "'many'",
            "strength must be a finite number",
            "mask_invert must be true or false",
        ),
        3: ("person: there is no file", "nobody.png", "empty.png has 0 bytes"),
        4: ("garment is missing",),
        6: ("its name 'fine' is that of", "pairs.csv:5 already"),
        7: ("'../up' is no file's",),
        8: ("'more' is one word too many",),
    }.items():
        (line,) = [line for line in said.splitlines() if f"pairs.csv:{number}: " in line]
        assert all(text in line for text in texts), line
    assert "pairs.csv:5: " not in said
    assert fake.requests == []
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["person,garment,sed", "anna.png,shirt.png,7"], "column 'sed' is unknown: did you mean seed?"),
        (["person,garment,sku", "anna.png,shirt.png,7"], "column 'sku' is unknown: take it out, or --ignore sku"),
        (["person,shirt", "anna.png,shirt.png"], "column 'garment' is missing"),
        (["image,mask", "anna.png,mask.png"], "column 'prompt' is missing"),
        (["person,garment,person", "anna.png,shirt.png,7"], "two columns have the name 'person'"),
        (["person,garment"], "lists nothing to make"),
        ([], "lists nothing to make"),
    ],
)
def test_bad_columns_are_named_once(run, fake, folder, capsys, lines, said):
    more = lines[1:] * 2
    assert run(write(folder / "pairs.csv", *lines, *more), "-o", "out") == 2
    assert capsys.readouterr().err.count(said) == 1
    assert fake.requests == []


def test_a_column_can_be_ignored_and_a_missing_one_be_a_flag(run, fake, folder, capsys):
    source = write(folder / "rows.csv", "image,mask,sku", "anna.png,mask.png,12")
    words = (source, "-o", "out", "--ignore", "sku", "--prompt", "a hat")
    assert run(*words, "--dry-run") == 0
    assert capsys.readouterr().out == "1 pairs, all in order: inpaint\n"
    assert fake.requests == []
    assert run(*words) == 0
    assert fake.requests[0].inputs["prompt"] == b"a hat"


@pytest.mark.parametrize("source", ["nowhere.csv", "bytes.csv", "."])
def test_what_cannot_be_read(run, folder, capsys, source):
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    assert run(source, "-o", "out") == 2
    assert source in capsys.readouterr().err


def test_a_wrong_flag_is_refused_before_anything_is_sent(run, fake, folder, capsys):
    source = write(folder / "pairs.csv", "person,garment", "anna.png,shirt.png")
    assert run(source, "-o", "out", "--strength", "2") == 2
    assert "strength must be" in capsys.readouterr().err
    assert run(source, "-o", "out", "--concurrency", "0") == 2
    assert "concurrency must be" in capsys.readouterr().err
    fake.tasks = ("inpaint",)
    assert run(source, "-o", "out") == 2
    assert "serves inpaint, but not tryon" in capsys.readouterr().err
    fake.ready = False
    assert run(source, "-o", "out") == 6
    assert fake.requests == []


# --- what is made -------------------------------------------------------------------------------------------------


def pairs_csv(folder: Path, count: int) -> str:
    lines = [f"anna.png,shirt.png,{seed},p{seed}" for seed in range(count)]
    return write(folder / "pairs.csv", "person,garment,seed,name", *lines)


def test_a_batch_is_made_and_recorded(run, fake, folder, capsys):
    source = pairs_csv(folder, 3)
    assert run(source, "-o", "out", "--num-images", "2", "--output-format", "jpeg") == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 3
    assert "/3  p" in output.out
    assert "3 of 3 done" in output.err
    lines = {line["name"]: line for line in manifest(folder / "out")}
    assert set(lines) == {"p0", "p1", "p2"}
    line = lines["p2"]
    assert (line["outputs"], line["seeds"]) == (["p2-1.jpg", "p2-2.jpg"], [2, 3])
    assert line["input"] == {"person": [str(folder / "anna.png")], "garment": [str(folder / "shirt.png")]}
    assert line["options"] == {"service_class": "batch", "num_images": 2, "output_format": "jpeg", "seed": 2}
    assert line["seconds"] >= 0
    assert line["request_id"] in {request.id for request in fake.requests}
    assert Image.open(folder / "out/p2-2.jpg").format == "JPEG"
    assert not list((folder / "out").glob(".*"))


def test_json_is_one_document(run, fake, folder, capsys):
    fake.fail("INTERNAL")
    assert run(pairs_csv(folder, 3), "-o", "out", "--json", "--concurrency", "1") == 1
    document = json.loads(capsys.readouterr().out)
    assert document.pop("seconds") > 0
    assert document == {
        "manifest": str(Path("out/manifest.jsonl")),
        "pairs": 3,
        "done": 2,
        "done_before": 0,
        "failed": 1,
        "left": 0,
        "exit_code": 1,
    }


def test_failures_are_recorded_and_made_again(run, fake, folder, capsys):
    source = pairs_csv(folder, 5)
    fake.fail("INTERNAL", times=2)
    assert run(source, "-o", "out", "--concurrency", "1") == 1
    said = capsys.readouterr().err
    assert "p0 (" in said
    assert "pairs.csv:2): told to fail" in said
    assert "3 of 5 done, 2 failed" in said
    failed = [line for line in manifest(folder / "out") if "error" in line]
    assert [line["name"] for line in failed] == ["p0", "p1"]
    assert (failed[0]["error"]["type"], failed[0]["error"]["code"]) == ("ServerError", "INTERNAL")
    sent = len(fake.requests)
    assert run(source, "-o", "out") == 0
    assert "5 of 5 done (3 of them before)" in capsys.readouterr().err
    assert len(fake.requests) == sent + 2
    lines = manifest(folder / "out")
    assert sorted(line["name"] for line in lines) == [f"p{i}" for i in range(5)], "one line for each pair"
    assert not any("error" in line for line in lines)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}
    assert run(source, "-o", "out") == 0
    assert len(fake.requests) == sent + 2
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}


def test_what_is_missing_or_cut_off_is_made_again(run, fake, folder):
    source = pairs_csv(folder, 4)
    assert run(source, "-o", "out", "--concurrency", "1") == 0
    (folder / "out/p0.png").unlink()
    (folder / "out/p1.png").write_bytes(b"short")
    path = folder / "out/manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # the last line, of p3, is torn
    (folder / "out/.p9.png.part").write_bytes(b"left by a killed run")
    fake.requests.clear()
    assert run(source, "-o", "out", "--concurrency", "1") == 0
    assert [request.parameters["seed"] for request in fake.requests] == [0, 1, 3]
    assert sorted(line["name"] for line in manifest(folder / "out")) == ["p0", "p1", "p2", "p3"]
    assert not list((folder / "out").glob(".*"))


def test_more_pairs_go_into_the_same_folder_but_other_ones_do_not(run, fake, folder, capsys):
    assert run(pairs_csv(folder, 2), "-o", "out") == 0
    assert run(pairs_csv(folder, 3), "-o", "out") == 0
    assert len(fake.requests) == 3
    for change in (["--category", "lower"], None):
        if change is None:  # another picture under the same name
            (folder / "anna.png").write_bytes(png((30, 30)))
        assert run(pairs_csv(folder, 3), "-o", "out", *(change or ())) == 2
        assert "has 3 pairs of other inputs" in capsys.readouterr().err
    assert len(fake.requests) == 3
    assert run(pairs_csv(folder, 3), "-o", "out", "--force") == 0
    assert len(fake.requests) == 6
    assert len(manifest(folder / "out")) == 3, "the same names: they were replaced"


def test_what_was_replaced_is_not_said_to_be_there(run, fake, folder):
    source = write(folder / "pairs.csv", "person,garment,name", "anna.png,shirt.png,look", "ben.png,coat.png,other")
    assert run(source, "-o", "out", "--seed", "1") == 0
    write(folder / "pairs.csv", "person,garment,name", "anna.png,shirt.png,look")
    for number, seed in enumerate(("2", "1"), 3):
        assert run(source, "-o", "out", "--seed", seed, "--force") == 0
        assert len(fake.requests) == number
        assert [line["options"]["seed"] for line in manifest(folder / "out") if line["name"] == "look"] == [int(seed)]
    assert {line["name"] for line in manifest(folder / "out")} == {"look", "other"}


def test_what_changes_no_picture_makes_no_other_pair(run, fake, folder):
    source = pairs_csv(folder, 3)
    assert run(source, "-o", "out", "--deadline-ms", "60000") == 0
    assert run(source, "-o", "out", "--deadline-ms", "90000", "--service-class", "interactive") == 0
    assert len(fake.requests) == 3


def test_lines_may_be_put_between(run, fake, folder):
    """Pairs that choose their names themselves keep their pictures, whatever comes before them."""
    source = write(folder / "pairs.csv", "person,garment,seed", "anna.png,shirt.png,1", "anna.png,shirt.png,2")
    assert run(source, "-o", "out") == 0
    write(folder / "pairs.csv", "person,garment,seed", *[f"anna.png,shirt.png,{seed}" for seed in (3, 1, 4, 2)])
    assert run(source, "-o", "out") == 0
    seeds = [request.parameters["seed"] for request in fake.requests]  # pairs are painted side by side
    assert (sorted(seeds[:2]), sorted(seeds[2:])) == ([1, 2], [3, 4])
    found = {line["options"]["seed"]: line["name"] for line in manifest(folder / "out")}
    assert found == {1: "anna-shirt", 2: "anna-shirt.2", 3: "anna-shirt.3", 4: "anna-shirt.4"}
    assert {path.name for path in (folder / "out").glob("*.png")} == {f"{name}.png" for name in found.values()}


def test_a_pairs_own_time_is_not_the_outages(fake, folder, monkeypatch):
    """Each request gives up soon, and the batch waits all the same."""
    real, gone = fake.infer, [True]
    monkeypatch.setattr("dressform.commands.batch.patience.Patience.first", 0.05)

    def infer(request):
        if gone[0] and request.model != "jobs":
            raise ServerUnavailable("connection refused")
        return real(request)

    monkeypatch.setattr(fake, "infer", infer)
    threading.Timer(3, lambda: gone.__setitem__(0, False)).start()
    client = Client(transport=fake, timeout=0.5)
    assert main(["batch", pairs_csv(folder, 5), "-o", "out", "--patience", "60"], client) == 0
    assert len(manifest(folder / "out")) == 5


def test_columns_are_ignored_whatever_their_names(run, fake, folder):
    source = write(folder / "pairs.csv", ",person,garment,Category,name", "0,anna.png,shirt.png,t-shirts,Blue/white")
    assert run(source, "-o", "out") == 2
    assert run(source, "-o", "out", "--ignore", "Category", "--ignore", "NAME") == 0
    assert manifest(folder / "out")[0]["name"] == "anna-shirt"


def test_two_pictures_of_one_name_are_refused(run, folder, capsys):
    for path in ("person/a.jpg", "person/a.png", "garment/a.png"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(png())
    assert run(str(folder), "-o", "out") == 2
    assert "has both a.jpg and a.png" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\x1b]0;pwned\x07", "a\x00b"])
def test_names_that_command_a_terminal_are_refused(run, folder, capsys, name):
    assert run(write(folder / "pairs.csv", "person,garment,name", f"anna.png,shirt.png,{name}"), "-o", "out") == 2
    said = capsys.readouterr().err
    assert "is no file's" in said
    assert "\x1b" not in said
    assert "\x00" not in said


def test_files_of_somebody_else_are_not_overwritten(run, fake, folder, capsys):
    source = write(folder / "pairs.csv", "person,garment,name", "anna.png,shirt.png,ben")
    kept = (folder / "ben.png").read_bytes()
    assert run(source, "-o", ".") == 2
    assert "ben.png exists, and no manifest says that it is a result" in capsys.readouterr().err
    write(folder / "pairs.csv", "person,garment,name", "anna.png,shirt.png,anna")
    assert run(source, "-o", ".", "--force") == 2
    assert "is a picture to be read, not to be written" in capsys.readouterr().err
    assert (folder / "ben.png").read_bytes() == kept
    assert fake.requests == []


def test_a_folder_is_one_programs_at_a_time(run, fake, folder, capsys):
    with Manifest.locked(folder / "out"):
        assert run(pairs_csv(folder, 1), "-o", "out") == 2
    assert "another batch is writing to out" in capsys.readouterr().err
    assert run(pairs_csv(folder, 1), "-o", "out") == 0


def test_a_picture_is_in_place_before_its_line(run, fake, folder, monkeypatch):
    seen = []
    append = Manifest._append
    monkeypatch.setattr(
        Manifest,
        "_append",
        lambda self, pair, line: (seen.append((self.folder / pair.outputs[0]).is_file()), append(self, pair, line)),
    )
    assert run(pairs_csv(folder, 3), "-o", "out") == 0
    assert seen == [True] * 3


# --- a server that goes away --------------------------------------------------------------------------------------


def test_a_server_that_comes_back_costs_nothing(run, fake, folder, capsys, monkeypatch):
    monkeypatch.setattr("dressform.commands.batch.patience.Patience.first", 0.01)
    fake.fail("UNAVAILABLE", times=12)
    assert run(pairs_csv(folder, 4), "-o", "out", "--concurrency", "4") == 0
    said = capsys.readouterr().err
    assert said.count("Waiting for the server") == 1
    assert "4 of 4 done" in said
    assert not any("error" in line for line in manifest(folder / "out"))


def test_a_server_that_stays_away_ends_the_batch_in_time(run, fake, folder, capsys):
    ready = FakeTransport.server_ready
    fake.fail("UNAVAILABLE", times=10_000)
    assert run(pairs_csv(folder, 60), "-o", "out", "--concurrency", "4", "--patience", "0.1", "--json") == 6
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert (document["done"], document["failed"], document["exit_code"]) == (0, 1, 6)
    assert document["left"] == 59
    assert "the same command again makes the rest" in output.err
    assert FakeTransport.server_ready is ready
    fake._failures.clear()
    assert run(pairs_csv(folder, 60), "-o", "out") == 0
    assert len(manifest(folder / "out")) == 60


def test_patience_counts_from_when_the_server_went():
    now = [0.0]
    told = []
    outage = Outage(told.append, clock=lambda: now[0])
    patience = Patience(seconds=100, outage=outage)
    gone, full = ServerUnavailable("gone"), Overloaded("full", code="OVERLOADED", fields={"retry_after_ms": "0"})
    broken = ServerError("a graph failed", code="ENGINE")
    now[0] = 5000.0  # a long request was at work all that time
    assert patience.pause(gone, 1, 5000.0) is not None
    assert patience.seconds == 100
    for now[0] in (5030.0, 5060.0, 5085.0):
        assert patience.pause(gone, 50, now[0]) is not None
    assert outage.seconds == 85
    now[0] = 5099.9
    assert patience.pause(gone, 51, now[0]) is None
    assert len(told) == 1
    now[0] = 5200.0  # nobody tried for long: somebody was served meanwhile
    assert patience.pause(gone, 52, now[0]) is not None
    assert len(told) == 2
    outage.over()
    assert outage.seconds == 0
    assert patience.pause(full, 60, 50.0) is not None
    assert patience.pause(full, 60, 101.0) is None
    died = ServerError("in ensemble 'tryon', Stub process 'unet_0_0' is not healthy")
    for error in (broken, died):
        assert patience.pause(error, 6, 50.0) is not None
        assert patience.pause(error, 7, 50.0) is None
    assert patience.pause(ServerError("please report it", code="INTERNAL"), 1, 0) is None
    assert patience.pause(InvalidRequest("no"), 1, 0) is None


def test_many_threads_see_one_outage():
    told = []
    outage = Outage(told.append)
    threads = [threading.Thread(target=outage.failed, args=(ServerUnavailable("gone"),)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1


# --- interrupted --------------------------------------------------------------------------------------------------

_SLOW = """
import sys
from dressform import Client
from dressform.__main__ import main
from dressform.testing import FakeTransport
fake = FakeTransport(step_seconds=0.05, default_size=(16, 16))
code = main(sys.argv[1:], Client(transport=fake))
print("cancelled", len(fake.cancellations))
sys.exit(code)
"""


def test_ctrl_c_cancels_what_is_under_way_and_the_next_run_goes_on(run, fake, folder):
    # Four short ones, then long ones.
    rows = [f"anna.png,shirt.png,{seed},p{seed},{5 if seed < 4 else 150}" for seed in range(40)]
    source = write(folder / "pairs.csv", "person,garment,seed,name,num_inference_steps", *rows)
    command = [sys.executable, "-c", _SLOW, "batch", source, "-o", "out", "--concurrency", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(list((folder / "out").glob("*.png"))) < 4 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "dressform: interrupted" in err
    assert "Traceback" not in err
    assert "cancelled 3" in out or "cancelled 2" in out  # the third may not have been sent yet
    done = {line["name"] for line in manifest(folder / "out")}
    assert 4 <= len(done) < 40
    assert {path.stem for path in (folder / "out").glob("*.png")} >= done
    assert run(source, "-o", "out") == 0
    assert len(fake.requests) == 40 - len(done)
    assert {line["name"] for line in manifest(folder / "out")} == {f"p{i}" for i in range(40)}
