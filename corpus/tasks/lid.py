"""Task lid: the spoken language, by several people where the packages have them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from corpus.audio import load, trim, trim_speech
from corpus.clips import Clip, Task
from corpus.disguise import speech_piece
from corpus.hashing import by_hash, file_digest, hash_int
from corpus.packages import Packages, audio_files
from corpus.splits import Given, Groups, hash_split

STAMPS = "usr/share/tuxpaint/stamps"
VOICE_PACKS = "usr/share/games/hedgewars/Data/Sounds/voices"
SPEECH = "speech"
"""Salt of the splits of lid and spk: a room of fillets or a bucket of words is held out of both tasks, or of
neither."""
_CAP = 320
"""Largest number of clips of a language."""
_LEAST_CLIPS = 150
_SECONDS = 1.0
_GAP = np.zeros(480, np.float32)
_PACK_LANGUAGES = {"es": "es", "pl": "pl", "ru": "ru", "uk": "uk"}
_BUCKETS = {"qabcs": 40, "hedgewars": 20, "kajongg": 14, "planetblupi": 12}
"""Number of groups of each collection of single words; a word is in one group, whatever its language."""
_DESCRIPTION = re.compile(r"(.+)_desc_([a-z]{2}(?:_[A-Z]{2})?)\.ogg")
_TRANSLATION = re.compile(r"([a-z]{2}(?:_[A-Z]{2})?(?:@\w+)?)\.utf8=(.*)")


@dataclass(frozen=True)
class _Spoken:
    language: str
    group: str
    paths: tuple[Path, ...]

    @property
    def key(self) -> str:
        return f"{self.language}/{self.group}/{'+'.join('-'.join(path.parts[-4:]) for path in self.paths)}"


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield up to ``_CAP`` clips of each language."""
    languages: dict[str, list[_Spoken]] = {}
    for spoken in (*_stamps(packages), *_fillets(packages), *_russian(packages), *_words(packages)):
        languages.setdefault(spoken.language, []).append(spoken)
    for language, found in sorted(languages.items()):
        for spoken in by_hash(found, "lid", lambda spoken: spoken.key)[:_CAP]:
            audio = partial(_piece, spoken.paths, f"lid/{spoken.key}")
            yield Clip(
                language,
                spoken.group,
                spoken.key,
                audio,
                sources=spoken.paths,
                is_whole=len(spoken.paths) == 1,
                split=hash_split(spoken.group, SPEECH),
            )


def _piece(paths: tuple[Path, ...], key: str) -> np.ndarray:
    parts = [part for path in paths for part in (trim_speech(trim(load(path))), _GAP)]
    return speech_piece(np.concatenate(parts[:-1]), key, _SECONDS)


def _stamps(packages: Packages) -> Iterator[_Spoken]:
    """Yield descriptions of pictures, which are the same in all languages; of equal files, only one."""
    folder = packages["tuxpaint-stamps-default"] / STAMPS
    groups, once = stamp_groups(folder), set[tuple[str, str]]()
    for path in audio_files(folder):
        match = _DESCRIPTION.fullmatch(str(path.relative_to(folder)))
        if match and (match[2], file_digest(path)) not in once:
            once.add((match[2], file_digest(path)))
            yield _Spoken(match[2], groups.find(match[1]), (path,))


def stamp_groups(folder: Path) -> Groups:
    """Join stamps that share a recording or, in English or a spoken language, a text: no sentence is in two splits."""
    groups, spoken = Groups(), {"bg", "be", "ca", "da", "el", "es", "fr", "lt", "nl", "ro", "ru"}

    def same(kind: str, text: str, stamp: str) -> None:
        if text := re.sub(r"[^\w]+", " ", text.lower()).strip():
            groups.join(f"~{kind}:{text}", stamp)  # "~" sorts after the names of stamps

    for path in sorted(folder.rglob("*.txt")):
        stamp = str(path.relative_to(folder).with_suffix(""))
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines()):
            match = _TRANSLATION.match(line)
            if number == 0 and not match:
                same("en", line, stamp)
            elif match and match[1] in spoken:
                same(match[1], match[2], stamp)
    for path in sorted(folder.rglob("*_desc*.ogg")):
        stamp = re.sub(r"_desc.*", "", str(path.relative_to(folder)))
        same("bytes", hashlib.md5(path.read_bytes()).hexdigest(), stamp)
    return groups


def _fillets(packages: Packages) -> Iterator[_Spoken]:
    """Yield lines of a play; a room, in Czech and Dutch, is one group."""
    for language in ("cs", "nl"):
        for path in audio_files(packages[f"fillets-ng-data-{language}"] / "usr/share/games/fillets-ng/sound"):
            yield _Spoken(language, f"fillets/{path.parent.parent.name}", (path,))


