"""Pairs: what one request of a batch is made of, checked before anything is sent."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from dressform.commands.batch.rows import Row
from dressform.commands.results import ENDINGS, numbered
from dressform.errors import InvalidRequest
from dressform_contract import (
    MAX_ENCODED_BYTES,
    OPTIONAL_INPUTS,
    PARAMETERS,
    TASK_INPUTS,
    ContractError,
    Parameter,
    Value,
)

BatchTask = Literal["inpaint", "tryon"]
TEXTS = ("prompt", "negative_prompt")
OUTFIT = "|"
"""Between the garments (or masks) of an outfit in one cell."""

_NO_PICTURE = frozenset({"deadline_ms", "service_class", "preview_every"})
"""Options that make no other picture."""

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Pair:
    """One request.

    Attributes:
        where: the line, or the picture, that asks for it.
        name: of its pictures, without ending; ``named``: it was given, not made of the pictures' names.
        pictures: paths by input; several are an outfit.
        texts, options: as the client's calls take them.
    """

    where: str
    name: str
    task: BatchTask
    pictures: Mapping[str, tuple[Path, ...]]
    texts: Mapping[str, str]
    options: Mapping[str, Value]
    named: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of ``Client.tryon`` or ``Client.inpaint``."""
        pictures = {name: paths[0] if len(paths) == 1 else list(paths) for name, paths in self.pictures.items()}
        return {**pictures, **self.texts, **self.options}

    @property
    def outputs(self) -> list[Path]:
        """The names of its files."""
        ending = ENDINGS[str(self.options.get("output_format", "png"))]
        return numbered(Path(f"{self.name}{ending}"), int(self.options.get("num_images", 1)))

    @property
    def input(self) -> dict[str, Any]:
        """What it is made of, as JSON."""
        return {name: [str(path) for path in paths] for name, paths in self.pictures.items()} | dict(self.texts)

    @cached_property
    def key(self) -> str:
        """A digest of what its pictures come from: of what it is made of, bytes included, wherever they lie."""
        pictures = {
            name: [_digest(path, path.stat().st_mtime_ns) for path in paths] for name, paths in self.pictures.items()
        }
        options = {name: value for name, value in self.options.items() if name not in _NO_PICTURE}
        whole = [self.task, self.name if self.named else None, pictures, self.texts, options]
        return hashlib.blake2b(json.dumps(whole, sort_keys=True, default=dict).encode(), digest_size=16).hexdigest()

    def renamed(self, taken: Collection[str]) -> Pair:
        """This pair with a name of its own choice, none of whose files is among ``taken``."""
        names = (replace(self, name=name) for name in _names(self.stem))
        return next(pair for pair in names if not any(str(output) in taken for output in pair.outputs))

    @property
    def stem(self) -> str:
        """What its name is made of where none was given: its pictures' names."""
        paths = [path for name in ("person", "garment", "image") for path in self.pictures.get(name, ())]
        return "-".join(path.stem for path in paths)


