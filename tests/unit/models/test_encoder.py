"""The encoder equals a plain reference in the paper's order; its shapes, layers, cuts and refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfused_ray.config import EncoderConfig
from unfused_ray.models.encoder import LAYERS, AudioNTT2020, flatten_bands
from unfused_ray.models.kernels import max_mean

SMALL = EncoderConfig(channels=4, width=12)


def small_encoder(seed: int = 0, lowest: float = -1.0) -> AudioNTT2020:
    torch.manual_seed(seed)
    encoder = AudioNTT2020(SMALL, num_mels=16)
    for block in encoder.conv:  # by default scales of both signs: ReLU and pooling must still commute
        nn.init.uniform_(block[1].weight, lowest, 2.0)
        nn.init.normal_(block[1].bias)
    return encoder


def log_mels(batch: int = 6, bands: int = 16, frames: int = 43) -> torch.Tensor:
    return torch.randn(batch, bands, frames, generator=torch.Generator().manual_seed(1))


def reference(encoder: AudioNTT2020, log_mel: torch.Tensor, training: bool) -> torch.Tensor:
    """Compute convolution, batch norm, ReLU and max pool, then the layers per frame, in loops."""
    x = log_mel[:, None]
    for convolution, norm, *_ in encoder.conv:
        x = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
        statistics = (None, None) if training else (norm.running_mean, norm.running_var)
        x = F.max_pool2d(F.relu(F.batch_norm(x, *statistics, norm.weight, norm.bias, training=training)), 2)
    embeddings = []
    for clip in x:
        frames = []
        for t in range(clip.shape[2]):
            frame = torch.stack([clip[c, f, t] for f in range(clip.shape[1]) for c in range(clip.shape[0])])
            frames.append(F.relu(encoder.fc2(F.relu(encoder.fc1(frame)))))
        stacked = torch.stack(frames)
        embeddings.append(stacked.max(0).values + stacked.sum(0) / len(frames))
    return torch.stack(embeddings)


@pytest.mark.parametrize("lowest", [0.1, -1.0], ids=["positive scales", "both signs"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_embeddings_and_gradients_equal_the_reference(training, lowest):
    encoder = small_encoder(lowest=lowest).train(training)
    encoder.config = EncoderConfig(channels=4, width=12, dropout=0.0)
    ours, theirs = encoder(log_mels()), reference(encoder, log_mels(), training)
    torch.testing.assert_close(ours, theirs)
    parameters = list(encoder.parameters())
    weights = torch.sin(torch.arange(ours.numel())).reshape(ours.shape)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weights).sum(), parameters),
        torch.autograd.grad((theirs * weights).sum(), parameters),
        rtol=1e-4,
        atol=1e-5,
    )


def test_shapes_of_the_stages():
    encoder = AudioNTT2020(EncoderConfig(), num_mels=64)
    blocks = encoder.blocks(torch.randn(2, 64, 96))
    assert [tuple(block.shape) for block in blocks] == [(2, 64, 32, 48), (2, 64, 16, 24), (2, 64, 8, 12)]
    assert [flatten_bands(block).mean(1).shape[1] for block in blocks] == [2048, 1024, 512]
    hidden = encoder.hidden(blocks[-1])
    assert hidden.shape == encoder.frames(hidden).shape == (2, 12, 2048)
    assert max_mean(hidden).shape == (2, 2048)


def layers_by_hand(encoder: AudioNTT2020, log_mel: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute maximum plus mean over time of every layer, module by module."""
    x, frames = log_mel[:, None], {}
    for number, block in enumerate(encoder.conv, start=1):
        x = block(x)
        frames[f"block{number}"] = x.transpose(1, 2).flatten(1, 2).transpose(1, 2)
    frames["fc1"] = F.relu(encoder.fc1(frames["block3"]))
    frames["fc2"] = F.relu(encoder.fc2(frames["fc1"]))
    return {layer: value.max(1).values + value.mean(1) for layer, value in frames.items()}


