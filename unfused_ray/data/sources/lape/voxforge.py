"""VoxForge (voxforge.org): sentences that volunteers read, in six languages, to be classified by language.

An archive is a submission, ``<who>-<date>-<code>.tgz``, with a folder ``wav`` or ``flac``. The archives of a language
are extracted into a folder named by its code: ``voxforge/de/<submission>/wav/de5-001.wav``.
"""

from __future__ import annotations

from collections import defaultdict

from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import deal
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "voxforge"
LANGUAGES = ("fr", "es", "de", "ru", "en", "it")
_SHARES = {"test": 0.15, "valid": 0.15}  # as in EVAR's list: 9,685 / 2,075 / 2,077 submissions


def clips(disk: Disk) -> Listing:
    """List the clips: 70 / 15 / 15 of every language's submissions; a submission is a group.

    One person's submissions may be in several splits: most submissions are anonymous, so this cannot be avoided. A
    recording that a submission holds twice, as WAV and as FLAC, is taken once.
    """
    files: dict[str, str] = {}
    again: list[Reject] = []
    entries: list[Entry] = []
    for language in LANGUAGES:
        submissions: dict[str, dict[str, str]] = defaultdict(dict)
        found = disk.audio(f"{FOLDER}/{language}")
        for path in sorted(found, reverse=True):  # wav before flac
            submission, name = path.split("/")[2], path.rpartition("/")[2].rpartition(".")[0]
            if name in submissions[submission]:
                again.append(Reject(path, "duplicate", f"{submissions[submission][name]} is the same recording"))
            else:
                submissions[submission][name] = path
        splits = deal(submissions, _SHARES)
        for submission, paths in submissions.items():
            files |= {path: found[path] for path in paths.values()}
            group = f"{language}/{submission}"
            entries += [Entry(path, language, splits[submission], group) for path in paths.values()]
    return disk.listing(entries, files, FOLDER, again)


TASK = LapeTask(
    name="VoxForge",
    classes=6,
    clips=176_428,
    hours=284,
    licence="GPL-3.0",
    url="http://www.repository.voxforge1.org/downloads/",
    archives="<language>/Trunk/Audio/Main/16kHz_16bit/*.tgz, SpeechCorpus/Trunk/… of English, into a folder "
    "voxforge/<language>",
    requires=tuple(f"{FOLDER}/{language}" for language in LANGUAGES),
    list_clips=clips,
)
