"""An exported ONNX file: its contents, its description, and its difference from the encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.exports import Exportable
from support.paths import ROOT

from unfused_ray import api, storage
from unfused_ray.evaluation.embedders import load_embedder
from unfused_ray.evaluation.onnx_embedder import OnnxEmbedder
from unfused_ray.evaluation.systems import parse_model
from unfused_ray.exports import onnx_file
from unfused_ray.exports.job import ExportResult
from unfused_ray.models.export import load_encoder

RATE = 16_000


@pytest.fixture(scope="module")
def exported(student: Exportable, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFUSED_RAY_HOME", str(folder / "home"))
        return api.export(encoder=student.run, num_clips=40)


def test_it_lies_in_the_home_and_is_signed(exported: ExportResult):
    folder = Path(exported.folder)
    assert (folder.parent.name, folder.name) == ("exports", "student-onnx")
    record = json.loads((folder / "export.json").read_text())
    assert record["files"] == exported.files and set(exported.files) == {"model.onnx"}
    for file in ("export.json", "model.onnx"):
        content = (folder / file).read_bytes()
        named = [path for path in (str(folder.parents[2]), str(ROOT), torch.__path__[0]) if path.encode() in content]
        assert not named, "a published folder names no path of this machine"


@pytest.mark.parametrize(("batch", "num_samples"), [(1, 1), (1, 40), (3, 2_000), (2, 3_200), (1, 3_201), (2, 40_000)])
def test_any_batch_of_any_length_is_embedded_as_the_encoder_does(student, exported, batch, num_samples):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (batch, num_samples)).astype(np.float32)
    vectors, frames = OnnxEmbedder(f"{exported.folder}/model.onnx").run(wave)
    encoder = load_encoder(student.run)
    torch.testing.assert_close(torch.from_numpy(vectors), encoder(wave), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(frames), encoder.frames(wave, RATE).vectors, rtol=1e-4, atol=1e-4)


def test_the_file_says_all_that_its_user_needs(exported: ExportResult):
    model = onnx.load(f"{exported.folder}/model.onnx")
    said = {each.key: each.value for each in model.metadata_props}
    assert (said["sample_rate"], said["shortest_samples"], said["opset"]) == ("16000", "3200", "18")
    assert said["short_clips"].startswith("repeated to shortest_samples") and "no peak normalisation" in said["input"]
    assert (said["frame_hop_ms"], said["frame_first_ms"], said["dim"], said["weights"]) == ("80", "35", "16", "float32")
    assert said["max_difference"].endswith(" of the standard deviation of the vectors' numbers")
    assert said["checked_on"].startswith("40 clips: ")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"wave": ["batch", "samples"], "vectors": ["batch", 16], "frames": ["batch", "frames", 16]}
    assert {node.domain for node in model.graph.node} == {""}


def test_it_was_compared_with_the_encoder_on_real_clips(exported: ExportResult):
    found = exported.checks["model.onnx"]
    assert found.num_clips == found.same_neighbours == 40
    assert found.max_difference < 1e-4 and found.min_cosine > 1 - 1e-6
    assert (found.shortest_seconds, found.longest_seconds) == (0.15, 0.4375)


def test_weights_of_8_bits_change_little(exported: ExportResult, tmp_path: Path):
    model = onnx.load(f"{exported.folder}/model.onnx")
    metadata = {each.key: each.value for each in model.metadata_props}
    small = onnx_file.with_int8_weights(model)
    files = (Path(exported.folder) / "model.onnx", tmp_path / "int8.onnx")
    files[1].write_bytes(onnx_file.with_metadata(small, metadata))
    shapes = [list(weight.dims) for weight in small.graph.initializer if weight.data_type == onnx.TensorProto.INT8]
    assert shapes == [[513, 64], [4, 4, 3, 3], [4, 4, 3, 3], [32, 16]]  # all but Fourier's and the first convolution's
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5_000)).astype(np.float32)
    vectors, other = (
        OnnxEmbedder(str(path)).embed(wave) for path in (f"{exported.folder}/model.onnx", tmp_path / "int8.onnx")
    )
    assert 0 < np.abs(vectors - other).max() < 0.05 * vectors.std()


@pytest.mark.slow
def test_weights_of_8_bits_are_scored_beside_those_of_32(student, tmp_path, monkeypatch):
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    result = api.export(encoder=student.run, int8=True, output=str(tmp_path / "out"))
    assert set(result.files) == {"model.onnx", "model-int8.onnx"}
    assert 1e-4 < result.checks["model-int8.onnx"].max_difference < 0.3
    whole, eight = result.table.rows[-2:]
    assert (whole.name, eight.name, result.table.tasks) == ("float32", "int8", ("pitches",))
    assert abs(eight.difference["headline"]["pitches"].value) < 0.1
    assert (tmp_path / "out" / "evaluation" / "table.md").exists()


def test_a_file_may_stand_in_a_table(exported: ExportResult):
    model = parse_model(f"small={exported.folder}/model.onnx")
    assert (model.name, load_embedder(model.spec).num_parameters) == ("small", 888)


def test_another_export_at_the_same_path_is_another_encoder_in_the_same_process(exported: ExportResult, tmp_path: Path):
    content, path = Path(f"{exported.folder}/model.onnx").read_bytes(), tmp_path / "model.onnx"
    path.write_bytes(content)
    first = load_embedder(str(path))
    assert load_embedder(str(path)) is first
    metadata = {"sample_rate": "8000", "num_parameters": "888"}
    path.write_bytes(onnx_file.with_metadata(onnx.load_from_string(content), metadata))
    second = load_embedder(str(path))
    assert second.version == storage.sha256(path.read_bytes()) != first.version
    assert (first.sample_rate, second.sample_rate) == (16_000, 8_000)


def test_what_is_no_export_is_refused(tmp_path: Path):
    (tmp_path / "damaged.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"damaged\.onnx is no ONNX file that can be run"):
        OnnxEmbedder(str(tmp_path / "damaged.onnx"))
    identity = onnx.helper.make_node("Identity", ["wave"], ["vectors"])
    floats = [onnx.helper.make_tensor_value_info(name, 1, ["batch", "samples"]) for name in ("wave", "vectors")]
    graph = onnx.helper.make_graph([identity], "other", floats[:1], floats[1:])
    other = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="was not written by unfused-ray export --to onnx"):
        OnnxEmbedder(str(tmp_path / "other.onnx"))
