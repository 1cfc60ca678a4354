"""The readers that ``fuzz.py`` feeds: their undamaged inputs, and the only ways in which reading may end."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch

from support import audio_files, lape_sets
from support.sources import write_source
from support.tasks import PROTOCOL, write_encoder
from unfused_ray import storage
from unfused_ray.config import BatchConfig, CropConfig
from unfused_ray.data.shards.format import MANIFEST, Manifest
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.sources.csv_files import list_csv
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.registry import TASKS, list_task
from unfused_ray.data.sources.pieces import Piece, pieces
from unfused_ray.data.sources.tar import list_tar
from unfused_ray.data.stream.plan import Pass, Planner, Segment
from unfused_ray.data.stream.read import BlockReader
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.models.export import DESCRIPTION, WEIGHTS, load_encoder
from unfused_ray.runs.checkpoints import CheckpointStore, Position

RATE, MAX_SECONDS = 16_000, 1.0
AUDIO = {
    "wav": ("WAV", "PCM_16"),
    "wav-float": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_24"),
    "au": ("AU", "ULAW"),
}
MUXED = {
    "m4a": ("ipod", "aac"),
    "m4a-alac": ("ipod", "alac"),
    "mp4-fragments": ("mp4", "aac"),
    "3gp": ("3gp", "libopencore_amrnb"),
    "amr": ("amr", "libopencore_amrnb"),
    "adts": ("adts", "aac"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "libmp3lame"),
    "wma": ("asf", "wmav2"),
    "avi": ("avi", "libmp3lame"),
    "flv": ("flv", "aac"),
    "ac3": ("ac3", "ac3"),
    "eac3": ("eac3", "eac3"),
    "tta": ("tta", "tta"),
    "wv": ("wv", "wavpack"),
    "wav-adpcm": ("wav", "adpcm_ms"),
    "ogg-flac": ("oga", "flac"),
    "mpegts": ("mpegts", "aac"),
    "m2ts": ("mpegts", "mp2"),
    "mpeg": ("vob", "mp2"),
    "mka-live": ("matroska", "aac"),
}
"""FFmpeg's container and codec, by kind."""
JOINED = (
    *(("wav", "mp3"), ("flac", "wav"), ("flac", "flac"), ("opus", "mp3"), ("m4a", "adts"), ("mka", "webm")),
    *(("avi", "avi"), ("flv", "w64"), ("mpegts", "flac"), ("mpeg", "aiff"), ("mka-live", "mka-live"), ("au", "ac3")),
)
"""Pairs of kinds that are laid end to end."""
OPTIONS = {
    "mp4-fragments": {"movflags": "frag_keyframe+empty_moov", "frag_duration": "100000"},
    "m2ts": {"mpegts_m2ts_mode": "1"},
    "mka-live": {"live": "1"},
}
"""Options of FFmpeg's container, by kind."""


class Reader(NamedTuple):
    """Undamaged inputs, and a function that reads one: it returns how reading ended; any exception is a fault."""

    originals: Sequence[bytes]
    read: Callable[[bytes], str]


def encoded(kind: str, rate: int = RATE, channels: int = 1, seconds: float = 0.3) -> bytes:
    if kind in MUXED:
        wave = audio_files.tone(seconds, rate, channels)
        return audio_files.muxed(wave, rate, *MUXED[kind], **OPTIONS.get(kind, {}))
    container, subtype = AUDIO[kind]
    wave = np.random.default_rng(channels).normal(0, 0.1, (round(seconds * rate), channels))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def became_of(listing: Listing) -> str:
    """Read a listing's clips; return "rejected" if any was set aside, else "read"."""
    ends = []
    for item, source in fetch(listing.items):
        found = list(pieces(item, source, RATE, MAX_SECONDS))
        assert found, item
        for piece in found:
            assert not isinstance(piece, Piece) or 0 < len(piece.pcm) <= RATE * MAX_SECONDS
        ends.append(isinstance(found[-1], Piece))
    return "rejected" if listing.rejects or not all(ends) else "read"


def or_refused(read: Callable[[], object], place: str) -> str:
    """Call ``read``; return "refused" if it raised a ValueError or FileNotFoundError that names the place."""
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        assert place in str(error), f"{type(error).__name__} does not name {place}: {error}"
        return "refused"
    return "read"


def audio(kind: str, folder: Path) -> Reader:
    def read(data: bytes) -> str:
        item = {"key": "k", "start": None, "seconds": None}
        *good, last = pieces(item, io.BytesIO(data), RATE, MAX_SECONDS)
        assert all(0 < len(piece.pcm) <= RATE for piece in (*good, last) if isinstance(piece, Piece))
        return "read" if isinstance(last, Piece) else "rejected"

    if kind == "joined":
        return Reader([b"".join(encoded(each, 48_000) for each in pair) for pair in JOINED], read)
    if "amr" in MUXED.get(kind, ("", ""))[1]:
        return Reader([encoded(kind, 8_000)], read)
    rate = 22_050 if kind in AUDIO and kind != "opus" else 48_000
    return Reader([encoded(kind, rate), encoded(kind, rate, 2)], read)


def listed(list_file: Callable[[str], Listing], name: str, originals: Sequence[bytes], folder: Path) -> Reader:
    path = folder / name

    def read(data: bytes) -> str:
        path.write_bytes(data)
        try:
            listing = list_file(str(path))
        except ValueError as error:
            assert str(path) in str(error), error
            return "refused"
        return became_of(listing)

    return Reader(originals, read)


