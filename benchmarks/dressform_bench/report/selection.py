"""Which runs count: of those that may be compared, the newest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dressform_bench.results import created

Record = Mapping[str, Any]

SIZE = ("height", "width", "steps", "users", "seconds", "pattern", "routing")
"""Keys beside the settings by which runs differ, where a benchmark has them."""

ADDRESSES = ("--grpc", "--http", "--server-pid")
"""Arguments of ``load`` that differ from run to run and mean nothing."""


@dataclass(frozen=True)
class Group:
    """Runs of the same benchmark, model, machine and settings: the newest, and those before it, newest first."""

    newest: Record
    earlier: tuple[Record, ...]


def groups(records: Iterable[Record], benchmarks: Sequence[str]) -> list[Group]:
    """In the order of ``benchmarks``, and of models within; newest first where all that is equal."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=created, reverse=True):
        found.setdefault(identity(record), []).append(record)
    made = [Group(newest, tuple(earlier)) for newest, *earlier in found.values()]
    return sorted(made, key=lambda group: (benchmarks.index(group.newest["benchmark"]), group.newest["model"]))


def identity(record: Record) -> str:
    """Equal for runs that may be compared."""
    machine = record["machine"]
    settings = dict(record["settings"])
    if record["benchmark"] == "simulate":
        settings.pop("seconds", None)  # follows from the step times
    if record["benchmark"] == "load" and isinstance(settings.get("arguments"), list):
        settings["arguments"] = _without_addresses(settings["arguments"])
    peers = (
        sorted({row["peer"] for row in record["rows"]} | set(record.get("errors") or ()))
        if record["benchmark"] == "peers"
        else None
    )
    return json.dumps(
        [
            record["benchmark"],
            record["model"],
            machine["name"],
            machine.get("gpu"),
            [record.get(key) for key in SIZE],
            peers,
            settings,
        ],
        sort_keys=True,
    )


def _without_addresses(arguments: Sequence[str]) -> list[str]:
    return [
        word
        for place, word in enumerate(arguments)
        if word not in ADDRESSES and (place == 0 or arguments[place - 1] not in ADDRESSES)
    ]
