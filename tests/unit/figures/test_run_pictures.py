"""Pictures of a run show what its folder holds, for a run on clips with known labels and clusters."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from support.finished_runs import (
    DAMAGED,
    FRONT_END,
    NUM_CLUSTERS,
    RATE,
    Example,
    prepare_waves,
    write_run,
)

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.figures import run as pictures
from unfused_ray.figures.map import Grouping, draw_map
from unfused_ray.figures.spectrograms import SheetRow, draw_sheet
from unfused_ray.models.export import load_student


@pytest.mark.parametrize("stage", ["pretrain", "distill"])
def test_a_run_gets_three_pictures_that_are_not_blank(example: Example, stage: str) -> None:
    run_uri = example.uri if stage == "pretrain" else example.student
    uris = pictures.write(run_uri)
    assert uris == [f"{run_uri}/pictures/{name}.png" for name in ("health", "clusters", "map")]
    for uri in uris:
        pixels = imread(io.BytesIO(Path(uri).read_bytes()), format="png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05


def test_map_of_a_distillation_shows_what_its_student_hears_by_label_and_pseudo_label(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}

    def project(embeddings_ND: np.ndarray) -> np.ndarray:
        drawn["embeddings"] = embeddings_ND
        return embeddings_ND[:, :2]

    def draw(title: str, positions_N2: np.ndarray, groupings: list[Grouping]) -> Figure:
        drawn.update(title=title, groupings=groupings)
        return draw_map(title, positions_N2, groupings)

    monkeypatch.setattr(pictures, "project", project)
    monkeypatch.setattr(pictures, "draw_map", draw)
    pictures.write(example.student)
    student = load_student(example.student)
    assert len(drawn["embeddings"]) == DAMAGED  # all but the damaged clip, the last
    for clip_id in (0, 7, 43):
        alone = student.embed(example.waves[clip_id], RATE)[0]
        np.testing.assert_allclose(drawn["embeddings"][clip_id], alone, rtol=1e-4, atol=1e-5)
    by_label, by_pseudo_label = drawn["groupings"]
    assert by_label.names == ["hiss", "hum"]
    assert by_label.ids[:6].tolist() == [1, 0, -1, 1, 0, -1]
    assert by_pseudo_label.names == [f"pseudo-label {i}" for i in range(NUM_CLUSTERS)]
    assert by_pseudo_label.ids.tolist() == np.repeat(np.arange(NUM_CLUSTERS), [15, 12, 9, 6, 2]).tolist()
    assert drawn["title"].startswith("44 clips of hum-student, embedded by its student")
    assert "labels were not used in training" in drawn["title"]


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any),
    num_without=st.integers(0, 30),
    num_shown=st.integers(1, 10),
)
def test_shown_clusters_spread_from_the_largest_to_the_smallest(
    sizes: list[int], num_without: int, num_shown: int
) -> None:
    clusters = np.repeat(np.arange(-1, len(sizes)), [num_without, *sizes])
    shown = pictures.spread_clusters(clusters, num_shown)
    filled = sorted((size for size in sizes if size), reverse=True)
    assert len(set(shown.tolist())) == len(shown) == min(num_shown, len(filled))
    found = [sizes[cluster] for cluster in shown]
    assert found == sorted(found, reverse=True)
    assert found[0] == filled[0]
    if len(shown) > 1:
        assert found[-1] == filled[-1]


def test_sheet_shows_the_clips_nearest_to_each_centroid_as_far_as_they_can_be_read(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[SheetRow]] = []

    def draw(title: str, rows: list[SheetRow], front_end: FrontEndConfig) -> Figure:
        sheets.append(rows)
        return draw_sheet(title, rows, front_end)

    monkeypatch.setattr(pictures, "draw_sheet", draw)
    prepare_waves(tmp_path, example.waves, damaged=12)
    write_run(str(tmp_path / "run"), str(tmp_path))
    pictures.write(str(tmp_path / "run"))
    (sheet,) = sheets
    assert [len(row.log_mels) for row in sheet] == [6, 6, 6, 6, 3]
    # The cluster has clips 0 to 14, five of each kind; distances fall with the id. 14 has no label, 13 hisses, 12 hums.
    assert sheet[0].title == "cluster 0\n15 clips\n50% hum"
    assert sheet[0].captions == ["", "hiss", "hum"] * 2
    assert [log_mel is None for log_mel in sheet[0].log_mels] == [False, False, True, False, False, False]
    expected = LogMel(FRONT_END)(torch.from_numpy(example.waves[14])[None])[0].numpy()
    np.testing.assert_allclose(sheet[0].log_mels[0], expected, rtol=1e-4, atol=1e-5)