def tar(folder: Path) -> Reader:
    def packed(form: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            members = {"a.wav": encoded("wav"), "a.json": b'{"labels": ["x", "y"], "split": "train"}'}
            for name, data in {**members, "b" * 120 + ".flac": encoded("flac"), "b.txt": "ä".encode()}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    return listed(list_tar, "x.tar", [packed(tarfile.PAX_FORMAT), packed(tarfile.GNU_FORMAT)], folder)


def csv(folder: Path) -> Reader:
    (folder / "a.wav").write_bytes(encoded("wav"))
    originals = [
        b"files,label,split,group\na.wav,x,train,1\nb.wav,y,,\n",
        '\ufeffwav_path,label\r\n"a.wav","é, ""y"""\r\n~nobody/a.wav,\r\nhttp://host/a.wav,z\r\n'.encode(),
    ]
    return listed(list_csv, "x.csv", originals, folder)


def parquet(folder: Path) -> Reader:
    def written(table: pa.Table, **options: object) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2, **options)
        return buffer.getvalue()

    clips = [encoded("wav"), encoded("flac"), None, encoded("vorbis")]
    keys, hub = ["a", "b", "b", None], {"huggingface": '{"info": {"features": {"label": {"names": ["x", "y"]}}}}'}
    struct = pa.table(
        {"id": keys, "audio": [{"bytes": clip, "path": "p.wav"} for clip in clips], "label": [0, 1, 5, None]}
    )
    flat = pa.table({"audio": clips, "labels": ["a,b", "", None, "c"], "split": keys})
    originals = [written(struct.replace_schema_metadata(hub)), written(flat, compression="none", use_dictionary=False)]
    return listed(list_parquet, "x.parquet", originals, folder)


def lape(folder: Path) -> Reader:
    """Published lists of four data sets, in three layouts; everything else of the data sets is undamaged."""
    lape_sets.write_all(folder)
    lists = {code: Path(folder, next(p for p in TASKS[code].requires if Path(folder, p).is_file())) for code in CODES}
    whole = {code: path.read_bytes() for code, path in lists.items()}
    turn = iter(range(10**9))

    def read(data: bytes) -> str:
        code = CODES[next(turn) % len(CODES)]
        lists[code].write_bytes(data)
        try:
            return or_refused(lambda: list_task(code, str(folder)), str(folder))
        finally:
            lists[code].write_bytes(whole[code])

    return Reader(list(whole.values()), read)


CODES = ("us8k", "ns", "vc", "bsd")


def shard(folder: Path) -> Reader:
    manifest = write_source(folder, [[4, 4]])
    path = folder / manifest.shards[0].file
    planner = Planner(ClipIndex([manifest]), 0, BatchConfig(block=4, blocks_per_step=2))
    tasks = planner.read_tasks(Segment(Pass("train", 0), num_steps=1), blocks_per_task=1)
    reader = BlockReader(0, 4, CropConfig(), 15_200)

    def read(data: bytes) -> str:
        path.write_bytes(data)
        blocks = [block for task in tasks for block in reader.read(Pass("train", 0), task)]
        assert [block.waves.shape for block in blocks] == [(4, 1, 15_200)] * 2
        return "read" if all(block.weights.all() for block in blocks) else "rejected"

    return Reader([path.read_bytes()], read)


def manifest(folder: Path) -> Reader:
    write_source(folder, [[2, 2]])
    path = folder / MANIFEST

    def read(data: bytes) -> str:
        path.write_bytes(data)
        return or_refused(lambda: Manifest.load(str(folder)), str(folder))

    return Reader([path.read_bytes()], read)


def checkpoint(folder: Path) -> Reader:
    store = CheckpointStore(str(folder))
    uri = store.begin(Position(1))
    storage.write_bytes(storage.join(uri, "bank", "x"), b"bank")
    store.commit(Position(1), {"weights": {"w": torch.zeros(3)}}, {"history": []})
    files = [Path(uri, name) for name in (MANIFEST, "details.json", "weights.safetensors")]
    whole = [file.read_bytes() for file in files]

    def read(data: bytes) -> str:
        chosen = whole.index(data) if data in whole else len(data) % len(files)
        file, content = files[chosen], whole[chosen]
        file.write_bytes(data)
        try:
            return or_refused(store.newest, uri)
        finally:
            file.write_bytes(content)

    return Reader(whole, read)


def export(folder: Path) -> Reader:
    """An encoder's description, or weights with the right checksum, so that they reach safetensors and the network."""
    write_encoder(folder, "fc2")
    description, weights = (folder / DESCRIPTION).read_bytes(), (folder / WEIGHTS).read_bytes()

    def read(data: bytes) -> str:
        is_description = len(data) < len(weights) / 2
        (folder / DESCRIPTION).write_bytes(data if is_description else described(data))
        (folder / WEIGHTS).write_bytes(weights if is_description else data)
        return or_refused(lambda: load_encoder(str(folder)), str(folder))

    def described(data: bytes) -> bytes:
        return json.dumps(json.loads(description) | {"sha256": storage.sha256(data)}).encode()

    return Reader([description, weights], read)


def protocol(folder: Path) -> Reader:
    path = folder / "protocol.toml"

    def read(data: bytes) -> str:
        path.write_bytes(data)
        return or_refused(lambda: load_protocol(str(path)), str(path))

    return Reader([PROTOCOL.encode()], read)


READERS: dict[str, Callable[[Path], Reader]] = {
    **{kind: partial(audio, kind) for kind in (*AUDIO, *MUXED, "joined")},
    "tar": tar,
    "csv": csv,
    "parquet": parquet,
    "lape": lape,
    "shard": shard,
    "manifest": manifest,
    "checkpoint": checkpoint,
    "export": export,
    "protocol": protocol,
}
"""Functions that set a reader up in a folder of its own, by name."""
