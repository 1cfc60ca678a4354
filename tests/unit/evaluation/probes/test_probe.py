"""Each probe equals a naive reference, and is validated without the test split."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.probes.clips import Labelled, Part
from unfused_ray.evaluation.probes.few_shot import FewShotConfig, draw_clips, few_shot_scores
from unfused_ray.evaluation.probes.linear import LinearConfig
from unfused_ray.evaluation.probes.logistic import CoordinateFrame, fit_path
from unfused_ray.evaluation.probes.neighbours import NeighboursConfig, nearest_clips, neighbour_scores
from unfused_ray.evaluation.probes.probe import ProbesConfig, class_scores, probe, validate
from unfused_ray.evaluation.protocol import load_protocol

LINEAR = LinearConfig(strengths=(1e-4, 1e-2, 1.0), tolerance=1e-6, max_iterations=2000)
FEW_SHOT = FewShotConfig(clips_per_class=4, draws=3, strength=0.01, tolerance=1e-6, max_iterations=2000, seed=0)
CONFIG = ProbesConfig(folds=3, linear=LINEAR, few_shot=FEW_SHOT, neighbours=NeighboursConfig(count=5))


def make_task(
    num_clips: int = 180, dim: int = 12, num_classes: int = 3, seed: int = 0, valid: bool = True
) -> tuple[np.ndarray, Labelled]:
    """Return noisy blobs with correlated dimensions of very different scales, split in thirds."""
    rng = np.random.default_rng(seed)
    class_ids = rng.integers(num_classes, size=num_clips)
    rows = rng.standard_normal((num_classes, dim))[class_ids] + 1.5 * rng.standard_normal((num_clips, dim))
    features = (rows @ rng.standard_normal((dim, dim)) * 10 ** rng.uniform(-2, 2, dim) + 5).astype(np.float32)
    splits = np.array(["train", "valid" if valid else "train", "test"])[np.arange(num_clips) % 3]
    return features, Labelled(class_ids, splits, np.full(num_clips, ""), num_classes)


def direct(
    features: np.ndarray, labelled: Labelled, rows: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit scikit-learn from zero in all dimensions; return predictions and logits of all clips."""
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
    frame = CoordinateFrame.of(features[train])
    assert frame.coordinates(features).shape[1] == min(num_clips, dim)
    exact = LINEAR.replace(tolerance=1e-7)  # at 1e-9 rounding may keep a line search from ending
    fits = fit_path(
        frame.coordinates(features[train]),
        labelled.class_ids[train],
        LINEAR.strengths,
        exact.tolerance,
        exact.max_iterations,
    )
    for strength, fitted in zip(LINEAR.strengths, fits, strict=True):
        _, logits = direct(features, labelled, train, strength)
        assert fitted.converged
        found = fitted.model.decision_function(frame.coordinates(features))
        assert np.allclose(found, logits, atol=1e-3 * np.abs(logits).max())


def test_the_gradient_is_zero_at_the_solution() -> None:
    features, labelled = make_task(num_clips=150, dim=80)
    train = labelled.splits == "train"
    frame = CoordinateFrame.of(features[train])
    rows = frame.coordinates(features[train])
    *_, fitted = fit_path(rows, labelled.class_ids[train], [0.01, 0.1], LINEAR.tolerance, LINEAR.max_iterations)
    residuals = fitted.model.predict_proba(rows) - np.eye(3)[labelled.class_ids[train]]
    gradient = (0.1 * residuals.T @ rows + fitted.model.coef_) / (0.1 * len(rows))
    assert np.abs(gradient).max() <= LINEAR.tolerance
    assert np.abs(residuals.mean(axis=0)).max() <= LINEAR.tolerance


