"""Lists the clips that CSV and TSV files name."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
_HEAD_BYTES = 1 << 16
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class _Row:
    """A row of a list."""

    lines: range
    """The lines that the row spans, counted from 1."""
    cells: dict[str, str]

    @property
    def line(self) -> int:
        """The last of its lines."""
        return self.lines[-1]


def list_csv(uri: str, split: str = "", columns: ColumnsConfig = BY_NAME) -> Listing:
    """List the clips that a CSV or TSV file names in a column of paths; a clip's key is its path as written.

    Labels, splits and groups are those of the columns that :mod:`columns` finds. Paths are absolute, or relative to the
    list's folder, to the folder above it, or to the only folder within these two that holds the files. A row without a
    path is set aside as missing.

    Args:
        uri: the file. Its separator is a comma, a semicolon or a tab, whatever its suffix.
        split: split of rows that give none.
        columns: the configured columns.

    Raises:
        ValueError: no column holds paths, a row does not fit the header, the file is neither UTF-8 nor UTF-16 with a
            byte order mark, or a URI in it holds credentials.
    """
    text = _prepared(_decoded(uri), columns)
    names = _names(text)
    path = chosen_column(names, columns.path, "path", uri) or first_column(names, PATHS)
    if path is None:
        raise ValueError(
            f"{uri} has the columns {', '.join(names) or '(none)'}: its first line must name columns, one of them "
            f"{', '.join(PATHS[:8])} … or that of --columns.path. To read a folder in spite of the lists in it, give a "
            "pattern such as folder/*.wav"
        )
    rows = _read(text, names, uri)
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
    names_of_files = [_names_of_videos(record, path) for record in records]
    place = Place.of(uri, [record[path] for record in records], names=names_of_files)
    described, notes = describe(records, chosen, [path], split)
    notes = Counter({Note("columns used", f"path ← {path}", "files"): 1}) + place.notes + notes
    return Listing.from_rows(
        [
            {"key": record[path], "uri": place.locate(record[path], of_file), **row}
            for record, of_file, row in zip(records, names_of_files, described, strict=True)
        ],
        rejects,
        notes,
    )


def has_paths(uri: str, columns: ColumnsConfig) -> bool:
    """Return True if the first lines of a CSV or TSV file show that it has a column of paths."""
    with storage.open_input(uri) as file:
        content = file.read(_HEAD_BYTES)
    names = _names(_prepared(content.decode(_encoding(content), "replace"), columns))
    return first_column(names, (columns.path, columns.path.casefold()) if columns.path else PATHS) is not None


def _header(text: str) -> str:
    """Return the first line that holds more than separators; "" if there is none."""
    return next((line for line in io.StringIO(text, newline=None) if line.strip(" ,;\t\n")), "")


def _names(text: str) -> list[str]:
    """Return the columns that the header names."""
    header = _header(text)
    cells = next(csv.reader([header], delimiter=_separator(header), skipinitialspace=True), [])
    return [cell.strip() or f"column {n}" for n, cell in enumerate(cells, start=1)] if header else []


def _read(text: str, names: Sequence[str], uri: str) -> list[_Row]:
    """Read the rows of a list, without empty lines and without blanks around cells.

    Raises:
        ValueError: the list cannot be read, or a row has more or fewer cells than there are columns.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{uri} has {twice[0]} twice among its columns {', '.join(names)}: rename one")
    rows: list[_Row] = []
    is_header, last = True, 0
    try:
        for lines, cells in _cells(text, len(names)):
            last = lines.stop - 1
            cells = [cell.strip() for cell in cells]
            if is_header:
                is_header = not any(cells)
            elif any(cells) or len(cells) > 1:
                rows.append(_Row(lines, _fitted(cells, names, lines[0], uri)))
    except csv.Error as error:
        raise ValueError(
            f"{uri} cannot be read as CSV from line {last + 1} on ({error}): close the quotes there, or save it again"
        ) from error
    return rows


