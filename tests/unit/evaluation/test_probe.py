"""The linear probe: the same layer as a direct fit, chosen by validation, blind to the test split."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from unfused_ray.evaluation.logistic import Frame, fit_path
from unfused_ray.evaluation.probe import Labelled, ProbeConfig, class_scores, linear_probe, validate

CONFIG = ProbeConfig(strengths=(1e-4, 1e-2, 1.0), tolerance=1e-6, max_iterations=2000, folds=3)


def make_task(
    num_clips: int = 180, dim: int = 12, num_classes: int = 3, seed: int = 0, valid: bool = True
) -> tuple[np.ndarray, Labelled]:
    """Noisy blobs with correlated dimensions of very different scales, split in thirds."""
    rng = np.random.default_rng(seed)
    class_ids = rng.integers(num_classes, size=num_clips)
    rows = rng.standard_normal((num_classes, dim))[class_ids] + 1.5 * rng.standard_normal((num_clips, dim))
    features = (rows @ rng.standard_normal((dim, dim)) * 10 ** rng.uniform(-2, 2, dim) + 5).astype(np.float32)
    splits = np.array(["train", "valid" if valid else "train", "test"])[np.arange(num_clips) % 3]
    return features, Labelled(class_ids, splits, np.full(num_clips, ""), num_classes)


def direct(
    features: np.ndarray, labelled: Labelled, rows: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and logits of all clips by scikit-learn alone, from zero, in all dimensions."""
    scaled = StandardScaler().fit(features[rows].astype(np.float64)).transform(features.astype(np.float64))
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(scaled[rows], labelled.class_ids[rows])
    return model.predict(scaled), model.decision_function(scaled)


