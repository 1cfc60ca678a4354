"""The adapters, called as the evaluation kits call them; test_kits_own_checks.py runs the kits' own checks."""

from __future__ import annotations

import importlib
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from support.tasks import write_encoder

from unfused_ray.kits import evar, hear, xares
from unfused_ray.models.export import load_encoder

EVAR_FIELDS = {
    *("audio_repr", "weight_file", "sample_rate", "feature_d"),  # read by the adapter
    *("batch_size", "lr_lineareval", "early_stop_epochs"),  # read by lineareval.py and its loaders
}
WAVE = torch.rand(2, 50_000) - 0.5


def test_hear_gets_vectors_of_scenes_and_at_times(folder):
    model = hear.load_model(folder)
    assert (model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size) == (16_000, 16, 16)
    assert torch.equal(hear.get_scene_embeddings(WAVE, model), load_encoder(folder)(WAVE))
    vectors, times = hear.get_timestamp_embeddings(WAVE, model)
    assert vectors.shape[:2] == times.shape and vectors.shape[2] == 16
    assert times[1, 0] == 35 and (times.diff() == 40).all() and times[0, -1] > 50_000 / 16 - 40
    with pytest.raises(ValueError, match="model_file_path='' names no encoder"):
        hear.load_model()


def test_xares_takes_the_one_encoder_of_its_module(folder, monkeypatch):
    assert [name for name in dir(xares) if name.endswith("Encoder")] == ["UnfusedEncoder"]
    with pytest.raises(ValueError, match="UNFUSED_RAY_ENCODER is not set"):
        xares.UnfusedEncoder()
    monkeypatch.setenv("UNFUSED_RAY_ENCODER", folder)
    encoder = xares.UnfusedEncoder()
    assert (encoder.sampling_rate, encoder.output_dim, encoder.hop_size_in_ms) == (16_000, 16, 40)
    frames = encoder(WAVE)
    assert frames.shape == (2, 2 * 40 - 1, 16)  # of 3,125 ms


def test_evar_gets_a_vector_a_clip(folder):
    described = yaml.safe_load(textwrap.dedent((evar.__doc__ or "").split("configuration::\n")[1].split("\n\nEVAR")[0]))
    assert {*described} == EVAR_FIELDS
    cfg = SimpleNamespace(**{**described, "weight_file": folder, "feature_d": 16})
    model = evar.AR_Unfused(cfg)
    model.precompute("cpu", [])
    assert torch.equal(torch.nn.DataParallel(model).eval()(WAVE).detach(), load_encoder(folder)(WAVE))
    assert model.encode_frames(WAVE).shape == (2, 16, 40)
    with pytest.raises(ValueError, match=r"feature_d=2048 in EVAR's configuration, but .* has 16: change it"):
        evar.AR_Unfused(SimpleNamespace(**{**vars(cfg), "feature_d": 2048}))


def module(name, **content):
    made = ModuleType(name)
    vars(made).update(content)
    return made


def test_mteb_keeps_the_results_of_each_network_apart(folder, tmp_path, monkeypatch):
    meta = SimpleNamespace(create_empty=lambda fields: SimpleNamespace(**fields))
    for stub in (
        module("mteb"),
        module("mteb.models", ModelMeta=meta),
        module("mteb.models.abs_encoder", AbsEncoder=object),
        module("mteb.models.model_meta", ScoringFunction=SimpleNamespace(COSINE="cosine")),
    ):
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    monkeypatch.delitem(sys.modules, "unfused_ray.kits.mteb", raising=False)
    adapter = importlib.import_module("unfused_ray.kits.mteb")
    monkeypatch.delitem(sys.modules, "unfused_ray.kits.mteb")  # this module is made of stubs
    name = tmp_path / "encoder"
    (first, again), other = (
        [adapter.UnfusedModel(write_encoder(name, "fc1")).mteb_model_meta for _ in range(2)],
        adapter.UnfusedModel(write_encoder(name, "fc1", seed=1)).mteb_model_meta,
    )
    assert first.name == other.name == "unfused-ray/encoder"
    assert first.revision == again.revision != other.revision and first.revision is not None
    assert adapter.UnfusedModel(folder, "mine").mteb_model_meta.revision == "mine"
