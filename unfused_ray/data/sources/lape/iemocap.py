"""IEMOCAP (Busso et al., 2008): five sessions of two actors each; four emotions.

``Session<n>/dialog/EmoEvaluation/<dialogue>.txt`` has lines ``[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>``
and more; the audio is ``Session<n>/sentences/wav/<dialogue>/<utterance>.wav``. The last part of an utterance's name
begins with F or M, which is the speaker.
"""

from __future__ import annotations

import re

from unfused_ray import storage
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "IEMOCAP_full_release"
SESSIONS = range(1, 6)
EMOTIONS = ("neu", "ang", "sad", "hap")
_LINE = re.compile(r"^\[[^\]]+\]\s+(Ses\d\d[FM]_\w+_([FM])\w+)\s+([a-z]+)\s", re.MULTILINE)


def clips(disk: Disk) -> Listing:
    """List neutral, angry, sad and happy utterances (excited does not count as happy); groups are the ten speakers.

    A session is a fold, so evaluation leaves one session out.
    """
    entries: list[Entry] = []
    files: dict[str, str] = {}
    others: set[str] = set()
    for session in SESSIONS:
        folder = f"{FOLDER}/Session{session}"
        files |= disk.audio(f"{folder}/sentences/wav")
        for uri in storage.list_files(disk.uri(f"{folder}/dialog/EmoEvaluation")):
            if storage.name(uri).startswith("."):
                continue
            text = disk.text(storage.relative(uri, disk.root), "latin-1")
            for utterance, speaker, emotion in _LINE.findall(text):
                path = f"{folder}/sentences/wav/{utterance.rpartition('_')[0]}/{utterance}.wav"
                if emotion in EMOTIONS:
                    entries.append(Entry(path, emotion, f"fold{session}", f"Ses{session:02d}{speaker}"))
                else:
                    others.add(path)  # another emotion, or none that the listeners agree on
    files = {path: uri for path, uri in files.items() if path not in others}
    return disk.listing(entries, files, f"{FOLDER}/Session*/dialog/EmoEvaluation")


TASK = LapeTask(
    name="IEMOCAP",
    classes=4,
    clips=4_490,
    hours=5.6,
    licence="on request",
    url="https://sail.usc.edu/iemocap/",
    archives="IEMOCAP_full_release.tar.gz",
    requires=tuple(
        f"{FOLDER}/Session{session}/{folder}"
        for session in SESSIONS
        for folder in ("dialog/EmoEvaluation", "sentences/wav")
    ),
    list_clips=clips,
)
