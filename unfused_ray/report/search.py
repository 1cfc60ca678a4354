"""Writes the hits of a search as one page: to listen to, to follow into the recordings, and to mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlparse

from unfused_ray import storage
from unfused_ray.audio.resample import resampled
from unfused_ray.config import FrontEndConfig
from unfused_ray.report.page import Sound, render
from unfused_ray.report.sounds import seconds_of_each, sounds_of
from unfused_ray.retrieval.audio import read_audio
from unfused_ray.retrieval.catalogue import Clip
from unfused_ray.retrieval.hits import Found, Hit
from unfused_ray.retrieval.marks import COLUMNS

_FRONT_END = FrontEndConfig()
"""Front end of the spectrograms, and sample rate of the sound, independent of the encoder."""
_QUESTION = -1
"""Id of a query that is a wave."""


@dataclass(frozen=True)
class PageHit:
    """A hit on the page."""

    hit: Hit
    sound: Sound | str
    """Sound of the clip, or the reason why it cannot be played."""
    facts: str
    link: str
    """Link into the recording; "" if it is not a file that a browser can open."""


def write(found: Found, uri: str) -> int:
    """Write the page of a search; return its size in bytes.

    Raises:
        OSError: the page cannot be written, or an object store does not answer.
    """
    html = to_html(found).encode()
    storage.write_bytes(uri, html)
    return len(html)


def to_html(found: Found) -> str:
    """Return the page of a search. Only its links into the recordings may need a network."""
    hits = (*found.hits, *found.unsure)
    asked = [found.clip] if found.clip else []
    seconds = seconds_of_each(len(hits) + 1)
    clips = {clip.id: clip for clip in [*(hit.clip for hit in hits), *asked]}
    audio = read_audio(list(clips.values()), _FRONT_END.sample_rate, seconds)
    if found.pcm is not None:
        audio[_QUESTION] = resampled(found.pcm, found.sample_rate, _FRONT_END.sample_rate)
    waves = {id_: wave for id_, wave in audio.items() if not isinstance(wave, str)}
    unheard: dict[int, Sound | str] = {id_: reason for id_, reason in audio.items() if isinstance(reason, str)}
    sounds = unheard | sounds_of(waves, _FRONT_END, seconds)
    sections = [("Nearest" if not found.unsure else "Most likely to be kept", found.hits)]
    if found.unsure:
        sections.append(("Least sure: marking these teaches the most", found.unsure))
    return render(
        "search.html.j2",
        title=found.question,
        index=found.index,
        measure=found.measure,
        question=sounds.get(found.clip.id if found.clip else _QUESTION),
        longest=max((sound.seconds for sound in sounds.values() if isinstance(sound, Sound)), default=1.0),
        question_facts=_facts(found.clip) if found.clip else "",
        sections=[(heading, [_page_hit(hit, sounds[hit.clip.id]) for hit in hits]) for heading, hits in sections],
        seconds=seconds,
        columns=COLUMNS,
        marks=[asdict(mark) for mark in found.marks],
    )


def _page_hit(hit: Hit, sound: Sound | str) -> PageHit:
    return PageHit(hit, sound, _facts(hit.clip), _link(hit.clip))


def _facts(clip: Clip) -> str:
    times = f"{clip.recording_seconds:.2f} to {clip.recording_seconds + clip.end_seconds - clip.start_seconds:.2f} s"
    facts: Sequence[str] = (clip.source, times, ", ".join(clip.labels), clip.split)
    return " · ".join(fact for fact in facts if fact)


def _link(clip: Clip) -> str:
    """Return a link to the recording at the clip's seconds, if a browser can open the file."""
    place, end = clip.place, clip.recording_seconds + clip.end_seconds - clip.start_seconds
    is_inside = place["offset"] is not None or place["row_group"] is not None
    uri = Path(place["uri"]).as_uri() if storage.is_local(place["uri"]) else place["uri"]
    if is_inside or urlparse(uri).scheme not in ("file", "http", "https"):
        return ""
    return f"{uri}#t={clip.recording_seconds:.2f},{end:.2f}"
