"""Renders notes and chords of General MIDI instruments, for all tasks of tones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from corpus.clips import Clip
from corpus.general_midi import FONTS, Font
from corpus.midi import Piece, render
from corpus.packages import Packages
from corpus.soundfont import SoundFont
from corpus.splits import Groups

MELODIC = 0
"""Bank of the melodic instruments."""


@dataclass(frozen=True)
class Instrument:
    """An instrument of a soundfont."""

    font: Font
    program: int
    name: str
    group: str
    """Name that is shared by the instruments of the soundfont that use the same samples."""


@dataclass(frozen=True)
class Tone:
    """A clip to render."""

    label: str
    key: str
    """Unique among the tones of an instrument."""
    piece: Piece


def instruments(font: Font, contents: SoundFont, programs: Iterable[int]) -> list[Instrument]:
    """Return the instruments of a soundfont among ``programs``, by program."""
    groups, owner = Groups(), dict[str, str]()
    found = [program for program in sorted(programs) if contents.used(MELODIC, program)]
    for program in found:
        for digest in contents.used(MELODIC, program):
            groups.join(f"{program:03d}", owner.setdefault(digest, f"{program:03d}"))
    members = groups.members()
    return [
        Instrument(
            font,
            program,
            contents.presets[MELODIC, program].name.strip(),
            f"{font.name}/{'+'.join(members[groups.find(f'{program:03d}')])}",
        )
        for program in found
    ]


def rendered_tones(
    packages: Packages, programs: Iterable[int], tones: Callable[[Instrument], Sequence[Tone]]
) -> Iterator[Clip]:
    """Yield clips of the tones of each instrument of each soundfont; the soundfont decides the split."""
    for font in FONTS:
        contents = SoundFont(font.path(packages))
        wanted = [
            (instrument, tone) for instrument in instruments(font, contents, programs) for tone in tones(instrument)
        ]
        for (instrument, tone), wave in zip(wanted, render(contents.path, [t.piece for _, t in wanted]), strict=True):
            yield Clip(
                label=tone.label,
                group=instrument.group,
                key=f"{font.name}/{instrument.program:03d}-{instrument.name}/{tone.key}",
                audio=wave,
                sources=(font.source,),
                family=font.name,
                fade_out=True,
                split=font.split,
            )
