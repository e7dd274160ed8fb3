"""The report as Markdown: findings, tables, the commands to repeat; charts where they were written as files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dressform_bench.report.contents import Run
from dressform_bench.report.section import Chart, Code, Table


def summary(runs: Sequence[Run], charts: Mapping[tuple[int, str], str]) -> str:
    """The whole file; ``charts`` are the paths of pictures by run (from 0) and name."""
    findings = [f"- {text(run.section.heading)}: {text(run.section.finding)}." for run in runs]
    sections = [
        _section(run, {name: path for (at, name), path in charts.items() if at == k}) for k, run in enumerate(runs)
    ]
    return "\n\n".join(["# Dressform benchmarks", "\n".join(findings), *sections]) + "\n"


def _section(run: Run, charts: Mapping[str, str]) -> str:
    section = run.section
    notes = [*section.notes, *([str(run.record["note"])] if run.record.get("note") else [])]
    blocks = [
        f"## {text(section.heading)}",
        f"**{text(section.finding)}.**",
        f"{text(run.circumstances)}.",
        fenced(run.record["command"]),
        *map(text, notes),
    ]
    for part in section.parts:
        if isinstance(part, Table):
            blocks.append(f"{text(part.caption)}:\n\n{table(part)}")
        elif part.name in charts:
            blocks.append(picture(part, charts[part.name]))
    if run.earlier:
        earlier = Table("earlier", "Earlier runs of the same", ("date", "found"), run.earlier)
        blocks.append(f"{earlier.caption}:\n\n{table(earlier)}")
    return "\n\n".join(blocks)


def table(of: Table) -> str:
    """Pipes and dashes."""
    head = f"| {' | '.join(map(text, of.head))} |"
    rule = f"| {' | '.join(['---'] * len(of.head))} |"
    return "\n".join([head, rule, *(f"| {' | '.join(map(_cell, row))} |" for row in of.rows)])


def picture(chart: Chart, path: str) -> str:
    """A link to the file."""
    return f"![{text(chart.title)}]({path})"


def fenced(command: str) -> str:
    """A block of shell, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"{fence}sh\n{command}\n{fence}"


def text(words: str) -> str:
    """With every sign that means something to Markdown or HTML made harmless; lines become spaces."""
    plain = re.sub(r"\s+", " ", words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def code(words: str) -> str:
    """Between backticks, in a table too."""
    plain = re.sub(r"\s+", " ", words).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{ticks}{pad}{plain}{pad}{ticks}"


def _cell(cell: str) -> str:
    return code(cell) if isinstance(cell, Code) else text(cell)
