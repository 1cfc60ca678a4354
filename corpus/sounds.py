"""Lists and reads the sound files of a package, including those in its zip archives (pk3, wz)."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from corpus.audio import SAMPLE_RATE
from corpus.packages import AUDIO_SUFFIXES, Packages, audio_files
from unfused_ray.audio.decode import decode

_ARCHIVES = (".pk3", ".wz", ".zip")
_PIECE = 1 << 20  # samples decoded at once


@dataclass(frozen=True)
class Sound:
    """A sound file of a package."""

    package: str
    name: str
    """Path relative to the package or the archive."""
    path: Path
    """Path of the file, or of the archive."""
    in_archive: bool = False

    @property
    def words(self) -> str:
        """Name without folders, suffix and digits, in lower case, with blanks between words."""
        stem = re.sub(r"([a-z])([A-Z])", r"\1 \2", PurePosixPath(self.name).stem)
        return re.sub(r"[^a-z]+", " ", stem.lower()).strip()

    @property
    def source(self) -> Path | str:
        """Entry for ``Clip.sources``: the file, or the digest of its bytes in the archive, which equals that of a
        file."""
        return hashlib.sha1(self._bytes()).hexdigest() if self.in_archive else self.path

    def load(self) -> np.ndarray:
        """Decode the whole sound, 16 kHz mono float32.

        Raises:
            AudioError: the sound cannot be read, or holds no samples.
        """
        with io.BytesIO(self._bytes()) as file:
            pieces = list(decode(file, SAMPLE_RATE, _PIECE))
        return np.concatenate(pieces).astype(np.float32) / 32768

    def _bytes(self) -> bytes:
        if not self.in_archive:
            return self.path.read_bytes()
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(self.name)


def sounds(packages: Packages, package: str) -> Iterator[Sound]:
    """Yield all sound files of a package, in the order of their names."""
    root = packages[package]
    for path in audio_files(root):
        yield Sound(package, path.relative_to(root).as_posix(), path)
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in _ARCHIVES and path.is_file()):
        if zipfile.is_zipfile(path) and not path.is_symlink():
            with zipfile.ZipFile(path) as archive:
                names = sorted(archive.namelist())
            yield from (
                Sound(package, name, path, in_archive=True)
                for name in names
                if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES
            )


def windows(wave: np.ndarray, seconds: float, most: int) -> Iterator[np.ndarray]:
    """Yield up to ``most`` windows of ``seconds``, evenly spaced, without overlap; a shorter sound is one window."""
    length = int(seconds * SAMPLE_RATE)
    count = max(1, min(most, len(wave) // length))
    for number in range(count):
        start = 0 if count == 1 else int((len(wave) - length) * number / (count - 1))
        yield wave[start : start + length]