def _cells(text: str, num_columns: int) -> Iterator[tuple[range, list[str]]]:
    """Yield the lines and the cells of each row, the header included.

    If tabs cut each line into as many cells as there are columns, quotes are ordinary characters: sentences begin with
    them.

    Raises:
        csv.Error: a quote is not closed.
    """
    separator = _separator(_header(text))
    if separator == "\t" and (rows := _cut_by_tabs(text, num_columns)):
        yield from ((range(line, line + 1), cells) for line, cells in rows)
        return
    if '" ' in text:  # a blank after a closing quote, which csv refuses
        text = re.sub(
            rf'((?:^|{separator}) *"(?:[^"]|"")*") +(?=[{separator}\r\n]|\Z)', r"\1", text, flags=re.MULTILINE
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    last = 0
    for cells in reader:
        lines, last = range(last + 1, reader.line_num + 1), reader.line_num
        yield lines, cells


def _cut_by_tabs(text: str, num_columns: int) -> list[tuple[int, list[str]]]:
    """Cut the lines of a list by tabs, without the quotes around whole cells; return no rows if one line does not
    fit."""
    rows = [(n, line.split("\t")) for n, line in enumerate(_LINE_BREAK.split(text), start=1) if line.strip(" ")]
    if any(len(cells) < num_columns or any(map(str.strip, cells[num_columns:])) for _, cells in rows):
        return []
    return [(n, [_unquoted(cell.strip()) for cell in cells]) for n, cells in rows]


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell


def _prepared(text: str, columns: ColumnsConfig) -> str:
    """Blank out the lines before the header: Excel's ``sep=;`` and lines with ``#``; the last may be the header.

    AudioSet's lists have three lines with ``#``; the last of them names the columns.
    """
    if not text[:_HEAD_BYTES].lstrip().casefold().startswith(("#", "sep=")):
        return text
    lines = _LINE_BREAK.split(text)
    if lines[0].strip().casefold().startswith("sep=") and len(lines[0].strip()) <= len("sep=;"):
        lines[0] = ""
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines))
    marked = [n for n in range(first) if lines[n].strip()]
    for n in marked[:-1]:
        lines[n] = ""
    for n in marked[-1:]:
        header = lines[n].lstrip()[1:]
        lines[n] = header if first_column(_names(header), (columns.path.casefold(), *PATHS)) else ""
    return "\n".join(lines)


def _fitted(cells: list[str], names: Sequence[str], line: int, uri: str) -> dict[str, str]:
    """Return the cells of a row by column, without empty cells after the last column."""
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        remedy = "put cells that hold the separator into quotes" if len(cells) > len(names) else "add the missing cells"
        raise ValueError(
            f"line {line} of {uri} has {len(cells)} cells ({', '.join(cells)}), the header {len(names)} "
            f"({', '.join(names)}): {remedy}"
        )
    return dict(zip(names, cells, strict=True))


def _encoding(content: bytes) -> str:
    return next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")


def _decoded(uri: str) -> str:
    content = storage.read_bytes(uri)
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} is not UTF-8 text ({error}): save it as UTF-8") from error


def _separator(header: str) -> str:
    """Return the separator with which the header names a column of paths, else the one that cuts it into most cells."""

    def rank(separator: str) -> tuple[bool, int]:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        return first_column([name.strip() for name in names], PATHS) is not None, len(names)

    return max(_SEPARATORS, key=rank)


def _refuse_swallowed_rows(row: _Row, names: Sequence[str], path: str, columns: Columns, uri: str) -> None:
    """Refuse a row of several lines if a quote that was meant as a character has swallowed other rows.

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
                f"lines {row.lines[0]} to {row.lines[-1]} of {uri} are one row, whose {name} spans several lines "
                f"({cell.splitlines()[0]!r} …): a quote is not closed in line {row.lines[0]}"
            )


def _looks_like_row(line: str, names: Sequence[str], path: str) -> bool:
    cells = next((cells for each in _SEPARATORS if len(cells := line.split(each)) == len(names)), [])
    return bool(cells) and suffix(cells[list(names).index(path)].strip()) in SUFFIXES


def _names_of_videos(record: Mapping[str, str], path: str) -> Sequence[str]:
    """Return the usual file names of a row with an AudioSet YTID; none for a row with a path."""
    if path.casefold() != "ytid":
        return ()
    name = record[path]
    start, end = (record.get(first_column([*record], (field,)) or "", "") for field in ("start_seconds", "end_seconds"))
    forms = [start, f"{start}_{end}"]
    with suppress(ValueError, OverflowError):
        seconds, last = float(start), float(end)
        forms += [f"{seconds:.10g}", f"{seconds:.10g}_{last:.10g}", f"{int(seconds):06d}", f"{int(1000 * seconds)}"]
        forms += [f"{int(1000 * seconds)}_{int(1000 * last)}"]
    return (name, f"Y{name}", *(f"{name}_{form}" for form in forms if start))


def _can_be_path(value: str) -> bool:
    return bool(value and "\0" not in value)
