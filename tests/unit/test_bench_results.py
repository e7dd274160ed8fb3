"""Records of benchmarks: made, kept and read again; what is no record is refused by file and line."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dressform_bench import results
from dressform_bench.forms import FORMS, problem
from unit.bench_records import EXAMPLES

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results"


def kept(folder: Path, *lines: str) -> Path:
    (folder / "runs.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def test_a_header_says_when_where_and_how_to_repeat_it() -> None:
    header = results.header("peers", ["--size", "demo", "--model", "my own"], {"rounds": 2})
    assert header["command"] == "dressform bench peers --size demo --model 'my own'"
    assert header["settings"] == {"rounds": 2}
    assert header["versions"]["tritonclient"] == version("tritonclient")
    assert set(header["machine"]) == {"name", "cpus", "memory_gigabytes", "gpu"}
    assert header["machine"]["memory_gigabytes"] > 0.1
    assert results.created(header).tzinfo is not None


def test_records_are_appended_printed_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later, earlier = ({**EXAMPLES["load"], "created": f"2026-01-0{day}T00:00:00+00:00"} for day in (2, 1))
    for record in (later, earlier):
        results.write(record, tmp_path / "new" / "runs.jsonl")
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == record
    (tmp_path / "new" / "other.json").write_text('{"no": "record"}')
    assert results.read(tmp_path / "new") == [earlier, later]
    results.write(earlier, None)
    assert len(results.read(tmp_path / "new")) == 2


def test_times_of_several_zones_are_put_in_order(tmp_path: Path) -> None:
    at = ["2026-01-02T00:30:00+02:00", "2026-01-01T23:00:00+00:00", "2026-01-01T22:45:00"]
    kept(tmp_path, *(json.dumps({**EXAMPLES["load"], "created": each}) for each in at))
    assert [record["created"] for record in results.read(tmp_path)] == [at[0], at[2], at[1]]


def changed(name: str, **keys: Any) -> str:
    return json.dumps({**EXAMPLES[name], **keys})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "a record is an object, not [1]"),
        (changed("load", benchmark="magic"), "there is no benchmark 'magic': there are peers, load, openloop,"),
        ('{"benchmark": "load"}', "created, command, machine, versions, settings, model, summary, series missing"),
        (changed("load", machine={}), "machine.name missing"),
        (changed("load", model=None), "model must be text, not None"),
        (changed("load", created="yesterday"), "created must be a date and time of ISO 8601, not 'yesterday'"),
        (changed("load", series={}), "series must be a list, not {}"),
        (changed("peers", rows=[{"peer": "a", "seconds": 1}, {"peer": "b"}]), "rows[1].seconds missing"),
        (changed("peers", rows=[{"peer": "a", "seconds": True}]), "rows[0].seconds must be a number, not True"),
        (changed("peers", rows=[{"peer": "a", "seconds": float("nan")}]), "rows[0].seconds must be a number, not nan"),
        (changed("peers", steps=2.5), "steps must be a whole number, not 2.5"),
        (changed("openloop", slo_rate_per_s={"step": None}), "slo_rate_per_s.step must be a number, not None"),
        (changed("simulate", validation=[{}]), "validation[0].rate_per_s, validation[0].measured, "),
        (
            changed("simulate", servers_needed=[{**EXAMPLES["simulate"]["servers_needed"][0], "servers": "9"}]),
            "number or null, not",
        ),
    ],
)
def test_what_is_no_record_is_refused_by_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    kept(tmp_path, json.dumps(EXAMPLES["peers"]), "", line)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        results.read(tmp_path)
    assert f"{tmp_path}/runs.jsonl, line 3: " in str(caught.value)


def test_the_examples_are_records_of_every_benchmark() -> None:
    assert EXAMPLES.keys() == FORMS.keys()
    assert [problem(record) for record in EXAMPLES.values()] == [None] * len(EXAMPLES)


def test_committed_runs_are_records() -> None:
    assert results.read(COMMITTED)