def _russian(packages: Packages) -> Iterator[_Spoken]:
    """Yield the sentences from which festival's Russian voice was made."""
    for path in audio_files(packages["festvox-ru"] / "usr/share/festival/voices"):
        yield _Spoken("ru", f"festvox-ru/{path.stem}", (path,))


def _words(packages: Packages) -> Iterator[_Spoken]:
    """Yield words in pairs from one bucket: single words could be told by their length. Of equal files, only one."""
    found, once = dict[tuple[str, str, str], list[Path]](), set[str]()
    for collection, speaker, language, path in (
        *_qabcs(packages),
        *_hedgewars(packages),
        *_kajongg(packages),
        *_planetblupi(packages),
    ):
        if (digest := file_digest(path)) in once:
            continue  # two names of a word may be in different buckets
        once.add(digest)
        text = hedgewars_phrase(path) if collection == "hedgewars" else path.stem
        found.setdefault((language, bucket_of(collection, text), speaker), []).append(path)
    for (language, bucket, _speaker), paths in sorted(found.items()):
        ordered = by_hash(paths, "lid", lambda path: path.name)
        if len(ordered) > 1:
            for first, second in _neighbours(ordered):
                yield _Spoken(language, bucket, (first, second))


def hedgewars_phrase(path: Path) -> str:
    """Return the phrase spoken in a file of a voice pack: the file's name without the number of the take."""
    return re.sub(r"\d+$", "", path.stem.lower())


def bucket_of(collection: str, text: str) -> str:
    """Return the bucket of a word or phrase of a collection, whatever its language."""
    return f"{collection}/{hash_int(f'lid/{collection}/{text}') % _BUCKETS[collection]}"


def _neighbours(paths: list[Path]) -> Iterable[tuple[Path, Path]]:
    """Pair each path with the next, and the last with the first if there are more than two."""
    return list(zip(paths, paths[1:] + (paths[:1] if len(paths) > 2 else []), strict=False))


def _qabcs(packages: Packages) -> Iterator[tuple[str, str, str, Path]]:
    folder = packages["qabcs-data"] / "usr/share/qabcs/abcs"
    for speaker in ("be", "de", "en", "en_gb", "fr", "pl", "ru", "uk"):
        for path in audio_files(folder / speaker / "sounds/words"):
            yield "qabcs", speaker, speaker[:2], path


def _hedgewars(packages: Packages) -> Iterator[tuple[str, str, str, Path]]:
    for pack in sorted(path for path in (packages["hedgewars-data"] / VOICE_PACKS).iterdir() if path.is_dir()):
        language = _PACK_LANGUAGES.get(pack.name.partition("_")[2], "en")
        if pack.name != "Robot":
            for path in audio_files(pack):
                yield "hedgewars", pack.name, language, path


def _kajongg(packages: Packages) -> Iterator[tuple[str, str, str, Path]]:
    for path in audio_files(packages["kajongg"] / "usr/share/kajongg/voices"):
        language = "de" if path.parent.parent.name == "de" else "en"
        yield "kajongg", path.parent.name, language, path


def _planetblupi(packages: Packages) -> Iterator[tuple[str, str, str, Path]]:
    """Yield the words of planetblupi: the sounds that exist in all languages."""
    folder = packages["planetblupi-common"] / "usr/share/planetblupi/sound"
    words = {path.name for path in audio_files(folder / "de")}
    for speaker in ("de", "en_US", "fr"):
        for path in audio_files(folder / speaker):
            if path.name in words:
                yield "planetblupi", speaker, speaker[:2], path


TASK = Task(
    name="lid",
    about="which language is spoken",
    group_is="a sentence, a room of a play, or a bucket of words, in all languages; stamps that share a recording or a "
    "text are one group",
    packages=(
        *("tuxpaint-stamps-default", "fillets-ng-data-cs", "fillets-ng-data-nl", "festvox-ru"),
        *("qabcs-data", "hedgewars-data", "kajongg", "planetblupi-common"),
    ),
    clips=clips,
    split=Given(),
    least_clips=_LEAST_CLIPS,
    notes="Some languages have one speaker, the same in all splits. So that voice, machine and pauses give a language "
    "away less, pauses are cut, each clip is played up to 0.35 octaves faster or slower, a window of a second is "
    "taken, and it goes over a telephone line of its own. Traces of speaker and machine remain: read it as "
    "language and speaker. Words are heard in pairs.",
)
