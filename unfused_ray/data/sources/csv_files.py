"""Lists the clips that CSV and TSV files name."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unfused_ray import storage
from unfused_ray.audio.formats import SUFFIXES
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.columns import BY_NAME, PATHS, Columns, chosen_column, describe, first_column
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.locate import Place, refuse_credentials
from unfused_ray.data.sources.notes import Note
from unfused_ray.data.sources.sniff import suffix

_SEPARATORS = ",;\t"
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class _Row:
    """A row of a list."""

    lines: range
    """Lines that it stands on, from 1."""
    cells: dict[str, str]

    @property
    def line(self) -> int:
        """Last of its lines."""
        return self.lines[-1]


def list_csv(uri: str, split: str = "", columns: ColumnsConfig = BY_NAME) -> Listing:
    """List the clips that a CSV or TSV file names in a column of paths; the key is the path as written.

    Labels, splits and groups are those of the columns that :mod:`columns` finds. Paths are absolute, or relative to
    the list's folder, to the one above it, or to the only folder in these that has them. A row without a path is set
    aside as missing.

    Args:
        uri: the file. Its separator is a comma, a semicolon or a tab, whatever its suffix.
        split: of rows that say none.
        columns: that are asked for.

    Raises:
        ValueError: no column holds paths, a row does not fit the header, the file is neither UTF-8 nor UTF-16 with a
            byte order mark, or a URI in it holds credentials.
    """
    names, rows = _read(uri)
    path = chosen_column(names, columns.path, "path", uri) or first_column(names, PATHS)
    if path is None:
        raise ValueError(
            f"{uri} has the columns {', '.join(names) or '(none)'}: its first line must name columns, one of them "
            f"{', '.join(PATHS[:8])} … or that of --columns.path. To read a folder in spite of the lists in it, give a "
            "pattern such as folder/*.wav"
        )
    chosen = Columns.of(names, columns, uri)
    for row in rows:
        _refuse_swallowed_rows(row, names, path, chosen, uri)
        refuse_credentials(row.cells[path], f"line {row.line} of {uri}")
    rejects = [
        Reject(f"{storage.name(uri)}:{row.line}", "missing", f"column {path} names no file in line {row.line} of {uri}")
        for row in rows
        if not _can_be_path(row.cells[path])
    ]
    records = [row.cells for row in rows if _can_be_path(row.cells[path])]
    place = Place.of(uri, [record[path] for record in records])
    described, notes = describe(records, chosen, [path], split)
    notes = Counter({Note("columns used", f"path ← {path}", "files"): 1}) + place.notes + notes
    return Listing.from_rows(
        [
            {"key": record[path], "uri": place.locate(record[path]), **row}
            for record, row in zip(records, described, strict=True)
        ],
        rejects,
        notes,
    )


def _read(uri: str) -> tuple[list[str], list[_Row]]:
    """Read the columns and the rows of a list; blanks around cells are stripped, empty lines left out.

    Raises:
        ValueError: it cannot be read, or a row has not as many cells as there are columns.
    """
    text = _decoded(uri)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), skipinitialspace=True, strict=True)
    names: list[str] = []
    rows: list[_Row] = []
    last = 0
    try:
        for cells in reader:
            lines, last = range(last + 1, reader.line_num + 1), reader.line_num
            cells = [cell.strip() for cell in cells]
            if not names:
                names = [cell or f"column {n}" for n, cell in enumerate(cells, start=1)] if any(cells) else []
            elif any(cells) or len(cells) > 1:
                rows.append(_Row(lines, _fitted(cells, names, lines[0], uri)))
    except csv.Error as error:
        raise ValueError(
            f"{uri} cannot be read as CSV from line {last + 1} on ({error}): close the quotes there, or save it again"
        ) from error
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{uri} has {twice[0]} twice among its columns {', '.join(names)}: rename one")
    return names, rows


def _fitted(cells: list[str], names: Sequence[str], line: int, uri: str) -> dict[str, str]:
    """Return the cells of a row by column; empty ones behind the last column are left out."""
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        raise ValueError(
            f"line {line} of {uri} has {len(cells)} cells ({', '.join(cells)}), the header {len(names)} "
            f"({', '.join(names)}): put cells that hold the separator into quotes"
        )
    return dict(zip(names, cells, strict=True))


def _decoded(uri: str) -> str:
    content = storage.read_bytes(uri)
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} is not UTF-8 text ({error}): save it as UTF-8") from error


def _separator(text: str) -> str:
    """Return the separator by which the first line names a column of paths, else the one that cuts it most often."""

    def rank(separator: str) -> tuple[bool, int]:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        return first_column([name.strip() for name in names], PATHS) is not None, len(names)

    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(_SEPARATORS, key=rank)


def _refuse_swallowed_rows(row: _Row, names: Sequence[str], path: str, columns: Columns, uri: str) -> None:
    """Refuse a row over several lines if a quote that was meant as a character has swallowed other rows.

    Raises:
        ValueError: a cell that is used holds a line break, or another cell holds a line that looks like a row.
    """
    if len(row.lines) == 1:
        return
    for name, cell in row.cells.items():
        inner = [line.strip() for line in cell.splitlines()[1:]]
        is_used = name == path or name in columns.read
        if inner and (is_used or any(_looks_like_row(line, names, path) for line in inner)):
            raise ValueError(
                f"lines {row.lines[0]} to {row.lines[-1]} of {uri} are one row, whose {name} goes over several lines "
                f"({cell.splitlines()[0]!r} …): a quote is not closed in line {row.lines[0]}"
            )


def _looks_like_row(line: str, names: Sequence[str], path: str) -> bool:
    cells = next((cells for each in _SEPARATORS if len(cells := line.split(each)) == len(names)), [])
    return bool(cells) and suffix(cells[list(names).index(path)].strip()) in SUFFIXES


def _can_be_path(value: str) -> bool:
    return bool(value and "\0" not in value)
