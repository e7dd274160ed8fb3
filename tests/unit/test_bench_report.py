"""The report: what counts, what it shows, and the blocks of figures in documents."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform_bench import results
from dressform_bench.report import load, openloop, peers, simulate
from dressform_bench.report.__main__ import main
from dressform_bench.report.contents import SECTIONS, Run, runs, section
from dressform_bench.report.section import Chart, Table, percent, seconds, short
from dressform_bench.report.summary import code, fenced, text
from unit import bench_records

ROOT = Path(__file__).parents[2]
RECORDS = tuple(bench_records.EXAMPLES.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One run of every benchmark."""
    folder = tmp_path / "results"
    keep(folder, *RECORDS)
    return folder


def keep(folder: Path, *records: Any) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def later(record: dict[str, Any], day: str, **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(record), "created": f"{day}T09:00:00+00:00", **values}


def only(*records: dict[str, Any]) -> list[Run]:
    return runs(records)


def test_every_benchmark_has_a_section(folder: Path) -> None:
    found = runs(results.read(folder))
    assert [run.record["benchmark"] for run in found] == list(SECTIONS)
    for run in found:
        assert {Chart, Table} <= {type(part) for part in run.section.parts}
        assert run.section.finding.strip()
        assert not run.section.finding.endswith(".")


def test_the_newest_run_counts_and_the_earlier_are_told() -> None:
    old = bench_records.OVERHEAD
    new = later(old, "2026-04-01")
    new["rows"][0]["served_over_bare"] = 1.5
    (run,) = only(new, old)
    assert run.record is new
    assert [day for day, _ in run.earlier] == ["2026-03-04"]
    assert "1.50 × for 1 job" in run.section.finding


@pytest.mark.parametrize(
    "values",
    [{"model": "another"}, {"machine": {"name": "another"}}, {"settings": {"steps": 4}}],
    ids=["model", "machine", "settings"],
)
def test_runs_that_cannot_be_compared_stand_apart(values: dict[str, Any]) -> None:
    assert len(only(bench_records.OVERHEAD, later(bench_records.OVERHEAD, "2026-04-01", **values))) == 2