@pytest.mark.parametrize("dim", [12, 150])
def test_every_linear_accuracy_is_that_of_a_direct_fit(dim: int) -> None:
    features, labelled = make_task(dim=dim)
    result = probe(features, labelled, CONFIG)
    train = np.flatnonzero(labelled.splits == "train")
    right = {
        strength: direct(features, labelled, train, strength)[0] == labelled.class_ids for strength in LINEAR.strengths
    }
    expected = {strength: correct[labelled.splits == "valid"].mean() for strength, correct in right.items()}
    assert result.linear.accuracies == pytest.approx(expected)
    chosen = right[result.linear.strength]
    assert result.validation.accuracy("linear") == max(expected.values())
    assert result.linear.train_accuracy == chosen[labelled.splits == "train"].mean()
    assert np.array_equal(result.scores["linear"], chosen[labelled.splits == "test"])
    assert result.linear.converged


def test_of_equal_accuracies_the_stronger_regularisation_wins() -> None:
    class_ids = np.tile([0, 1], 30)
    features = (2.0 * class_ids - 1)[:, None]
    labelled = Labelled(class_ids, np.repeat(["train", "valid", "test"], 20), np.full(60, ""), 2)
    config = CONFIG.replace({"linear.strengths": (1.0, 1e-2)})
    assert probe(features, labelled, config).linear.strength == 1e-2


