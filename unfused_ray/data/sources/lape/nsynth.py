"""NSynth (Engel et al., arXiv 1704.01279): notes of four seconds, to be classified by the family of the instrument.

Each of ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test`` has ``examples.json``, an object keyed by the notes'
names, and ``audio/<note>.wav``. Training instruments are in no other split; the family ``synth_lead`` is in training
alone.
"""

from __future__ import annotations

import json

from unfused_ray.data.sources.items import Listing, combine
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.task import LapeTask

SPLITS = ("train", "valid", "test")


def clips(disk: Disk) -> Listing:
    """List the clips in the archives' splits; groups are instruments.

    Raises:
        ValueError: a list is not JSON, or lacks a note's family or instrument.
    """
    return combine([_of_split(disk, split) for split in SPLITS])


def _of_split(disk: Disk, split: str) -> Listing:
    folder = f"nsynth-{split}"
    names = f"{folder}/examples.json"
    try:
        notes = json.loads(disk.text(names))
        entries = [
            Entry(f"{folder}/audio/{note}.wav", facts["instrument_family_str"], split, facts["instrument_str"])
            for note, facts in notes.items()
        ]
        if not all(isinstance(name, str) for entry in entries for name in (entry.label, entry.group)):
            raise TypeError("an instrument's name is no text")
    except (json.JSONDecodeError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise disk.damaged(names, f"{type(error).__name__}: {error}") from error
    return disk.listing(entries, disk.audio(f"{folder}/audio"), names)


TASK = LapeTask(
    name="NSynth",
    classes=11,
    clips=305_979,
    hours=340,
    licence="CC BY 4.0",
    url="https://magenta.tensorflow.org/datasets/nsynth",
    archives="nsynth-train, nsynth-valid and nsynth-test.jsonwav.tar.gz",
    requires=tuple(f"nsynth-{split}/{name}" for split in SPLITS for name in ("examples.json", "audio")),
    list_clips=clips,
)