def test_the_page_needs_no_other_file(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)|url\((?!#)|@import", page)
    assert not [uri for uri in re.findall(r"(?:src|href)=\"([^\"]*)", page) if not uri.startswith("#")]
    for record in RECORDS:
        assert record["command"] in page
        assert record["machine"]["name"] in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "an SVG's ids must not be those of another"


def test_what_a_record_says_is_no_markup(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script> | `x` _y_"
    record = later(bench_records.PEERS, "2026-04-01", command=nasty, model=nasty, errors={nasty: nasty})
    keep(tmp_path / "results", record)
    page, summary = tmp_path / "page.html", tmp_path / "summary.md"
    assert main([str(tmp_path / "results"), "--html", str(page), "--markdown", str(summary)]) == 0
    assert "<script" not in page.read_text(encoding="utf-8")
    written = summary.read_text(encoding="utf-8")
    (row,) = [line for line in written.splitlines() if line.startswith("|") and "script" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3, "two cells"


def test_charts_are_pictures_beside_the_summary(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--markdown", str(tmp_path / "summary.md"), "--charts", str(tmp_path / "charts")]) == 0
    links = re.findall(r"!\[[^\n]*\]\((charts/[^)]+\.png)\)", (tmp_path / "summary.md").read_text(encoding="utf-8"))
    assert len(links) == len(list((tmp_path / "charts").iterdir())) >= len(SECTIONS)
    for link in links:
        with Image.open(tmp_path / link) as image:
            assert image.width > 1000
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 10


def test_a_folder_without_records_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no records" in capsys.readouterr().err


def test_a_line_that_is_no_record_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(folder, {"benchmark": "unheard"})
    assert main([str(folder)]) == 2
    assert f"line {len(RECORDS) + 1}" in capsys.readouterr().err


BLOCK = "Before.\n\n<!-- figures: {}: {} -->\nold\n<!-- /figures -->\n\nAfter.\n"
HEADING = "Overhead: example, 20 steps, onnxruntime"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """With one block, yet to be written."""
    (tmp_path / "docs").mkdir()
    path = tmp_path / "README.md"
    path.write_text(BLOCK.format(HEADING, "finding, ratio, overhead.png"), encoding="utf-8")
    return path


def test_a_block_is_written_and_then_agrees(folder: Path, document: Path) -> None:
    fill = [str(folder), "--fill", str(document)]
    assert main([*fill, "--check"]) == 1
    assert main(fill) == 0
    words = document.read_text(encoding="utf-8")
    assert words.startswith("Before.\n\n<!-- figures")
    assert words.endswith("<!-- /figures -->\n\nAfter.\n")
    assert "old" not in words
    assert "Served takes" in words
    assert "| jobs at once |" in words
    assert "(docs/overhead.png)" in words
    assert (document.parent / "docs/overhead.png").is_file()
    assert main([*fill, "--check"]) == 0
    assert main(fill) == 0
    assert document.read_text(encoding="utf-8") == words


def test_a_figure_changed_by_hand_is_found(folder: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--fill", str(document)]) == 0
    words = document.read_text(encoding="utf-8")
    document.write_text(words.replace("1.06", "1.01"), encoding="utf-8")
    assert main([str(folder), "--fill", str(document), "--check"]) == 1
    assert HEADING in capsys.readouterr().err


def test_a_newer_run_is_found_even_if_only_the_chart_differs(folder: Path, document: Path) -> None:
    assert main([str(folder), "--fill", str(document)]) == 0
    keep(folder, later(bench_records.OVERHEAD, "2026-04-01"))
    assert main([str(folder), "--fill", str(document), "--check"]) == 1, "the chart is of the earlier run"


@pytest.mark.parametrize(
    ("heading", "part", "told"),
    [
        ("Overhead: other", "finding", "no section"),
        (HEADING, "nothing", "no table"),
        (HEADING, "nothing.png", "no chart"),
    ],
)
def test_a_block_that_names_nothing_is_an_error(
    folder: Path, document: Path, capsys: pytest.CaptureFixture[str], heading: str, part: str, told: str
) -> None:
    document.write_text(BLOCK.format(heading, part), encoding="utf-8")
    assert main([str(folder), "--fill", str(document)]) == 2
    assert told in capsys.readouterr().err
    assert "old" in document.read_text(encoding="utf-8")


def test_figures_in_the_readme_are_those_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "benchmarks/results"), "--fill", str(ROOT / "README.md"), "--check"]) == 0, (
        capsys.readouterr().err
    )


def test_numbers_are_written_with_what_counts() -> None:
    assert [short(value) for value in (None, 0, 0.01234, 1.0, 99.95, 1234.5)] == [
        "–",
        "0",
        "0.0123",
        "1.00",
        "100",
        "1,234",
    ]
    assert [seconds(value) for value in (0.0123, 1.5, 720)] == ["12.3 ms", "1.50 s", "12.0 min"]
    assert [percent(value) for value in (1, 0.9999, 0.5, 0.0001, 0)] == ["100 %", "99.9 %", "50 %", "0.1 %", "0 %"]


def test_markdown_is_made_harmless() -> None:
    assert text("a|b *c* <d>\n`e`") == r"a\|b \*c\* &lt;d&gt; \`e\`"
    assert code("a ` b") == "``a ` b``"
    assert fenced("echo ```").startswith("````sh\n")


def users(*held: dict[str, float]) -> list[dict[str, Any]]:
    """Samples every five seconds."""
    return [
        {"t": 5.0 * n, "users": 4, "failures": 0, "memory_gigabytes": sum(each.values()), "memory_by_process": each}
        for n, each in enumerate(held)
    ]


def test_a_leak_is_told_by_its_rate_and_its_process() -> None:
    """7.2 MB a minute, 432 MB an hour, in ``unet``; what grew in the first half alone does not count."""
    first = [{"triton": 0.3 + 0.05 * n, "unet": 0.5} for n in range(20)]
    second = [{"triton": 1.3, "unet": 0.5 + 0.0006 * n} for n in range(20)]
    record = {**bench_records.LOAD, "series": users(*first, *second)}
    assert load.finding(record).endswith("; memory 1.81 GB, +7.2 MB a minute in the second half (fastest: unet, +7.2)")
    rows = load.section(record).tables["memory"].rows
    assert [(row[0], row[2]) for row in rows] == [("unet", "+7.20"), ("triton", "+0.00"), ("all", "+7.20")]


def test_memory_that_falls_is_told_and_one_sample_tells_nothing() -> None:
    falling = users(*({"triton": 1 - 0.001 * n} for n in range(10)))
    assert load.finding({**bench_records.LOAD, "series": falling}).endswith("GB, −12.0 MB a minute in the second half")
    assert "memory" not in load.finding({**bench_records.LOAD, "series": falling[:1]})


def test_the_engine_of_a_load_is_in_its_heading() -> None:
    assert load.section(bench_records.LOAD).heading == "Load: example, openvino, 32 users for 10 minutes"


def test_the_rate_that_keeps_the_slo_lies_between_two_that_were_tried() -> None:
    told = openloop.finding(bench_records.OPENLOOP)
    assert told == (
        "The highest rate that keeps the SLO is between 12.1 and 12.3 requests/s by step batching, "
        "between 6.56 and 8.20 by request batching"
    )
    rows = bench_records.OPENLOOP["rows"]
    ends = [row for row in rows if (row["mode"], row["load"]) in (("step", 1.0), ("request", 2.0))]
    assert openloop.finding({**bench_records.OPENLOOP, "rows": ends}) == (
        "The highest rate that keeps the SLO is at least 8.20 requests/s (the highest tried) by step batching, "
        "below 16.4 (the lowest tried) by request batching"
    )
    kept = openloop.section(bench_records.OPENLOOP).tables["kept"].rows
    assert [(row[0], row[1], row[-1]) for row in kept] == [("step", "12.1", "12.3"), ("request", "6.56", "8.20")]


def test_a_run_that_was_interrupted_says_so() -> None:
    notes = section({**bench_records.OPENLOOP, "interrupted": True}).notes
    assert any("interrupted" in note for note in notes)
    for rows in ([], bench_records.OPENLOOP["rows"][:1]):
        assert openloop.section({**bench_records.OPENLOOP, "rows": rows}).finding


def test_servers_are_told_for_the_rate_that_was_offered_with_their_range() -> None:
    assert simulate.finding(bench_records.SIMULATE).startswith(
        "836 requests/s need 66 servers (65 to 67) by least-loaded and 88 (86 to 90) by round-robin routing; "
    )
    rows = simulate.section(bench_records.SIMULATE).tables["needed"].rows
    assert rows[0] == ("8.36", "round-robin", "1", "96 %", "95 % to 96 %")
    assert rows[-2] == ("4,080", "round-robin", "more than tried (250 to more)", "93 %", "92 % to 94 %")


def test_who_is_as_fast_is_not_called_faster() -> None:
    rows = [
        {"peer": "diffusers-fp32", "users": 1, "seconds": 4.0},
        {"peer": "optimum-intel", "users": 1, "seconds": 2.01},
        {"peer": "served:openvino", "users": 1, "seconds": 2.0},
    ]
    told = peers.finding({"rows": rows})
    assert told.endswith("2.0 times as fast as diffusers-fp32 and as fast as optimum-intel")
