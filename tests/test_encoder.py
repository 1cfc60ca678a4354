"""The encoder against a plain reference in the paper's order, its sizes, and its ways in and out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfused_ray.config import EncoderConfig
from unfused_ray.models.encoder import AudioNTT2020, flatten_bands, max_mean

SMALL = EncoderConfig(channels=4, width=12)


def small_encoder(seed: int = 0) -> AudioNTT2020:
    torch.manual_seed(seed)
    encoder = AudioNTT2020(SMALL, num_mels=16)
    for block in encoder.conv:  # scales of both signs: ReLU and pooling must commute for these too
        nn.init.normal_(block[1].weight)
        nn.init.normal_(block[1].bias)
    return encoder


def log_mels(batch: int = 6, bands: int = 16, frames: int = 43) -> torch.Tensor:
    return torch.randn(batch, bands, frames, generator=torch.Generator().manual_seed(1))


def reference(encoder: AudioNTT2020, log_mel: torch.Tensor, training: bool) -> torch.Tensor:
    """Convolution, batch norm, ReLU, max pool; then per frame, in loops."""
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


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_embeddings_and_gradients_equal_the_reference(training):
    encoder = small_encoder().train(training)
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


def test_sizes_are_the_papers():
    encoder = AudioNTT2020(EncoderConfig(), num_mels=64)
    count = [sum(p.numel() for p in block.parameters()) for block in encoder.conv]
    assert [sum(count[:exit]) for exit in (1, 2, 3)] == [768, 37_824, 74_880]
    assert sum(count) + sum(p.numel() for p in encoder.fc1.parameters()) == 1_125_504
    assert sum(p.numel() for p in encoder.parameters()) == 5_321_856
    narrow = AudioNTT2020(EncoderConfig(width=1024), num_mels=64)
    assert sum(p.numel() for p in narrow.parameters()) == 1_649_792


def test_shapes_of_the_stages():
    encoder = AudioNTT2020(EncoderConfig(), num_mels=64)
    blocks = encoder.blocks(torch.randn(2, 64, 96))
    assert [tuple(block.shape) for block in blocks] == [(2, 64, 32, 48), (2, 64, 16, 24), (2, 64, 8, 12)]
    assert [flatten_bands(block).mean(1).shape[1] for block in blocks] == [2048, 1024, 512]
    hidden = encoder.hidden(blocks[-1])
    assert hidden.shape == encoder.frames(hidden).shape == (2, 12, 2048)
    assert max_mean(hidden).shape == (2, 2048)


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
