"""What a report holds: the sections of the runs that count, and what all runs have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from dressform_bench.report import load, openloop, overhead, peers, simulate, step_overhead
from dressform_bench.report.section import Section
from dressform_bench.report.selection import Record, groups
from dressform_bench.results import created

SECTIONS: Mapping[str, Callable[[Record], Section]] = {
    "peers": peers.section,
    "load": load.section,
    "openloop": openloop.section,
    "overhead": overhead.section,
    "simulate": simulate.section,
    "step-overhead": step_overhead.section,
}
"""By benchmark, in the order of the report."""


@dataclass(frozen=True)
class Run:
    """A run that counts, with its section, and what earlier ones like it found: date and sentence, newest first."""

    record: Record
    section: Section
    earlier: tuple[tuple[str, str], ...]

    @property
    def day(self) -> str:
        """As in 2026-11-23."""
        return day(self.record)

    @property
    def circumstances(self) -> str:
        """When, where and with which versions."""
        versions = ", ".join(f"{name} {version}" for name, version in self.record["versions"].items())
        return f"{self.day}, on {machine(self.record)}" + (f"; {versions}" if versions else "")

    @property
    def caption(self) -> str:
        """What stands below its charts where they are alone."""
        return f"{self.section.heading}; {self.day}, on {machine(self.record)}"

    @property
    def source(self) -> str:
        """Which record its charts are drawn from: its benchmark, when it was made, and a digest of all that it says."""
        digest = hashlib.sha256(json.dumps(self.record, sort_keys=True).encode()).hexdigest()
        return f"{self.record['benchmark']} of {self.record['created']}, {digest[:16]}"


def runs(records: Iterable[Record]) -> list[Run]:
    """The newest run of each kind, in the report's order."""
    return [
        Run(
            group.newest,
            section(group.newest),
            tuple((day(record), section(record).finding) for record in group.earlier),
        )
        for group in groups(records, list(SECTIONS))
    ]


def section(record: Record) -> Section:
    """Its benchmark's; where a GPU was there, its heading names it, and its notes say if it was cut short."""
    made = SECTIONS[record["benchmark"]](record)
    gpu = record["machine"].get("gpu")
    if gpu:
        made = replace(made, heading=f"{made.heading}, on {gpu}")
    if record.get("interrupted"):
        made = replace(made, notes=(*made.notes, "The run was interrupted: this is what was measured until then."))
    return made


def day(record: Record) -> str:
    """When it was made."""
    return created(record).date().isoformat()


def machine(record: Record) -> str:
    """Its processor, memory and GPU, as far as they were told."""
    told = record["machine"]
    words = [told["name"]]
    if told.get("memory_gigabytes") is not None:
        words.append(f"{told['memory_gigabytes']:g} GB of memory")
    if "gpu" in told:
        words.append(told["gpu"] or "no GPU")
    return ", ".join(words)