@given(
    num_known=st.integers(1, 40),
    num_asked=st.integers(0, 20),
    dim=st.integers(1, 8),
    count=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_neighbours_are_those_of_a_loop(num_known: int, num_asked: int, dim: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((num_known + num_asked, dim)) * 10 ** rng.uniform(-2, 2, dim) + 5).astype(np.float32)
    classes = rng.integers(3, size=len(rows))
    part = Part(np.arange(num_known), np.arange(num_known, len(rows)))
    nearest = nearest_clips(rows, part, count)
    found = neighbour_scores(classes, part, nearest)
    known = rows[part.fitting].astype(np.float64)
    spread = known.std(0)
    scaled = (rows - known.mean(0)) / np.where(spread > 1e-12 * np.abs(known.mean(0)), spread, 1.0)
    for row, share, mine in zip(part.held, found, nearest, strict=True):
        cosines = [
            scaled[row] @ scaled[other] / (np.linalg.norm(scaled[row]) * np.linalg.norm(scaled[other]) or 1.0)
            for other in part.fitting
        ]
        order = np.argsort(cosines)[::-1]
        if len(order) > count and cosines[order[count - 1]] - cosines[order[count]] < 1e-5:
            continue  # either of two equally near clips may count
        assert share == pytest.approx((classes[order[:count]] == classes[row]).mean())
        assert np.array(cosines)[mine].tolist() == pytest.approx(np.sort(cosines)[::-1][:count].tolist(), abs=1e-5)


def test_nearness_is_that_of_standardised_vectors_and_does_not_depend_on_their_length() -> None:
    features, labelled = make_task()
    part = Part(np.flatnonzero(labelled.splits == "train"), np.flatnonzero(labelled.splits == "test"))
    before = neighbour_scores(labelled.class_ids, part, nearest_clips(features, part, 5))
    moved = features * np.array([10.0**power for power in range(-6, 6)], np.float32) + 3
    np.testing.assert_allclose(
        neighbour_scores(labelled.class_ids, part, nearest_clips(moved, part, 5)), before, atol=0.21
    )  # rounding in float32 changes a few ranks
    assert before.mean() > 0.4


def test_few_shot_is_the_mean_of_direct_fits_on_a_few_clips_of_each_class() -> None:
    features, labelled = make_task(dim=40)
    train, test = (np.flatnonzero(labelled.splits == split) for split in ("train", "test"))
    class_ids = labelled.class_ids
    drawn: list[np.ndarray] = []

    class Watched(LogisticRegression):
        def fit(self, rows: np.ndarray, classes: np.ndarray) -> LogisticRegression:
            drawn.append(classes)
            return super().fit(rows, classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unfused_ray.evaluation.probes.logistic.LogisticRegression", Watched)
        found = few_shot_scores(features, class_ids, Part(train, test), FEW_SHOT)
    assert [np.bincount(classes).tolist() for classes in drawn] == [[4, 4, 4]] * FEW_SHOT.draws
    scaler = StandardScaler().fit(features[train].astype(np.float64))
    scaled = scaler.transform(features.astype(np.float64))
    right = np.zeros(len(test))
    for draw in range(FEW_SHOT.draws):
        rows = draw_clips(class_ids, train, FEW_SHOT, draw)
        assert set(rows) <= set(train)
        assert len(set(rows)) == len(rows)
        model = LogisticRegression(C=0.01, tol=1e-9, max_iter=10_000).fit(scaled[rows], class_ids[rows])
        right += model.predict(scaled[test]) == class_ids[test]
    np.testing.assert_allclose(found.right, right / FEW_SHOT.draws)
    assert found.num_unconverged == 0


def test_draws_are_the_same_for_every_system_and_differ_from_each_other() -> None:
    class_ids, fitting = np.arange(60) % 3, np.arange(10, 50)
    draws = [tuple(draw_clips(class_ids, fitting, FEW_SHOT, draw)) for draw in range(20)]
    assert len(set(draws)) == 20
    assert draws == [tuple(draw_clips(class_ids, fitting, FEW_SHOT, draw)) for draw in range(20)]
    assert draws[0] != tuple(draw_clips(class_ids, fitting, FEW_SHOT.replace(seed=1), 0))
    few = np.where(np.arange(60) < 12, 1, 0)
    assert sorted(few[list(draw_clips(few, fitting, FEW_SHOT, 0))]) == [0] * 4 + [1] * 2  # a class of two gives both


@given(st.sets(st.integers(0, 59), max_size=20))
@settings(max_examples=30)
def test_a_damaged_clip_is_replaced_in_a_draw_and_no_other_changes(damaged: set[int]) -> None:
    class_ids, fitting = np.arange(60) % 3, np.arange(60)
    whole = np.array([clip for clip in fitting if clip not in damaged])
    for draw in range(3):
        before, after = (set(draw_clips(class_ids, rows, FEW_SHOT, draw).tolist()) for rows in (fitting, whole))
        assert before - damaged <= after
        assert np.bincount(class_ids[list(after)], minlength=3).tolist() == [
            min(FEW_SHOT.clips_per_class, int((class_ids[whole] == class_id).sum())) for class_id in range(3)
        ]


def test_the_headline_is_the_mean_of_neighbours_and_few_shot() -> None:
    features, labelled = make_task()
    result = probe(features, labelled, CONFIG)
    for scores in (result.scores, result.validation.scores):
        assert tuple(scores) == MEASURES
        np.testing.assert_allclose(scores["headline"], (scores["neighbours"] + scores["few-shot"]) / 2)


def test_no_choice_and_no_validation_sees_the_test_split() -> None:
    features, labelled = make_task()
    test = labelled.splits == "test"
    shuffled_ids = labelled.class_ids.copy()
    shuffled_ids[test] = (shuffled_ids[test] + 1) % 3
    shuffled = Labelled(shuffled_ids, labelled.splits, labelled.groups, 3)
    before, after = (probe(features, known, CONFIG) for known in (labelled, shuffled))
    assert np.array_equal(before.linear.predictions, after.linear.predictions)
    moved = features.copy()
    moved[test] += 100
    for other in (after, probe(moved, labelled, CONFIG)):
        assert other.linear.accuracies == before.linear.accuracies
        for measure in MEASURES:
            np.testing.assert_array_equal(other.validation.scores[measure], before.validation.scores[measure])


def test_without_a_valid_split_no_group_is_fitted_and_scored() -> None:
    num_groups, size = 60, 4  # a group is a point with a random class, known only from training on it
    rng = np.random.default_rng(0)
    class_ids = np.repeat(rng.integers(2, size=num_groups), size)
    features = np.repeat(rng.standard_normal((num_groups, 100)), size, axis=0)
    groups = np.repeat(np.arange(num_groups).astype(str), size)
    splits = np.where(np.arange(len(groups)) < 200, "train", "test")
    apart = validate(features, Labelled(class_ids, splits, groups, 2), CONFIG)
    torn = validate(features, Labelled(class_ids, splits, np.full(len(groups), ""), 2), CONFIG)
    for measure in ("linear", "neighbours"):
        assert apart.accuracy(measure) < 0.75
    assert torn.accuracy("linear") > 0.95
    assert torn.accuracy("neighbours") > apart.accuracy("neighbours") + 0.1


def test_a_few_shot_fit_that_did_not_converge_is_counted() -> None:
    features, labelled = make_task(dim=40)
    hasty = CONFIG.replace({"few_shot.max_iterations": 2, "few_shot.strength": 10.0})
    result = probe(features, labelled, hasty)
    assert result.num_unconverged == result.to_json()["few_shot"]["num_unconverged"] == FEW_SHOT.draws
    assert probe(features, labelled, CONFIG).num_unconverged == 0


def test_without_a_valid_split_a_class_of_one_group_is_not_asked_about() -> None:
    """If held out, its clips would have a class without training clips, and every strength would be wrong on them."""
    features, labelled = make_task(valid=False)
    train = labelled.splits == "train"
    alone = np.where(train & (labelled.class_ids == 2), "the only one", np.arange(len(train)).astype(str))
    result = validate(features, Labelled(labelled.class_ids, labelled.splits, alone, 3), CONFIG)
    assert sorted(result.clips) == np.flatnonzero(train & (labelled.class_ids != 2)).tolist()
    none = np.where(train, labelled.class_ids.astype(str), "test")
    with pytest.raises(
        ValueError, match="no class has a second group left to learn from: give valid clips, or smaller"
    ):
        validate(features, Labelled(labelled.class_ids, labelled.splits, none, 3), CONFIG)
    few = Labelled(np.arange(9) // 2, np.repeat("train", 9), np.full(9, ""), 5)
    with pytest.raises(
        ValueError, match="3 folds that are held out in turn need as many clips of a class, the largest has 2"
    ):
        validate(features[:9], few, CONFIG)


def test_without_a_valid_split_the_choice_is_fitted_again_on_all_of_train() -> None:
    features, labelled = make_task(valid=False)
    result = probe(features, labelled, CONFIG)
    predicted, _ = direct(features, labelled, np.flatnonzero(labelled.splits == "train"), result.linear.strength)
    assert np.array_equal(result.linear.predictions, predicted[labelled.splits == "test"])


def test_damaged_clips_are_left_out_of_train_and_valid_and_wrong_in_test() -> None:
    features, labelled = make_task()
    damaged = np.zeros(len(features), bool)
    damaged[[150, 151, 152, 177, 178, 179]] = True  # two of each split, behind the clips drawn first
    broken = np.where(damaged[:, None], np.nan, features)
    keep = ~damaged
    whole = Labelled(labelled.class_ids[keep], labelled.splits[keep], labelled.groups[keep], 3)
    result, expected = probe(broken, labelled, CONFIG), probe(features[keep], whole, CONFIG)
    assert result.num_damaged == 6
    assert result.linear.accuracies == expected.linear.accuracies
    lost = damaged[labelled.splits == "test"]
    assert (result.linear.predictions[lost] == -1).all()
    assert np.array_equal(result.linear.predictions[~lost], expected.linear.predictions)
    for measure in MEASURES:
        assert not result.scores[measure][lost].any()
    for measure in ("linear", "neighbours"):  # few-shot draws depend on clip numbers
        np.testing.assert_array_equal(result.scores[measure][~lost], expected.scores[measure])


def test_of_damaged_test_clips_alone_all_are_wrong() -> None:
    features, labelled = make_task()
    features[labelled.splits == "test"] = np.nan
    result = probe(features, labelled, CONFIG)
    assert (result.linear.predictions == -1).all()
    for measure in MEASURES:
        assert result.scores[measure].tolist() == [0.0] * 60
        assert result.validation.accuracy(measure) > 0.4


def test_valid_clips_that_are_all_damaged_are_not_replaced_by_clips_of_train() -> None:
    features, labelled = make_task()
    features[labelled.splits == "valid"] = np.nan
    for scored in (probe, validate):
        with pytest.raises(ValueError, match="all 60 valid clips are damaged, and a probe needs some"):
            scored(features, labelled, CONFIG)
    assert set(labelled.splits[validate(features, labelled, CONFIG, by_folds=True).clips]) == {"train"}


def test_a_class_missing_in_train_is_never_predicted() -> None:
    features, labelled = make_task()
    splits = np.where(labelled.class_ids == 2, "test", labelled.splits)
    result = probe(features, Labelled(labelled.class_ids, splits, labelled.groups, 4), CONFIG)
    assert set(result.linear.predictions.tolist()) == {0, 1}
    assert result.classes.recall[2] == 0
    assert result.classes.support[2] == (labelled.class_ids == 2).sum()


def test_a_fit_that_ends_early_is_said_to_not_have_converged(caplog: pytest.LogCaptureFixture) -> None:
    features, labelled = make_task()
    config = CONFIG.replace({"linear.max_iterations": 1, "linear.strengths": (1.0,)})
    with caplog.at_level(logging.WARNING):
        result = probe(features, labelled, config)
    assert not result.linear.converged
    assert "has not converged in 1 iterations" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": np.full(180, "test")}, "not 0 train and 180 test clips"),
        ({"splits": np.full(180, "train")}, "0 test clips"),
        ({"class_ids": np.zeros(180, int)}, "one class"),
        ({"class_ids": np.full(180, 3)}, "class 3, not 0 to 2"),
        (
            {"groups": np.full(180, "a"), "splits": np.repeat(["train", "test"], 90)},
            "3 folds that are held out in turn need as many groups",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused_in_words(change: dict[str, np.ndarray], message: str) -> None:
    features, labelled = make_task()
    with pytest.raises(ValueError, match=message):
        probe(features, Labelled(**(vars(labelled) | change)), CONFIG)


def test_scores_count_a_damaged_clip_as_wrong() -> None:
    scores = class_scores(np.array([0, 0, 1, 1, 2]), np.array([0, -1, 1, 0, -1]), 4)
    assert scores.precision.tolist() == [0.5, 1, 0, 0]
    assert scores.recall.tolist() == [0.5, 0.5, 0, 0]
    assert np.allclose(scores.f1, [0.5, 2 / 3, 0, 0])
    assert scores.support.tolist() == [2, 2, 1, 0]
    assert scores.confusion.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_result_as_json_holds_everything() -> None:
    features, labelled = make_task()
    result = probe(features, labelled, CONFIG)
    written = json.loads(json.dumps(result.to_json()))
    assert written["linear"]["predictions"] == result.linear.predictions.tolist()
    assert written["classes"]["confusion"] == result.classes.confusion.tolist()
    assert len(written["linear"]["accuracies"]) == len(LINEAR.strengths)
    assert written["scores"]["headline"] == result.scores["headline"].tolist()
    assert written["validation"]["clips"] == result.validation.clips.tolist()


def test_validation_holds_the_valid_clips_out_and_needs_no_test_clips() -> None:
    features, labelled = make_task()
    result = probe(features, labelled, CONFIG)
    seen = labelled.splits != "test"
    without = Labelled(labelled.class_ids[seen], labelled.splits[seen], labelled.groups[seen], labelled.num_classes)
    found = validate(features[seen], without, CONFIG)
    np.testing.assert_array_equal(found.clips, np.flatnonzero(without.splits == "valid"))
    for measure in ("linear", "neighbours"):
        np.testing.assert_array_equal(found.scores[measure], result.validation.scores[measure])


def test_validation_by_folds_holds_every_clip_of_train_and_valid_out_once() -> None:
    features, labelled = make_task()
    found = validate(features, labelled, CONFIG, by_folds=True)
    np.testing.assert_array_equal(np.sort(found.clips), np.flatnonzero(labelled.splits != "test"))
    for measure in MEASURES:
        assert found.scores[measure].shape == found.clips.shape


def test_the_protocol_of_the_package_has_the_published_values() -> None:
    config = load_protocol().config
    assert config.readout == "last"
    assert config.probes.neighbours.count == 10
    assert (config.probes.few_shot.clips_per_class, config.probes.few_shot.draws) == (8, 20)
