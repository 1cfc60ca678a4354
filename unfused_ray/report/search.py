"""What a search has found as one page: to listen to, to follow into the recordings, and to mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch

from unfused_ray import storage
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.figures import spectrograms
from unfused_ray.report.clips import encode_opus, seconds_of_clips
from unfused_ray.report.page import data_uri, render
from unfused_ray.retrieval.audio import read_audio
from unfused_ray.retrieval.catalogue import Clip
from unfused_ray.retrieval.hits import Found, Hit
from unfused_ray.retrieval.marks import COLUMNS

_FRONT_END = FrontEndConfig()
"""Of the spectrograms and the sound, whatever the encoder's."""


@dataclass(frozen=True)
class Sound:
    """Sound and spectrogram of a clip, as data URIs."""

    audio: str
    spectrogram: str
    share: float
    """Length in the page's longest one."""


@dataclass(frozen=True)
class PageHit:
    """A clip of the page."""

    hit: Hit
    sound: Sound | str
    """Or the reason why it cannot be heard."""
    facts: str
    link: str
    """Into the recording; "" if it is no file that a browser opens."""


def write(found: Found, uri: str) -> int:
    """Write the page of a search; returns its size in bytes.

    Raises:
        OSError: it cannot be written, or an object store does not answer.
    """
    html = to_html(found).encode()
    storage.write_bytes(uri, html)
    return len(html)


def to_html(found: Found) -> str:
    """The page of a search. It needs no network, but for the links into the recordings."""
    hits = (*found.hits, *found.unsure)
    asked = [found.clip] if found.clip else []
    seconds = seconds_of_clips(len(hits) + 1)
    audio = read_audio([*{hit.clip.id: hit.clip for hit in hits}.values(), *asked], _FRONT_END.sample_rate, seconds)
    if found.pcm is not None:
        audio[-1] = found.pcm[: round(seconds * found.sample_rate)]
    sounds = _sounds(audio, {-1: found.sample_rate})
    sections = [("Nearest" if not found.unsure else "Most likely to be kept", found.hits)]
    if found.unsure:
        sections.append(("Least sure: these teach the most", found.unsure))
    return render(
        "search.html.j2",
        title=found.question,
        index=found.index,
        measure=found.measure,
        question=sounds.get(found.clip.id if found.clip else -1),
        question_facts=_facts(found.clip) if found.clip else "",
        sections=[(heading, [_page_hit(hit, sounds[hit.clip.id]) for hit in hits]) for heading, hits in sections],
        seconds=seconds,
        columns=COLUMNS,
        marks=[asdict(mark) for mark in found.marks],
    )


def _sounds(audio: dict[int, np.ndarray | str], rates: dict[int, int]) -> dict[int, Sound | str]:
    """Sound and spectrogram of all clips, on one scale of colour and of time."""
    log_mel = LogMel(_FRONT_END)
    waves = {id_: wave for id_, wave in audio.items() if not isinstance(wave, str)}
    images = {id_: log_mel(torch.from_numpy(np.ascontiguousarray(w))[None])[0].numpy() for id_, w in waves.items()}
    found: dict[int, Sound | str] = {id_: reason for id_, reason in audio.items() if isinstance(reason, str)}
    if images:
        low, high = spectrograms.colour_range(images.values())
        lengths = {id_: len(wave) / rates.get(id_, _FRONT_END.sample_rate) for id_, wave in waves.items()}
        for id_, wave in waves.items():
            sound = data_uri("audio/ogg", encode_opus(wave, rates.get(id_, _FRONT_END.sample_rate)))
            picture = data_uri("image/png", spectrograms.to_png(images[id_], low, high))
            found[id_] = Sound(sound, picture, lengths[id_] / max(lengths.values()))
    return found


def _page_hit(hit: Hit, sound: Sound | str) -> PageHit:
    return PageHit(hit, sound, _facts(hit.clip), _link(hit.clip))


def _facts(clip: Clip) -> str:
    times = f"{clip.recording_seconds:.2f} to {clip.recording_seconds + clip.end_seconds - clip.start_seconds:.2f} s"
    facts: Sequence[str] = (clip.source, times, ", ".join(clip.labels), clip.split)
    return " · ".join(fact for fact in facts if fact)


def _link(clip: Clip) -> str:
    """The recording at the clip's seconds, where it is a file that a browser can open."""
    place, end = clip.place, clip.recording_seconds + clip.end_seconds - clip.start_seconds
    is_inside = place["offset"] is not None or place["row_group"] is not None
    uri = Path(place["uri"]).as_uri() if storage.is_local(place["uri"]) else place["uri"]
    if is_inside or urlparse(uri).scheme not in ("file", "http", "https"):
        return ""
    return f"{uri}#t={clip.recording_seconds:.2f},{end:.2f}"