@given(num_clips=st.integers(20, 60), dim=st.integers(2, 100), num_classes=st.integers(2, 4), seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_span_of_the_clips_gives_the_fit_of_all_dimensions(
    num_clips: int, dim: int, num_classes: int, seed: int
) -> None:
    features, labelled = make_task(3 * num_clips, dim, num_classes, seed)
    train = np.flatnonzero(labelled.splits == "train")
    frame = Frame.of(features[train])
    assert frame.coordinates(features).shape[1] == min(num_clips, dim)
    exact = CONFIG.replace(tolerance=1e-7)  # of 1e-9 rounding may keep a line search from its end
    fits = fit_path(
        frame.coordinates(features[train]),
        labelled.class_ids[train],
        CONFIG.strengths,
        exact.tolerance,
        exact.max_iterations,
    )
    for strength, fitted in zip(CONFIG.strengths, fits, strict=True):
        _, logits = direct(features, labelled, train, strength)
        assert fitted.converged
        found = fitted.model.decision_function(frame.coordinates(features))
        assert np.allclose(found, logits, atol=1e-3 * np.abs(logits).max())


def test_the_gradient_is_zero_at_the_solution() -> None:
    features, labelled = make_task(num_clips=150, dim=80)
    train = labelled.splits == "train"
    frame = Frame.of(features[train])
    rows = frame.coordinates(features[train])
    *_, fitted = fit_path(rows, labelled.class_ids[train], [0.01, 0.1], CONFIG.tolerance, CONFIG.max_iterations)
    residuals = fitted.model.predict_proba(rows) - np.eye(3)[labelled.class_ids[train]]
    gradient = (0.1 * residuals.T @ rows + fitted.model.coef_) / (0.1 * len(rows))
    assert np.abs(gradient).max() <= CONFIG.tolerance
    assert np.abs(residuals.mean(axis=0)).max() <= CONFIG.tolerance


@pytest.mark.parametrize("dim", [12, 150])
def test_every_accuracy_is_that_of_a_direct_fit(dim: int) -> None:
    features, labelled = make_task(dim=dim)
    readouts = {"narrow": features[:, :6], "wide": features}
    result = linear_probe(readouts, labelled, CONFIG)
    right = {
        (name, strength): direct(x, labelled, np.flatnonzero(labelled.splits == "train"), strength)[0]
        == labelled.class_ids
        for name, x in readouts.items()
        for strength in CONFIG.strengths
    }
    expected = {choice: correct[labelled.splits == "valid"].mean() for choice, correct in right.items()}
    assert result.validation_accuracies == pytest.approx(expected)
    chosen = right[result.readout, result.strength]
    assert result.validation_accuracy == max(expected.values())
    assert result.train_accuracy == chosen[labelled.splits == "train"].mean()
    assert result.test_accuracy == chosen[labelled.splits == "test"].mean()
    assert result.converged


def test_of_equal_accuracies_the_stronger_regularisation_then_the_first_readout_wins() -> None:
    class_ids = np.tile([0, 1], 30)
    features = (2.0 * class_ids - 1)[:, None]
    labelled = Labelled(class_ids, np.repeat(["train", "valid", "test"], 20), np.full(60, ""), 2)
    config = CONFIG.replace(strengths=(1.0, 1e-2))
    result = linear_probe({"b": features, "a": features}, labelled, config)
    assert (result.readout, result.strength) == ("b", 1e-2)
    noise = np.random.default_rng(0).standard_normal((60, 1))
    assert linear_probe({"noise": noise, "a": features}, labelled, config).readout == "a"


def test_the_choice_does_not_see_the_test_split() -> None:
    features, labelled = make_task()
    test = labelled.splits == "test"
    shuffled_ids = labelled.class_ids.copy()
    shuffled_ids[test] = (shuffled_ids[test] + 1) % 3
    shuffled = Labelled(shuffled_ids, labelled.splits, labelled.groups, 3)
    before, after = (linear_probe({"x": features}, known, CONFIG) for known in (labelled, shuffled))
    assert np.array_equal(before.predictions, after.predictions)
    assert (before.strength, before.validation_accuracies) == (after.strength, after.validation_accuracies)
    moved = features.copy()
    moved[test] += 100
    assert linear_probe({"x": moved}, labelled, CONFIG).validation_accuracies == before.validation_accuracies


def test_without_a_valid_split_no_group_is_fitted_and_scored() -> None:
    num_groups, size = 60, 4  # a group is one point: who has seen it in training knows its class, which is random
    rng = np.random.default_rng(0)
    class_ids = np.repeat(rng.integers(2, size=num_groups), size)
    features = np.repeat(rng.standard_normal((num_groups, 100)), size, axis=0)
    groups = np.repeat(np.arange(num_groups).astype(str), size)
    splits = np.where(np.arange(len(groups)) < 200, "train", "test")
    apart = linear_probe({"x": features}, Labelled(class_ids, splits, groups, 2), CONFIG)
    torn = linear_probe({"x": features}, Labelled(class_ids, splits, np.full(len(groups), ""), 2), CONFIG)
    assert max(apart.validation_accuracies.values()) < 0.75
    assert torn.validation_accuracy > 0.95


def test_without_a_valid_split_the_choice_is_fitted_again_on_all_of_train() -> None:
    features, labelled = make_task(valid=False)
    result = linear_probe({"x": features}, labelled, CONFIG)
    predicted, _ = direct(features, labelled, np.flatnonzero(labelled.splits == "train"), result.strength)
    assert np.array_equal(result.predictions, predicted[labelled.splits == "test"])


def test_damaged_clips_are_left_out_of_train_and_valid_and_wrong_in_test() -> None:
    features, labelled = make_task()
    damaged = np.zeros(len(features), bool)
    damaged[[0, 1, 2, 30, 31, 32]] = True  # two of each split
    broken = np.where(damaged[:, None], np.nan, features)
    keep = ~damaged
    whole = Labelled(labelled.class_ids[keep], labelled.splits[keep], labelled.groups[keep], 3)
    result, expected = linear_probe({"x": broken}, labelled, CONFIG), linear_probe({"x": features[keep]}, whole, CONFIG)
    assert result.validation_accuracies == expected.validation_accuracies
    lost = damaged[labelled.splits == "test"]
    assert (result.predictions[lost] == -1).all()
    assert np.array_equal(result.predictions[~lost], expected.predictions)
    assert result.test_accuracy == pytest.approx(expected.test_accuracy * 58 / 60)


def test_a_class_missing_in_train_is_never_predicted() -> None:
    features, labelled = make_task()
    splits = np.where(labelled.class_ids == 2, "test", labelled.splits)
    result = linear_probe({"x": features}, Labelled(labelled.class_ids, splits, labelled.groups, 4), CONFIG)
    assert set(result.predictions.tolist()) == {0, 1}
    assert result.scores.recall[2] == 0
    assert result.scores.support[2] == (labelled.class_ids == 2).sum()


def test_a_fit_that_ends_early_is_said_to_not_have_converged(caplog: pytest.LogCaptureFixture) -> None:
    features, labelled = make_task()
    config = CONFIG.replace(max_iterations=1, strengths=(1.0,))
    with caplog.at_level(logging.WARNING):
        result = linear_probe({"x": features}, labelled, config)
    assert not result.converged
    assert "ended after 1 iterations" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": np.full(180, "test")}, "0 whole train"),
        ({"splits": np.full(180, "train")}, "0 test clips"),
        ({"class_ids": np.zeros(180, int)}, "one class"),
        ({"class_ids": np.full(180, 3)}, "class 3, not 0 to 2"),
        ({"groups": np.full(180, "a"), "splits": np.repeat(["train", "test"], 90)}, "3 folds need as many groups"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_words(change: dict[str, np.ndarray], message: str) -> None:
    features, labelled = make_task()
    with pytest.raises(ValueError, match=message):
        linear_probe({"x": features}, Labelled(**(vars(labelled) | change)), CONFIG)


def test_scores_count_a_damaged_clip_as_wrong() -> None:
    scores = class_scores(np.array([0, 0, 1, 1, 2]), np.array([0, -1, 1, 0, -1]), 4)
    assert scores.precision.tolist() == [0.5, 1, 0, 0]
    assert scores.recall.tolist() == [0.5, 0.5, 0, 0]
    assert np.allclose(scores.f1, [0.5, 2 / 3, 0, 0])
    assert scores.support.tolist() == [2, 2, 1, 0]
    assert scores.confusion.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_result_as_json_holds_everything() -> None:
    features, labelled = make_task()
    result = linear_probe({"x": features}, labelled, CONFIG)
    written = json.loads(json.dumps(result.to_json()))
    assert written["predictions"] == result.predictions.tolist()
    assert written["scores"]["confusion"] == result.scores.confusion.tolist()
    assert len(written["validation_accuracies"]) == len(CONFIG.strengths)
    assert written["strength"] == result.strength


def test_validation_holds_the_valid_clips_out_and_needs_no_test_clips() -> None:
    features, labelled = make_task()
    result = linear_probe({"x": features}, labelled, CONFIG)
    seen = labelled.splits != "test"
    without = Labelled(labelled.class_ids[seen], labelled.splits[seen], labelled.groups[seen], labelled.num_classes)
    chosen = validate({"x": features[seen]}, without, CONFIG)
    assert (chosen.readout, chosen.strength) == (result.readout, result.strength)
    assert chosen.accuracies == result.validation_accuracies
    assert chosen.accuracy == chosen.correct.mean()
    np.testing.assert_array_equal(chosen.clips, np.flatnonzero(without.splits == "valid"))


def test_validation_by_folds_holds_every_clip_of_train_and_valid_out_once() -> None:
    features, labelled = make_task()
    chosen = validate({"x": features}, labelled, CONFIG, by_folds=True)
    np.testing.assert_array_equal(np.sort(chosen.clips), np.flatnonzero(labelled.splits != "test"))
    assert chosen.correct.shape == chosen.clips.shape