def test_every_layer_gives_a_clip_embedding():
    encoder = small_encoder().eval()
    layers = encoder.layers(log_mels())
    assert tuple(layers) == LAYERS
    assert [vectors.shape[1] for vectors in layers.values()] == [4 * 8, 4 * 4, 4 * 2, 12, 12]
    torch.testing.assert_close(layers, layers_by_hand(encoder, log_mels()))
    assert torch.equal(layers["fc2"], encoder(log_mels()))


@pytest.mark.parametrize("cut", LAYERS)
def test_a_truncated_network_gives_the_same_layers_and_ends_with_the_cut(cut):
    encoder = small_encoder().eval()
    for block in encoder.conv:
        nn.init.uniform_(block[1].running_var, 0.5, 2)
    random_state = torch.get_rng_state()
    beginning = encoder.truncated(cut)
    assert torch.equal(torch.get_rng_state(), random_state)
    beginning.eval()
    whole, layers = encoder.layers(log_mels()), beginning.layers(log_mels())
    assert tuple(layers) == LAYERS[: LAYERS.index(cut) + 1]
    assert all(torch.equal(layers[layer], whole[layer]) for layer in layers)
    assert torch.equal(beginning(log_mels()), whole[cut])
    assert (beginning.config.cut, beginning.dim) == (cut, whole[cut].shape[1])
    blocks = [vectors.shape[1] for layer, vectors in layers.items() if layer.startswith("block")]
    assert (list(beginning.block_dims), beginning.frame_step) == (blocks, 2 ** len(blocks))
    assert beginning.frames(beginning.hidden(beginning.blocks(log_mels())[-1])).shape[2] == beginning.dim
    with torch.no_grad():  # it is a copy: later training does not change it
        next(encoder.parameters()).zero_()
    assert torch.equal(beginning(log_mels()), whole[cut])


def test_a_network_cannot_be_cut_behind_its_end():
    with pytest.raises(ValueError, match="cut=fc1 is not in a network that ends with block2"):
        small_encoder().truncated("block2").truncated("fc1")


def test_a_shallow_network_takes_fewer_frames():
    beginning = small_encoder().truncated("block1").eval()
    assert beginning(torch.zeros(1, 16, 2)).shape == (1, 32)
    with pytest.raises(ValueError, match="16 bands, 2 frames or more"):
        beginning(torch.zeros(1, 16, 1))


def test_block_features_are_ordered_by_band_then_channel():
    block = torch.randn(2, 4, 3, 5)
    features = flatten_bands(block)
    assert features.shape == (2, 5, 12)
    for band in range(3):
        torch.testing.assert_close(features[:, :, band * 4 : band * 4 + 4], block[:, :, band].transpose(1, 2))


def test_one_trunk_gives_features_with_and_without_dropout():
    encoder = small_encoder().train()
    hidden = encoder.hidden(encoder.blocks(log_mels())[-1])
    clean = encoder.frames(hidden, dropout=False)
    assert not torch.equal(encoder.frames(hidden), clean)
    torch.testing.assert_close(clean, F.relu(encoder.fc2(hidden)))
    encoder.eval()
    torch.testing.assert_close(encoder.frames(hidden), clean, atol=0, rtol=0)


def test_dropout_follows_torchs_seed():
    encoder = small_encoder().train()
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(encoder(log_mels()))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_weights_depend_on_the_seed_alone():
    one, same, other = small_encoder(3), small_encoder(3), small_encoder(4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.fc1.weight, other.fc1.weight)


def test_in_evaluation_a_clips_embedding_does_not_depend_on_its_batch():
    encoder = small_encoder().eval()
    together = encoder(log_mels())
    for i, log_mel in enumerate(log_mels()):
        torch.testing.assert_close(encoder(log_mel[None])[0], together[i])


@pytest.mark.parametrize("shape", [(2, 15, 40), (2, 16, 7), (2, 1, 16, 40)])
def test_log_mels_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"16 bands, 8 frames or more"):
        small_encoder()(torch.zeros(shape))


def test_bands_that_cannot_be_halved_three_times_are_refused():
    with pytest.raises(ValueError, match="num_mels=60 must be a multiple of 8"):
        AudioNTT2020(EncoderConfig(), num_mels=60)
