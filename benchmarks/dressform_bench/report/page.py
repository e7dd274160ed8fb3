"""The report as one HTML file with everything in it: no script, no picture, no style from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dressform_bench.report.chart import svg
from dressform_bench.report.contents import Run
from dressform_bench.report.section import Chart, Code, Table

_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 66rem; padding: 1rem; color: #222 }
body { background: #fff }
h1 { font-size: 1.7rem; line-height: 1.2 }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .3rem; border-top: 1px solid #ddd; padding-top: 1rem }
.finding { font-size: 1.1rem; font-weight: 600; margin: .3rem 0 }
.circumstances, .note, figcaption small { color: #555; font-size: .9rem; margin: .3rem 0; overflow-wrap: anywhere }
figure { margin: 1.2rem 0 }
figcaption { font-weight: 600; margin-bottom: .4rem }
figure svg { display: block; width: 100%; height: auto }
figure .narrow { display: none }
.table { overflow-x: auto; margin: .4rem 0 1.4rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem .25rem 0; text-align: right; vertical-align: top }
th { color: #555; font-weight: 600; vertical-align: bottom }
th:first-child, td:first-child, .words td, .words th { text-align: left }
code { font: .9em ui-monospace, monospace }
td code { white-space: nowrap }
.words td code { white-space: normal; overflow-wrap: anywhere }
pre { background: #f5f5f5; padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem }
summary { cursor: pointer; font-weight: 600; font-size: .9rem }
@media (max-width: 44rem) {
  figure .wide { display: none }
  figure .narrow { display: block }
}
"""

WORDS = ("errors", "earlier")
"""Tables without figures."""

FOLDED = 12
"""Tables with more rows than this are folded away at first."""


def page(runs: Sequence[Run]) -> str:
    """The whole file."""
    title = "Dressform benchmarks"
    last = max(run.day for run in runs)
    contents = "\n".join(
        f'<li><a href="#run{number}">{escape(run.section.heading)}</a>: {escape(run.section.finding)}</li>'
        for number, run in enumerate(runs, 1)
    )
    machines = "\n".join(f"<li>{escape(each)}</li>" for each in dict.fromkeys(map(_machine, runs)))
    body = [
        f"<h1>{title}</h1>",
        f'<p class="note">Runs until {last}. Each section names its machine, its versions, and the command to repeat '
        "it.</p>",
        f"<ul>\n{contents}\n</ul>",
        f"<p>Measured on:</p>\n<ul>\n{machines}\n</ul>",
        *(_section(run, number) for number, run in enumerate(runs, 1)),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _machine(run: Run) -> str:
    return run.circumstances.partition("; ")[0].partition(", on ")[2]


def _section(run: Run, number: int) -> str:
    section = run.section
    lines = [
        f'<section id="run{number}">',
        f"<h2>{escape(section.heading)}</h2>",
        f'<p class="finding">{escape(section.finding)}</p>',
        f'<p class="circumstances">{escape(run.circumstances)}</p>',
        f"<pre>{escape(run.record['command'])}</pre>",
        *(f'<p class="note">{escape(note)}</p>' for note in _notes(run)),
        *(
            _figure(part, f"run{number}", part.title != section.finding) if isinstance(part, Chart) else _table(part)
            for part in section.parts
        ),
    ]
    if run.earlier:
        lines.append(_table(Table("earlier", "Earlier runs of the same", ("date", "found"), run.earlier)))
    return "\n".join([*lines, "</section>"])


def _notes(run: Run) -> list[str]:
    return [*run.section.notes, *([str(run.record["note"])] if run.record.get("note") else [])]


def _figure(chart: Chart, salt: str, titled: bool) -> str:
    """Two pictures, of which the style shows one; the section's finding is not said twice."""
    title = f"<figcaption>{escape(chart.title)}</figcaption>\n" if titled else ""
    label = escape(f"{chart.title}. {chart.alt}", quote=True)
    pictures = [
        svg(chart, narrow, f"{salt}-{chart.name}").replace(
            "<svg", f'<svg class="{"narrow" if narrow else "wide"}" role="img" aria-label="{label}"', 1
        )
        for narrow in (False, True)
    ]
    return f"<figure>{title}{''.join(pictures)}</figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "\n".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    words = ' class="words"' if table.name in WORDS else ""
    caption = escape(table.caption)
    if len(table.rows) > FOLDED:
        inside = f'<div class="table"><table{words}>\n<tr>{head}</tr>\n{rows}\n</table></div>'
        return f"<details><summary>{caption} ({len(table.rows)} rows)</summary>{inside}</details>"
    return f'<div class="table"><table{words}><caption>{caption}</caption>\n<tr>{head}</tr>\n{rows}\n</table></div>'


def _cell(cell: str) -> str:
    return f"<code>{escape(cell)}</code>" if isinstance(cell, Code) else escape(cell)
