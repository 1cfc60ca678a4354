"""No reader loads a pickle: each file of each kind of run is replaced by one that leaves a mark, and then read."""

from __future__ import annotations

import io
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType  # registers it, as training does
from safetensors import SafetensorError
from support.paths import contents_below
from support.reports import Runs, write_runs
from support.runs import tiny, tiny_student, train
from support.vectors import groups_of, write_vectors

from unfused_ray import api, storage
from unfused_ray.config import EvaluateConfig, IndexConfig
from unfused_ray.data.parts.ledger import Ledger, PartReport
from unfused_ray.data.shards.index import ClipIndex, read_unit
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.embedding.vectors import VectorFile
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.models.export import load_encoder
from unfused_ray.parquet import open_parquet
from unfused_ray.report import report
from unfused_ray.retrieval import job, plan
from unfused_ray.sweeps.trial import read_records
from unfused_ray.tracking.mlflow import kept_id


class Mark:
    """Object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def as_pickle(mark: Mark) -> bytes:
    return pickle.dumps(mark)


def as_torch(mark: Mark) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": mark}, buffer)
    return buffer.getvalue()


def as_numpy(mark: Mark) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([mark], object), allow_pickle=True)
    return buffer.getvalue()


def pickled_column(mark: Mark, num_rows: int) -> pa.Array:
    """Return a column of Ray Data's type for Python objects."""
    kind = ArrowPythonObjectType()
    return kind.wrap_array(pa.array([pickle.dumps(mark)] * num_rows, kind.storage_type))


def as_parquet(mark: Mark, original: bytes) -> bytes:
    """Return the table with pickles in all columns and in its metadata."""
    table = pq.read_table(io.BytesIO(original))
    columns = {name: pickled_column(mark, len(table)) for name in table.column_names}
    buffer = io.BytesIO()
    evil = pa.table(columns).replace_schema_metadata({"pandas": pickle.dumps(mark), "huggingface": pickle.dumps(mark)})
    pq.write_table(evil, buffer, row_group_size=len(table))
    return buffer.getvalue()


@pytest.mark.parametrize("dump", [as_pickle, as_torch, as_numpy])
def test_the_mark_is_left_by_whoever_unpickles(dump: Callable[[Mark], bytes], tmp_path: Path) -> None:
    data = io.BytesIO(dump(Mark(tmp_path / "mark")))
    if dump is as_pickle:
        pickle.load(data)
    elif dump is as_torch:
        torch.load(data, weights_only=False)
    else:
        np.load(data, allow_pickle=True)
    assert (tmp_path / "mark").exists()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> tuple[Path, Runs]:
    """A folder with runs of each kind, an embedding cache, an interrupted ledger, vectors and their index; the runs."""
    folder = tmp_path_factory.mktemp("tree")
    runs = write_runs(folder, tracking_uri)
    kept_id(runs.evaluation)
    ledger(folder).begin()
    (folder / "half-made" / "part").write_bytes(b"part")
    ledger(folder).finish(0, PartReport(VectorFile("part", 1, 1, 4, storage.sha256(b"part")), ()))
    write_vectors(folder / "vectors", groups_of(0, 90, 4))
    api.index(vectors=str(folder / "vectors"), output=str(folder / "index"), exact_up_to=50)
    return folder, runs


def ledger(folder: Path) -> Ledger:
    """Return the ledger of an interrupted ingest."""
    return Ledger(str(folder / "half-made"), "reports", "source", {}, "plan")


@contextmanager
def put_right(folder: Path) -> Iterator[None]:
    """Restore the files of a folder at the end of the block."""
    before = contents_below(folder)
    try:
        yield
    finally:
        now = contents_below(folder)
        for path in now.keys() - before.keys():
            (folder / path).unlink()
        for path, data in before.items():
            if now.get(path) != data:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)


