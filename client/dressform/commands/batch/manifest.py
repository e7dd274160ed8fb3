"""The manifest of a folder of results: ``manifest.jsonl``, a line for each pair that was tried.

A line is appended after the pair's pictures are in place, so whatever it says is done is there, whenever the program
was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dressform.commands.batch.pairs import Pair
from dressform.errors import InvalidRequest

MANIFEST = "manifest.jsonl"
_PART = ".part"

Line = dict[str, Any]


class Manifest:
    """The manifest in ``folder``, which must be locked; ``lines`` are those of pairs that are done, by their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / MANIFEST
        self.lines: dict[str, Line] = {}
        self._keys: dict[str, str] = {}

    @classmethod
    @contextmanager
    def locked(cls, folder: Path) -> Iterator[Manifest]:
        """The manifest in ``folder``, which is made if it is missing, for one program at a time.

        Raises:
            InvalidRequest: if another program has it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidRequest(
                    f"another batch is writing to {folder}: wait for it, or take another folder"
                ) from error
            yield cls(folder)
        finally:
            os.close(handle)

    def begin(self, pairs: Sequence[Pair], force: bool) -> list[Pair]:
        """Those of ``pairs`` that are to be made. Lines of pairs that are not done are dropped: they come again.

        A pair that chose its name itself gets another where a picture that stays has that one.

        Args:
            force: go on although what is there is of other inputs; those of the same names are replaced.

        Raises:
            InvalidRequest: if the folder holds results of other inputs, or files that would be overwritten.
        """
        known = self._read()
        wanted = keyed(pairs)
        others = [line for key, line in known.items() if key not in wanted]
        if others and not force:
            raise InvalidRequest(
                f"{self.path} has {len(others)} pairs of other inputs (such as {others[0].get('name')!r}; changed "
                "pictures or options make others, too): take another folder, or go on with --force, which replaces "
                "those of the same names and keeps the rest"
            )
        self._refuse_overwriting(pairs, force or self.path.exists())
        self.lines = {key: line for key, line in known.items() if key not in wanted or self._is_done(line)}
        todo = self._free_of_names({key: pair for key, pair in wanted.items() if key not in self.lines})
        self._keys = {pair.name: key for key, pair in todo.items()}
        for part in self.folder.glob(f".*{_PART}"):
            part.unlink()
        self._place(self.path, "".join(_text(line) for line in self.lines.values()).encode())
        return list(todo.values())

    def _free_of_names(self, todo: Mapping[str, Pair]) -> dict[str, Pair]:
        """``todo`` under names that no picture has that stays; a name that was given wins over it."""
        given = {str(output) for pair in todo.values() if pair.named for output in pair.outputs}
        self.lines = {key: line for key, line in self.lines.items() if given.isdisjoint(line.get("outputs", ()))}
        taken = given.union(*(line.get("outputs", ()) for line in self.lines.values()))
        free: dict[str, Pair] = {}
        for key, pair in todo.items():
            free[key] = pair if pair.named else pair.renamed(taken)
            taken = taken.union(map(str, free[key].outputs))
        return free

    def done(self, pair: Pair, pictures: Sequence[bytes], line: Mapping[str, Any]) -> None:
        """A pair's pictures: puts them in place, then appends its line."""
        for name, data in zip(pair.outputs, pictures, strict=True):
            self._place(self.folder / name, data)
        outputs = [str(name) for name in pair.outputs]
        self._append(pair, {"outputs": outputs, "bytes": [len(data) for data in pictures], **line})

    def failed(self, pair: Pair, line: Mapping[str, Any]) -> None:
        """A pair that could not be made: appends its line."""
        self._append(pair, line)

    def _append(self, pair: Pair, line: Mapping[str, Any]) -> None:
        whole = {
            "name": pair.name,
            "input": pair.input,
            "options": dict(pair.options),
            **line,
            "key": self._keys[pair.name],
        }
        with self.path.open("ab", buffering=0) as file:
            file.write(_text(whole).encode())

    def _place(self, path: Path, data: bytes) -> None:
        """Writes a file at once or not at all."""
        part = path.with_name(f".{path.name}{_PART}")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _read(self) -> dict[str, Line]:
        """The last line of each pair, by its key."""
        if not self.path.exists():
            return {}
        lines: dict[str, Line] = {}
        texts = self.path.read_bytes().split(b"\n")
        # What stands after the last newline was cut off when the program was killed.
        for number, text in enumerate(texts[:-1], 1):
            try:
                line = json.loads(text)
                lines[line["key"]] = line
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidRequest(f"{self.path}:{number} is no line of a manifest: mend or remove it") from error
        return lines

    def _is_done(self, line: Line) -> bool:
        """Whether the pictures of a line are all there."""
        files = [self.folder / name for name in line.get("outputs", ())]
        sizes = [file.stat().st_size if file.is_file() else None for file in files]
        return bool(files) and sizes == line.get("bytes")

    def _refuse_overwriting(self, pairs: Sequence[Pair], ours: bool) -> None:
        """``ours``: files with the names of results are."""
        inputs = {path.resolve() for pair in pairs for paths in pair.pictures.values() for path in paths}
        for path in (self.folder / name for pair in pairs for name in pair.outputs):
            if path.resolve() in inputs:
                raise InvalidRequest(f"{path} is a picture to be read, not to be written: take another folder")
            if path.exists() and not ours:
                raise InvalidRequest(
                    f"{path} exists, and no manifest says that it is a result: take another folder, or overwrite it "
                    "with --force"
                )


def keyed(pairs: Sequence[Pair]) -> dict[str, Pair]:
    """``pairs`` by their keys; of those that are all alike the second has "-2" at its end, and so on."""
    found: dict[str, Pair] = {}
    times = Counter[str]()
    for pair in pairs:
        times[pair.key] += 1
        found[pair.key if times[pair.key] == 1 else f"{pair.key}-{times[pair.key]}"] = pair
    return found


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
