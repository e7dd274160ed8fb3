"""What a batch is asked to make, as written: rows of a CSV, lines of a pairs file, or pictures of equal names."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dressform.errors import InvalidRequest

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".npy", ".heic")
_FOLDERS = (("person", "garment"), ("image", "mask"))


@dataclass(frozen=True)
class Row:
    """Words by column, empty ones left out; ``where`` it stands; ``folder``: paths start there; a word too many."""

    where: str
    values: Mapping[str, str]
    folder: Path = Path()
    extra: str = ""

    def without(self, columns: Collection[str]) -> Row:
        """This row without some of its columns."""
        return replace(self, values={name: word for name, word in self.values.items() if name not in columns})


def read(source: Path) -> list[Row]:
    """The rows of ``source``.

    A folder: ``person/`` and ``garment/`` (or ``image/`` and ``mask/``) with pictures of equal names, and ``mask/`` for
    those that have one; or a folder with a ``test_pairs.txt``. A file ``.txt``: a person and a garment on each line, as
    in VITON-HD's ``test_pairs.txt``. Any other file: CSV, separated by comma, semicolon or tab, with a line of columns;
    one without a name is left out.

    Raises:
        InvalidRequest: if there is nothing to read.
    """
    try:
        if source.is_dir():
            rows = list(_of_folder(source))
        else:
            text = source.read_text(encoding="utf-8-sig")
            rows = list(_of_pairs(source, text) if source.suffix == ".txt" else _of_csv(source, text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise InvalidRequest(f"{source} lists nothing to make")
    return rows


def _of_csv(source: Path, text: str) -> Iterator[Row]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [column.strip().lower() for column in next(reader, [])]
    twice = {column for column in columns if column and columns.count(column) > 1}
    if twice:
        raise InvalidRequest(f"{source}:1: two columns have the name {sorted(twice)[0]!r}")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        values = {name: cell.strip() for name, cell in zip(columns, cells) if name and cell.strip()}
        extra = "".join(cells[len(columns) :]).strip()
        yield Row(f"{source}:{reader.line_num}", values, source.parent, extra)


def _of_pairs(source: Path, text: str) -> Iterator[Row]:
    folder = source.parent
    split = folder / source.stem.partition("_")[0]
    layouts = [
        (split / "image", split / "cloth"),
        (folder / "image", folder / "cloth"),
        (folder / "person", folder / "garment"),
    ]
    persons, garments = next((pair for pair in layouts if pair[0].is_dir() and pair[1].is_dir()), (folder, folder))
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        values = {"person": str(persons / words[0])}
        values |= {"garment": str(garments / words[1])} if len(words) > 1 else {}
        mask = persons.parent / "agnostic-mask" / f"{Path(words[0]).stem}_mask.png"
        values |= {"mask": str(mask)} if mask.is_file() else {}
        yield Row(f"{source}:{number}", values, extra=" ".join(words[2:]))


def _of_folder(source: Path) -> Iterator[Row]:
    names = next((names for names in _FOLDERS if all((source / name).is_dir() for name in names)), None)
    if names is None:
        listing = source / "test_pairs.txt"
        if not listing.is_file():
            raise InvalidRequest(f"{source} has neither person/ and garment/, nor image/ and mask/, nor test_pairs.txt")
        yield from _of_pairs(listing, listing.read_text(encoding="utf-8"))
        return
    folders = {name: dict(_pictures(source / name)) for name in dict.fromkeys((*names, "mask"))}
    for stem in sorted(set().union(*(folders[name] for name in names))):
        values = {name: str(found[stem]) for name, found in folders.items() if stem in found}
        yield Row(str(source / names[0] / stem), {**values, "name": stem})


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """The pictures of a folder by their names without endings."""
    if not folder.is_dir():
        return
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in ENDINGS:
            if path.stem in found:
                raise InvalidRequest(f"{folder} has both {found[path.stem].name} and {path.name}: keep one of them")
            found[path.stem] = path
    yield from found.items()