def replace(folder: Path, path: Path, data: bytes) -> None:
    """Write a file, and its SHA-256 into every manifest that holds the old one, as an attacker would."""
    old, new = storage.sha256(path.read_bytes()).encode(), storage.sha256(data).encode()
    path.write_bytes(data)
    for manifest in folder.rglob("*.json"):
        if old in (text := manifest.read_bytes()):
            replace(folder, manifest, text.replace(old, new))


def resume(folder: Path, runs: Runs, tracking_uri: str) -> None:
    train(tiny(runs.source, Path(runs.pretraining), tracking_uri, method__num_clusters=(4,), epochs=3))


def resume_student(folder: Path, runs: Runs, tracking_uri: str) -> None:
    fields = {"teacher": runs.pretraining, "name": "teacher-student", "labels__origin": "teacher", "epochs": 3}
    train(tiny_student(runs.source, Path(runs.distillation), tracking_uri, **fields))


def distill(folder: Path, runs: Runs, tracking_uri: str) -> None:
    train(tiny_student(runs.source, folder / "new", tracking_uri, teacher=runs.pretraining, epochs=1))


def load_student(folder: Path, runs: Runs, tracking_uri: str) -> None:
    load_encoder(runs.distillation)


def read_clips(folder: Path, runs: Runs, tracking_uri: str) -> None:
    index = ClipIndex.load([str(runs.source)], None)
    for column in ("key", "labels", "split"):
        index.column(column)


def read_audio(folder: Path, runs: Runs, tracking_uri: str) -> None:
    read_unit(ClipIndex.load([str(runs.source)], None).units[0], ("audio", "num_samples")).to_pylist()


def evaluate_again(folder: Path, runs: Runs, tracking_uri: str, output: str = "table") -> None:
    config = EvaluateConfig(
        models=(f"model <i>={folder}/model", f"watched={runs.pretraining}"),
        tasks=(str(folder / "task & co"),),
        output=str(folder / output),
        cache=str(folder / "embeddings"),
        protocol=str(folder / "protocol.toml"),
        random_seeds=1,
        processes=1,
    )
    evaluation_job.run(evaluation_plan.check(config))


def evaluate_anew(folder: Path, runs: Runs, tracking_uri: str) -> None:
    evaluate_again(folder, runs, tracking_uri, output="another table")


def show(kind: str) -> Callable[[Path, Runs, str], None]:
    return lambda folder, runs, tracking_uri: str(report.to_html([getattr(runs, kind)]))  # type: ignore[func-returns-value]


def resume_sweep(folder: Path, runs: Runs, tracking_uri: str) -> None:
    read_records(runs.sweep)


def read_vectors(folder: Path, runs: Runs, tracking_uri: str) -> None:
    config = IndexConfig(vectors=(str(folder / "vectors"),), output=str(folder / "index again"))
    job.run(plan.check(config))


def search_index(folder: Path, runs: Runs, tracking_uri: str) -> None:
    api.search(str(folder / "index"), label="1")


def go_on(folder: Path, runs: Runs, tracking_uri: str) -> None:
    assert ledger(folder).check_begun()
    assert ledger(folder).finished(0, VectorFile) is not None


def find_tracked(folder: Path, runs: Runs, tracking_uri: str) -> None:
    kept_id(runs.evaluation)


PLACES: list[tuple[str, Callable[[Path, Runs, str], None]]] = [
    ("source/manifest.json", read_clips),
    ("source/*.parquet", read_clips),
    ("source/*.parquet", read_audio),
    ("run/run.json", resume),
    ("run/checkpoints/e0002-*/*.json", resume),
    ("run/checkpoints/e0002-*/*.safetensors", resume),
    ("run/checkpoints/e0002-*/bank/*.*", resume),
    ("run/checkpoints/e0002-*/bank/assignment/*", resume),
    ("run/encoder/*", distill),
    ("run/status.json", show("pretraining")),
    ("run/history.json", show("pretraining")),
    ("run/assignments/epoch-0001/*", show("pretraining")),
    ("student/pseudo-labels/*", resume_student),
    ("student/student/*", load_student),
    ("model/encoder/*", evaluate_again),
    ("protocol.toml", evaluate_again),
    ("task & co/*.parquet", evaluate_again),
    ("table/task & co/*.json", evaluate_again),
    ("table/table.json", show("evaluation")),
    ("table/tracking.json", find_tracked),
    ("half-made/reports/*.json", go_on),
    ("embeddings/**/*", evaluate_anew),
    ("sweep/sweep.json", show("sweep")),
    ("sweep/trials/60bc22425b/trial.json", resume_sweep),
    ("vectors/*", read_vectors),
    ("index/index.json", search_index),
    ("index/*/*", search_index),
]


