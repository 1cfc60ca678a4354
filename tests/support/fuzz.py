"""Feed damaged inputs to one reader after the other, in a process of its own, and count how each input ends.

    cd tests && python -m support.fuzz --folder FOLDER --inputs 1000 --seed 0 --readers wav tar

Every input follows from (seed, reader, number). The report, JSON on standard output, says for each reader and kind of
damage how many inputs were read, rejected and refused, and by how much memory grew. A crash, a hang or an exception
that is no refusal ends the process. After an exception the input is in a file of ``--folder`` that the error names.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import struct
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.fuzz_readers import READERS

SECONDS_PER_INPUT = 120.0
"""Seconds after which an input counts as a hang on a busy machine; the slowest of 10⁵ inputs took one."""
WARM_UP = 20
"""Inputs of each reader before memory is first measured: libraries allocate at their first use."""
EXTREMES = (0, 1, 7, -1, 2**7, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
WORDS = (
    b"\0",
    b"NaN",
    b"-1",
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b",",
    b"\r\n",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
)


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def flipped(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def header_lies(data: bytes, rng: random.Random) -> bytes:
    """Set an integer near the beginning or the end, where headers and footers are, to an extreme value."""
    damaged = bytearray(data)
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    place = rng.randrange(min(len(data), 600))
    place = place if rng.random() < 0.7 else max(0, len(data) - size - place)
    damaged[place : place + size] = (rng.choice(EXTREMES) % 256**size).to_bytes(size, order)
    return bytes(damaged)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096))
    filling = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:start] + filling[: len(data) - start] + data[start + size :]


def moved(data: bytes, rng: random.Random) -> bytes:
    """Copy or move a part to another place."""
    start, stop = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    place = rng.randrange(len(data))
    rest = data if rng.random() < 0.5 else data[:start] + data[stop:]
    return rest[:place] + data[start:stop] + rest[place:]


def words(data: bytes, rng: random.Random) -> bytes:
    """Insert a text with a meaning in some format (a NaN, a quote, a byte order mark), or overwrite bytes with it."""
    place, word = rng.randrange(len(data)), rng.choice(WORDS)
    return data[:place] + word + data[place + rng.choice((0, len(word), 20)) :]


def other_content(data: bytes, rng: random.Random) -> bytes:
    other = (b"<html>404</html>", b"\x1f\x8b" + zlib.compress(bytes(10_000)), b"[" * 100_000, b"PAR1", b"PK\x03\x04")
    return rng.choice((*other, rng.randbytes(rng.randrange(1, 2_000)), struct.pack("<4sI", b"RIFF", 2**32 - 1)))


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated, empty, flipped, header_lies, overwritten, moved, words, other_content,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--folder", type=Path, required=True, help="for the files that are read")
    options = parser.parse_args()
    faulthandler.enable()
    report_file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libsndfile prints messages about damaged ALAC files to standard output
    outcomes: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    grown: dict[str, int] = {}
    for name in options.readers:
        folder = options.folder / name
        folder.mkdir(parents=True)
        reader = READERS[name](folder)
        before = 0
        for number in range(-(-options.inputs // len(options.readers))):
            rng = random.Random(f"{options.seed} {name} {number}")
            damage = rng.choice(DAMAGES)
            data = damage(rng.choice(reader.originals), rng)
            faulthandler.dump_traceback_later(SECONDS_PER_INPUT, exit=True)
            try:
                outcomes[name][damage.__name__][reader.read(data)] += 1
            except BaseException:
                (folder / "input").write_bytes(data)
                place = f"seed {options.seed}, {name}, input {number}, {damage.__name__}: {folder}/input"
                sys.stderr.write(place + "\n")
                raise
            if number == WARM_UP:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown[name] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 if before else 0
    faulthandler.cancel_dump_traceback_later()
    report: dict[str, Any] = {"outcomes": outcomes, "grown_megabytes": grown}
    report["inputs"] = sum(sum(counts.values()) for kinds in outcomes.values() for counts in kinds.values())
    with report_file:
        json.dump(report, report_file, indent=1)


if __name__ == "__main__":
    main()
