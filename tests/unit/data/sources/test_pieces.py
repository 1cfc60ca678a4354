"""A long recording becomes pieces whose keys tell them apart."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import soundfile

from unfused_ray.data.sources import pieces as module
from unfused_ray.data.sources.pieces import Piece, pieces


def test_pieces_of_a_recording_of_days_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """``:g`` gave pieces of half a second after 27 hours the key of their neighbour."""
    monkeypatch.setattr(module, "decode", lambda *_: itertools.repeat(np.ones(1, np.int16), 200_004))
    item = {"key": "day", "uri": "/day.wav", "start": None, "seconds": None}
    keys = [piece.key for piece in pieces(item, io.BytesIO(), 16_000, 0.5) if isinstance(piece, Piece)]
    assert len(set(keys)) == len(keys) == 200_004
    assert keys[:3] == ["day", "day@0.5", "day@1"]
    assert keys[-2:] == ["day@100001", "day@100001.5"]


@pytest.mark.parametrize("seconds", [10.0, 0.95, 7.3])
def test_a_key_names_the_second_where_its_piece_begins(seconds: float) -> None:
    audio = io.BytesIO()
    soundfile.write(audio, np.random.default_rng(0).normal(0, 0.1, 16_000 * 25), 16_000, format="WAV")
    audio.seek(0)
    item = {"key": "clip", "uri": "/clip.wav", "start": None, "seconds": None}
    for piece in list(pieces(item, audio, 16_000, seconds))[1:]:
        assert piece.key.removeprefix("clip@") == f"{round(piece.start / 16_000, 6)}".removesuffix(".0")
