"""Reads planned rows as blocks of crops, in CPU tasks or in process: a pure function of (seed, epoch, clip_id)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.crop import complete
from unfused_ray.audio.decode import AudioError, read_flac
from unfused_ray.config import CropConfig
from unfused_ray.data.shards.index import Unit, read_unit
from unfused_ray.data.stream.plan import Pass, ReadTask, row_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """A block of b clips: the unit of batch-norm statistics and of gradient accumulation."""

    index: int
    """Number of the block in the epoch."""
    clip_ids: np.ndarray
    """``(b,)`` int64; -1 if a clip only fills up the last global batch of an ``embed`` pass."""
    waves: np.ndarray
    """``(b, crops, samples)`` int16."""
    weights: np.ndarray
    """``(b,)`` float32: 1, or 0 for a damaged clip (which is silence)."""


@dataclass(frozen=True)
class BlockReader:
    """Reads the blocks of a read task. It holds only numbers, so it can be sent to any process."""

    seed: int
    block_size: int
    crop: CropConfig
    crop_samples: int

    def read(self, pass_: Pass, task: ReadTask) -> Iterator[Block]:
        """Yield the task's blocks in order.

        A damaged clip becomes silence with weight 0, so the number of blocks never changes.

        Raises:
            OSError: a shard is missing, or its storage does not answer.
        """
        b = self.block_size
        clip_ids = np.empty(b, np.int64)
        waves = np.zeros((b, self.crop.num_crops, self.crop_samples), np.int16)
        weights = np.ones(b, np.float32)
        filled, index = 0, task.first_block
        for part in task.slices:
            rows = row_order(self.seed, pass_.epoch, part.unit)[part.start : part.stop]
            table = read_unit_if_whole(part.unit, ("audio", "num_samples"))
            ids = part.unit.first_clip_id + rows
            num_samples = np.zeros(len(rows), np.int64) if table is None else table["num_samples"].to_numpy()[rows]
            starts = self._crop_starts(pass_, ids, num_samples)
            audio = None if table is None else table["audio"].chunk(0)
            for i, row in enumerate(rows):
                clip_ids[filled] = -1 if part.padding else ids[i]
                whole = audio is not None and self._read_clip(
                    audio[int(row)].as_buffer(), int(num_samples[i]), starts[i], waves[filled]
                )
                weights[filled] = float(whole)
                filled += 1
                if filled == b:
                    yield Block(index, clip_ids, waves, weights)
                    clip_ids, waves, weights = np.empty_like(clip_ids), np.zeros_like(waves), np.ones_like(weights)
                    filled, index = 0, index + 1

    def _crop_starts(self, pass_: Pass, ids: np.ndarray, num_samples: np.ndarray) -> np.ndarray:
        """Choose the first sample of each crop, ``(clips, crops)``: random for training, centred for embedding."""
        crops = self.crop.num_crops
        if pass_.kind == "embed":
            middle = (np.maximum(num_samples - self.crop_samples, 0) + 1) // 2
            return np.repeat(middle[:, None], crops, axis=1)
        return np.stack(
            [
                randomness.crop_starts(self.seed, f"crop {crop}", pass_.epoch, ids, num_samples, self.crop_samples)
                for crop in range(crops)
            ],
            axis=1,
        )

    def _read_clip(self, flac: pa.Buffer, num_samples: int, starts: np.ndarray, out_CL: np.ndarray) -> bool:
        """Write a clip's crops to ``out_CL``, which holds zeros; return False if the clip is damaged."""
        length = self.crop_samples
        try:
            if num_samples <= length:
                out_CL[:] = complete(read_flac(flac, 0, num_samples), length, self.crop.short_clips)
            else:
                for crop, start in enumerate(starts):
                    out_CL[crop] = read_flac(flac, int(start), length)
        except AudioError:
            out_CL[:] = 0
            return False
        return True


def read_unit_if_whole(unit: Unit, columns: Sequence[str]) -> pa.Table | None:
    """Read columns of one row group; return None, with a warning, if its shard is damaged.

    Raises:
        OSError: the shard is missing or its storage does not answer.
    """
    try:
        return read_unit(unit, columns).combine_chunks()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if not _is_damaged(unit):
            raise
        logger.warning("%s, row group %d, is damaged: its clips are not used (%s)", unit.uri, unit.row_group, error)
        return None


def _is_damaged(unit: Unit) -> bool:
    """Return True if a shard can be fetched but has other bytes than the ingest wrote.

    Raises:
        OSError: the shard cannot be fetched.
    """
    return storage.sha256_file(unit.uri) != unit.sha256
