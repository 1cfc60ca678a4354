"""Checkpoints of a run: the files are written first, and last a manifest with their SHA-256, which commits them.

A checkpoint is a folder ``<run>/checkpoints/e0003-s000120``: after step 120 of epoch 3. A resume takes the newest one
whose files all match its manifest; a damaged one is logged and skipped. The manifest holds nothing else, so no damage
goes unseen.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from unfused_ray import storage

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_DETAILS = "details.json"
BANK = "bank"
"""Folder in a checkpoint with the state of the run's label source; a run without labels has none."""
_FOLDER = re.compile(r"e\d+-s\d+")


@dataclass(frozen=True, order=True)
class Position:
    """Progress of a run: ``step`` global batches of epoch ``epoch`` are done."""

    epoch: int = 0
    step: int = 0

    @property
    def folder(self) -> str:
        """Name of the checkpoint at this position."""
        return f"e{self.epoch:04d}-s{self.step:06d}"

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of global batches done since the start of the run."""
        return self.epoch * steps_per_epoch + self.step

    @classmethod
    def of(cls, folder: str) -> Self:
        """Return the position whose checkpoint is called ``folder``."""
        epoch, step = folder.split("-")
        return cls(int(epoch[1:]), int(step[1:]))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have been verified."""

    uri: str
    position: Position
    details: dict[str, Any]

    @property
    def bank_uri(self) -> str:
        """Folder of the label source's state."""
        return storage.join(self.uri, BANK)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read the tensors of one of its files, onto the CPU."""
        import safetensors.torch  # here: a list of runs need not wait for torch

        return safetensors.torch.load(storage.read_bytes(storage.join(self.uri, f"{name}.safetensors")))


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        run_uri: folder of the run.
    """

    def __init__(self, run_uri: str) -> None:
        self.uri = storage.join(run_uri, "checkpoints")

    def begin(self, position: Position) -> str:
        """Return an empty folder for the checkpoint of ``position``; it does not count before :meth:`commit`."""
        folder = storage.join(self.uri, position.folder)
        storage.delete(folder)
        return folder

    def commit(
        self,
        position: Position,
        tensors: Mapping[str, Mapping[str, Tensor]],
        details: dict[str, Any],
        has_bank: bool = False,
    ) -> None:
        """Write tensors and details beside the files that are already in the folder, then the manifest.

        The checksum of a file written here is that of the bytes in memory. So nothing is read again, and a file that a
        storage has written wrongly does not verify.

        Args:
            position: position of the run.
            tensors: tensors by file name, then by tensor name.
            details: values that JSON can hold.
            has_bank: True if the state of a label source must already be in the folder.

        Raises:
            RuntimeError: the state of the label source is not in the folder.
        """
        import safetensors.torch

        folder = storage.join(self.uri, position.folder)
        before = storage.list_files(folder, recursive=True)
        files = {storage.relative(uri, folder): storage.sha256_file(uri) for uri in before}

        def write(name: str, data: bytes) -> None:
            storage.write_bytes(storage.join(folder, name), data)
            files[name] = storage.sha256(data)

        for name, group in tensors.items():
            state = {key: value.detach().cpu().contiguous() for key, value in group.items()}
            write(f"{name}.safetensors", safetensors.torch.save(state))
        write(_DETAILS, json.dumps(details, indent=1).encode())
        if has_bank and not any(file.startswith(f"{BANK}/") for file in files):
            raise RuntimeError(
                f"{folder} has no {BANK}: the assignment actor, which writes it, sees another folder there. The "
                "output must be reachable by one path or URI from every node of the cluster"
            )
        storage.write_json(storage.join(folder, MANIFEST), {"files": files}, FORMAT_VERSION)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, and log those that do not. None if none was ever committed.

        Raises:
            ValueError: some were committed, but none verifies. A run that began again would delete them.
            OSError: the storage does not answer, which is no reason to start from an older one.
        """
        unusable = []
        for folder in self._folders():
            if not storage.exists(storage.join(folder, MANIFEST)):
                logger.warning("checkpoint %s is not used: it has no %s, its writing was interrupted", folder, MANIFEST)
                continue
            try:
                return _verified(folder)
            except (ValueError, FileNotFoundError, KeyError, AttributeError, TypeError) as error:
                logger.warning("checkpoint %s is not used: %s", folder, error)
                unusable.append(f"  {folder}: {error}")
        if unusable:
            raise ValueError(
                "no checkpoint of the run can be used:\n" + "\n".join(unusable) + "\nMove these folders away to do "
                "without them, or name another folder (--output, --fork, --init-from)"
            )
        return None

    def committed(self) -> list[str]:
        """Return the folders of the committed checkpoints, newest first; their files are not verified."""
        return [folder for folder in self._folders() if storage.exists(storage.join(folder, MANIFEST))]

    def prune(self, newest: Position, keep: int) -> list[Position]:
        """Delete all checkpoints but the newest committed ones up to position ``newest``.

        Later ones did not verify when the run was resumed; the writing of uncommitted ones was interrupted.

        Args:
            newest: position of the checkpoint that was just committed.
            keep: number of checkpoints to leave.

        Returns:
            The positions that are left, newest first.
        """
        kept = [folder for folder in self.committed() if _position(folder) <= newest][:keep]
        for folder in self._folders():
            if folder not in kept:
                # The manifest is deleted first, because a half-deleted checkpoint must not look whole.
                storage.delete(storage.join(folder, MANIFEST))
                storage.delete(folder)
        return [_position(folder) for folder in kept]

    def _folders(self) -> list[str]:
        """Return the folders of checkpoints, whole or not, newest first."""
        found = [folder for folder in storage.list_folders(self.uri) if _FOLDER.fullmatch(storage.name(folder))]
        return sorted(found, key=_position, reverse=True)


def _position(folder_uri: str) -> Position:
    return Position.of(storage.name(folder_uri))


def _verified(folder: str) -> Checkpoint:
    manifest = storage.read_json(storage.join(folder, MANIFEST), FORMAT_VERSION, "begin the run anew")
    for name, expected in manifest["files"].items():
        if storage.sha256_file(storage.join(folder, name)) != expected:
            raise ValueError(f"{name} is damaged (SHA-256 differs from the manifest's)")
    details = storage.read_json(storage.join(folder, _DETAILS))
    return Checkpoint(folder, _position(folder), details)