@pytest.mark.parametrize(("place", "read"), PLACES, ids=[f"{place} {read.__name__}" for place, read in PLACES])
def test_no_pickle_in_the_place_of_a_file_is_loaded_and_the_file_is_named(
    tree: tuple[Path, Runs],
    place: str,
    read: Callable[[Path, Runs, str], None],
    tmp_path: Path,
    tracking_uri: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, runs = tree
    mark = Mark(tmp_path / "mark")
    paths = sorted(path for path in folder.glob(place) if path.is_file() and path.suffix != ".png")
    assert paths
    for path in paths:
        with put_right(folder), caplog.at_level(logging.WARNING):
            data = as_parquet(mark, path.read_bytes()) if path.suffix == ".parquet" else as_pickle(mark)
            replace(folder, path, as_torch(mark) if path.suffix == ".safetensors" else data)
            caplog.clear()
            said = ""
            try:
                read(folder, runs, tracking_uri)
            except (ValueError, OSError, RuntimeError, SafetensorError) as error:
                said = str(error)
        assert not mark.folder.exists(), path
        named = said + caplog.text
        # safetensors refuses weights with a right checksum, and its message does not name the file.
        assert path.name in named or (path.suffix == ".safetensors" and "header" in named), (path, named)


def test_files_that_lie_beside_those_of_a_run_are_not_looked_at(
    tree: tuple[Path, Runs], tmp_path: Path, tracking_uri: str
) -> None:
    folder, runs = tree
    mark = Mark(tmp_path / "mark")
    folders = [path for path in folder.rglob("*") if path.is_dir() and "mlartifacts" not in path.parts]
    assert len(folders) > 20
    with put_right(folder):
        for place in folders:
            (place / "state.pkl").write_bytes(as_pickle(mark))
            (place / "model.pt").write_bytes(as_torch(mark))
            (place / "vectors.npy").write_bytes(as_numpy(mark))
        for read in (load_student, read_clips, resume_sweep, evaluate_anew, resume_student, resume):
            read(folder, runs, tracking_uri)
    assert not mark.folder.exists()


def test_a_parquet_source_with_pickles_is_set_aside(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark")
    audio, path = pa.array([b"RIFF"] * 2), tmp_path / "evil.parquet"
    pq.write_table(pa.table({"audio": audio, "key": pickled_column(mark, 2), "label": pickled_column(mark, 2)}), path)
    listing = list_parquet(str(path))
    assert not mark.folder.exists()
    assert len(listing.items) == 0
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("evil.parquet", "unreadable")]
    assert "column 'key'" in listing.rejects[0].detail


@pytest.mark.parametrize(
    "nested", [pa.list_, lambda kind: pa.struct({"a": kind}), lambda kind: pa.map_("string", kind)]
)
def test_a_pickle_deep_in_a_column_is_refused_and_a_uuid_is_not(
    nested: Callable[[pa.DataType], pa.DataType], tmp_path: Path
) -> None:
    for kind, is_refused in ((ArrowPythonObjectType(), True), (pa.uuid(), False)):
        path = tmp_path / "nested.parquet"
        pq.write_table(pa.Table.from_batches([], pa.schema({"deep": nested(kind)})), path)
        with path.open("rb") as file:
            if is_refused:
                with pytest.raises(pa.ArrowInvalid, match="column 'deep'"):
                    open_parquet(file, str(path))
            else:
                assert open_parquet(file, str(path)).metadata.num_rows == 0
