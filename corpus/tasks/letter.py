"""Task letter: the language of one spoken letter or syllable."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from corpus.clips import Clip, Task
from corpus.disguise import speech_piece
from corpus.hashing import by_hash
from corpus.packages import Packages, audio_files
from corpus.splits import ByHash

_CAP = 150
_SECONDS = 0.6
_LEAST_CLIPS = 50


def spoken_letters(packages: Packages) -> Iterator[tuple[str, str, Path]]:
    """Yield (language, letter or syllable as written, file) from klettres and qabcs."""
    folder = packages["klettres-data"] / "usr/share/klettres"
    for language in sorted(path.name for path in folder.iterdir() if (path / "alpha").is_dir()):
        listing = folder / language / "sounds.xml"
        text = listing.read_text("utf-8", "replace") if listing.exists() else ""
        names = {file: name for name, file in re.findall(r'<sound\s+name="([^"]+)"\s+file="([^"]+)"', text)}
        for path in audio_files(folder / language):
            name = names.get(f"{language}/{path.parent.name}/{path.name}", path.stem)
            yield language, _normal(name), path
    for language in ("be", "de", "en", "en_gb", "fr", "pl", "ru", "uk"):
        for path in audio_files(packages["qabcs-data"] / "usr/share/qabcs/abcs" / language / "sounds/alpha"):
            yield language, _normal(path.stem), path


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield up to ``_CAP`` letters of each language."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for language, text, path in spoken_letters(packages):
        found.setdefault("en" if language.startswith("en") else language, []).append((text, path))
    for language, letters in sorted(found.items()):
        for text, path in by_hash(letters, "letter", lambda spoken: f"{spoken[0]}/{'/'.join(spoken[1].parts[-4:])}")[
            :_CAP
        ]:
            key = f"{language}/{'-'.join(path.parts[-4:-1])}/{path.stem}"
            audio = partial(speech_piece, path, f"letter/{key}", _SECONDS)
            yield Clip(language, text, key, audio, (path,), is_whole=True)


TASK = Task(
    name="letter",
    about="language of one spoken letter or syllable",
    group_is="the letter or syllable as written, in all languages",
    packages=("klettres-data", "qabcs-data"),
    clips=clips,
    split=ByHash(),
    least_clips=_LEAST_CLIPS,
    notes="German, English, French, Russian and Ukrainian have two speakers or more, the others one, the same in all "
    "splits. As in lid, speed, window and line are drawn for each clip: read it as language and speaker.",
)
