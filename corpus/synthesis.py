"""Synthesises words with espeak-ng, flite and festival, as 16 kHz samples without pauses at their ends."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from corpus.audio import resample, trim, trim_speech
from corpus.packages import run_program

PROGRAMS = ("espeak-ng", "flite", "festival")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
"""English accents of espeak-ng."""
FESTIVAL_VOICES = {"kal": "kal_diphone", "ked": "ked_diphone", "slt": "cmu_us_slt_arctic_hts"}
_FESTIVAL_PACKAGES = "festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
_WORDS_A_MINUTE, _HERTZ = 165.0, 105.0  # of rate 1 for espeak-ng, and of pitch 1 for flite (kal)


@dataclass(frozen=True)
class Utterance:
    """A text and the manner of speaking it."""

    text: str
    rate: float = 1.0
    """Speed, relative to the voice's own."""
    pitch: float = 1.0
    """Pitch, relative to the voice's own; festival and flite's recorded voices ignore it."""
    accent: str = "en-us"
    """Accent of espeak-ng."""


def speak(engine: str, voice: str, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
    """Speak texts in one voice.

    Args:
        engine: one of ``PROGRAMS``.
        voice: a variant of espeak-ng, a voice of flite, a key of ``FESTIVAL_VOICES``.
        utterances: texts to speak.

    Raises:
        ValueError: the engine lacks the voice.
    """
    if engine == "festival":
        yield from _festival(voice, utterances)
        return
    one = {"espeak-ng": _espeak, "flite": _flite}[engine]
    yield from (one(voice, utterance) for utterance in utterances)


def espeak_variants() -> frozenset[str]:
    """Return the variants that this espeak-ng has; for any other it silently uses its plain voice."""
    return frozenset(re.findall(r"!v/(\S+)", run_program(["espeak-ng", "--voices=variant"]).decode("utf-8", "replace")))


def _espeak(voice: str, said: Utterance) -> np.ndarray:
    rate, pitch = round(_WORDS_A_MINUTE * said.rate), round(min(99, 50 * said.pitch))
    command = ["espeak-ng", "-v", f"{said.accent}+{voice}", "-s", str(rate), "-p", str(pitch), "--stdout", said.text]
    data = bytearray(run_program(command))
    data[40:44] = (len(data) - 44).to_bytes(4, "little")  # it does not know the length of its stream
    return _wave(bytes(data))


def _flite(voice: str, said: Utterance) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "said.wav")
        settings = ["--setf", f"duration_stretch={1 / said.rate:.3f}"]
        if voice.startswith("kal"):
            settings += ["--setf", f"int_f0_target_mean={_HERTZ * said.pitch:.1f}"]
        run_program(["flite", "-voice", voice, *settings, "-t", said.text, "-o", path])
        return _wave(path.read_bytes())


def _festival(voice: str, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
    """Speak all texts in one process, because festival starts as slowly as it speaks."""
    name = FESTIVAL_VOICES[voice]
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{name})"]
        for number, said in enumerate(utterances):
            text = said.text.replace('"', "")
            lines.append(f"(Parameter.set 'Duration_Stretch {1 / said.rate:.3f})")
            lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{folder}/{number}.wav" \'riff)')
        script = Path(folder, "say.scm")
        script.write_text("\n".join(lines), "utf-8")
        try:
            run_program(["festival", "--batch", script])
        except RuntimeError as error:
            raise ValueError(f"festival has no {name}: {error}; apt-get install {_FESTIVAL_PACKAGES}") from error
        for number in range(len(utterances)):
            yield _wave(Path(folder, f"{number}.wav").read_bytes())


def _wave(data: bytes) -> np.ndarray:
    wave, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return trim_speech(trim(resample(wave, sample_rate)))