def checked(
    rows: Sequence[Row], texts: Mapping[str, str], options: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[Pair]:
    """The pairs that ``rows`` ask for; their words win over ``texts`` and ``options``, which hold for all.

    Raises:
        InvalidRequest: naming every row that is wrong.
    """
    common = {name: _validated(PARAMETERS[name], value) for name, value in options.items()}
    without = {column.lower() for column in ignored}
    rows = [row.without(without) for row in rows]
    columns = {column for row in rows for column in row.values}
    task: BatchTask = "inpaint" if "image" in columns else "tryon"
    # What is wrong with all lines is said once.
    wrong = [f"  column {fault}" for fault in _column_faults(columns, texts, task)]
    pairs: list[Pair] = []
    used: dict[str, str] = {}
    for row in rows:
        try:
            pair = _pair(row, columns, task, texts, common, used)
        except InvalidRequest as error:
            wrong.append(f"  {row.where}: {error.args[0]}")
        else:
            pairs.append(pair)
            used.update((str(output), row.where) for output in pair.outputs)
    if wrong:
        raise InvalidRequest("\n".join(["nothing was sent, for this is wrong:", *wrong]))
    return pairs


def _column_faults(columns: Collection[str], texts: Collection[str], task: BatchTask) -> Iterator[str]:
    """What is wrong with the columns: names that are unknown, and those that no line has."""
    known = {"name", *TASK_INPUTS[task], *PARAMETERS}
    for column in sorted(columns):
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"take it out, or --ignore {column}; known are name, "
            yield f"{column!r} is unknown: {hint}" + ("" if near else ", ".join([*TASK_INPUTS[task], *PARAMETERS]))
    for name in _needed(task):
        if name not in columns and name not in texts:
            yield f"{name!r} is missing"


def _needed(task: BatchTask) -> list[str]:
    return [name for name in TASK_INPUTS[task] if name not in OPTIONAL_INPUTS[task]]


def _pair(
    row: Row,
    columns: Collection[str],
    task: BatchTask,
    texts: Mapping[str, str],
    options: Mapping[str, Value],
    used: Mapping[str, str],
) -> Pair:
    faults = [f"{row.extra!r} is one word too many"] if row.extra else []
    own: dict[str, Any] = {"options": dict(options), "texts": dict(texts), "pictures": {}}
    for column, word in row.values.items():
        try:
            if column in TEXTS:
                own["texts"][column] = word
            elif column in TASK_INPUTS[task]:
                own["pictures"][column] = _paths(
                    column, word, row.folder, outfit=task == "tryon" and column != "person"
                )
            elif column in PARAMETERS:
                own["options"][column] = _validated(PARAMETERS[column], _read(PARAMETERS[column], word))
        except InvalidRequest as error:
            faults.append(str(error.args[0]))
    given = {*row.values, *own["texts"]}
    faults += [f"{name} is missing" for name in _needed(task) if name in columns and name not in given]
    if faults:
        raise InvalidRequest("; ".join(faults))
    return _named(row, task, own, used)


def _named(row: Row, task: BatchTask, own: Mapping[str, Any], used: Mapping[str, str]) -> Pair:
    """The pair, under a name that no other has: its own, or one made of its pictures' names."""
    wanted = row.values.get("name", "")
    pair = Pair(row.where, wanted, task, **own, named=bool(wanted))
    if not wanted:
        pair = pair.renamed(used)
    taken = next((used[str(output)] for output in pair.outputs if str(output) in used), None)
    if taken is not None:
        raise InvalidRequest(f"its name {wanted!r} is that of {taken} already")
    name = pair.name
    whole = name.isprintable() and Path(name).name == name and not name.startswith(".")
    if not whole or len(str(pair.outputs[-1]).encode()) > 240:
        raise InvalidRequest(f"its name {name!r} is no file's: give a short one without slashes in a column 'name'")
    return pair


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}.{number}"
        number += 1


def _paths(column: str, word: str, folder: Path, outfit: bool) -> tuple[Path, ...]:
    paths = tuple(folder / part.strip() for part in (word.split(OUTFIT) if outfit else [word]))
    for path in paths:
        if not path.is_file():
            raise InvalidRequest(f"{column}: there is no file {path}")
        size = path.stat().st_size
        if not 0 < size <= MAX_ENCODED_BYTES:
            raise InvalidRequest(f"{column}: {path} has {size} bytes; a picture has 1 to {MAX_ENCODED_BYTES}")
    return paths


def _read(parameter: Parameter, word: str) -> object:
    """A cell as the parameter's kind of value, or the word itself, which is refused then."""
    try:
        if parameter.kind == "integer":
            return int(word)
        if parameter.kind == "number":
            return float(word)
    except ValueError:
        return word
    return _BOOLEANS.get(word.lower(), word) if parameter.kind == "boolean" else word


def _validated(parameter: Parameter, value: object) -> Value:
    try:
        return parameter.validated(value)
    except ContractError as error:
        raise InvalidRequest(str(error)) from error


@cache
def _digest(path: Path, mtime_ns: int) -> str:  # noqa: ARG001 - a picture that was changed is another one
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
