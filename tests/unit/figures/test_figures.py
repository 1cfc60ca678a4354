"""Drawings hold the values they were given, read back from matplotlib's artists and not from pixels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from unfused_ray.config import FrontEndConfig, Measure
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.rows import Row
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.figures.accuracies import draw_by_operations, draw_by_parameters, draw_evaluation, draw_table
from unfused_ray.figures.canvas import save, to_svg
from unfused_ray.figures.confusion import draw_confusion
from unfused_ray.figures.curves import draw_curves, draw_health
from unfused_ray.figures.map import Grouping, by_class, draw_map
from unfused_ray.figures.metrics import Metric
from unfused_ray.figures.nearest import NearestRow, draw_nearest
from unfused_ray.figures.spectrograms import SheetRow, draw_sheet
from unfused_ray.figures.sweep import Parameter, ScoredTrials, draw_parallel, draw_parameter_map
from unfused_ray.figures.watched import draw_watched, panels
from unfused_ray.runs.watched import WatchedCurve


def test_every_panel_draws_its_figure_of_the_history() -> None:
    history = [{"epoch": 0.0, "loss": 1.6}, {"epoch": 1.0, "loss": 1.2, "nmi": 0.75}]
    panels = [
        Metric("loss", "Loss", "falls"),
        Metric("nmi", "Stability", ""),
        Metric("x", "X", ""),
    ]
    loss, nmi, other = draw_health("run", history, panels).axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 1.6], [2, 1.2]])
    np.testing.assert_array_equal(nmi.lines[0].get_xydata(), [[2, 0.75]])
    assert loss.get_title(loc="left").strip() == "Loss" and loss.texts[0].get_text() == "falls"
    assert not other.lines
    assert loss.get_xlim() == nmi.get_xlim() == other.get_xlim()


def test_a_panel_has_a_curve_for_each_head() -> None:
    history = [{"epoch": 3.0, "head0/inertia": 1.0, "head1/inertia": 2.0}]
    (axis,) = draw_health("run", history, [Metric("inertia", "inertia", "")]).axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[4, 1]], [[4, 2]]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["head0", "head1"]


def test_map_draws_every_point_once_in_each_panel() -> None:
    positions = np.random.default_rng(0).standard_normal((40, 2))
    ids = np.arange(40) % 21 - 1
    grouping = Grouping("by label", ids, [f"label {i}" for i in range(20)], "others")
    figure = draw_map("run", positions, [grouping, grouping])
    assert len(figure.axes) == 2
    for axis in figure.axes:
        drawn = np.concatenate([points.get_offsets() for points in axis.collections])
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(positions, axis=0))
        looks = {(*points.get_facecolor()[0], points.get_paths()[0].vertices.shape) for points in axis.collections}
        assert len(looks) == 21


def test_a_title_that_is_longer_than_its_picture_is_folded() -> None:
    title = "150 test clips of drum, as " + ", ".join(["a system with a long name"] * 4) + " hears them"
    figure = draw_map(title, np.zeros((3, 2)), [Grouping("by class", np.zeros(3, int), ["a"], "")])
    figure.draw_without_rendering()
    shown = figure.get_suptitle()
    assert shown.count("\n") == 1 and shown.replace("\n", " ") == title
    (text,) = (text for text in figure.texts if text.get_text() == shown)
    assert text.get_window_extent().x1 < figure.bbox.x1


def test_sheet_leaves_the_place_of_an_unreadable_clip_empty() -> None:
    image = np.random.default_rng(0).standard_normal((64, 30)).astype(np.float32)
    rows = [
        SheetRow("cluster 3\n2 clips", [None, image], ["hum", "hiss"]),
        SheetRow("cluster 4", [image[:, :20]], ["x"]),
        SheetRow("cluster 5", [None, None], ["y", "z"]),
    ]
    figure = draw_sheet("run", rows, FrontEndConfig())
    first, second, third = ((axis, axis.images[0].get_array()) for axis in figure.axes)
    np.testing.assert_array_equal(first[1][:, 34:64], image)
    np.testing.assert_array_equal(second[1][:, :20], image[:, :20])
    drawn = [int((~np.ma.getmaskarray(array)).sum()) for _, array in (first, second, third)]
    assert drawn == [64 * 30, 64 * 20, 0]
    assert [(text.get_position()[0], text.get_text()) for text in first[0].texts] == [(0, "hum"), (34, "hiss")]
    assert {axis.get_ylim() for axis, _ in (first, second, third)} == {(0, 64)}


@given(num_frames=st.integers(20, 2_000))
@settings(max_examples=10, deadline=None)
def test_every_place_of_a_sheet_has_its_own_seconds(num_frames: int) -> None:
    images = [np.ones((8, num_frames), np.float32)] * 3
    figure = draw_sheet("run", [SheetRow("cluster", images, ["", "", ""])], FrontEndConfig(num_mels=8))
    (axis,) = figure.axes
    places = [patch.get_x() for patch in axis.patches]
    ticks = [(at, float(text.get_text())) for text, at in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)]
    each = len(ticks) // len(places)
    assert each >= 2 and each * len(places) == len(ticks)
    for number, (at, seconds) in enumerate(ticks):
        assert (at - places[number // each]) * 160 / 16_000 == pytest.approx(seconds, abs=1e-6)
        assert 0 <= seconds <= num_frames * 160 / 16_000 + 1e-6


@settings(max_examples=20)
@given(num_classes=st.integers(2, 6), seed=st.integers(0, 999))
def test_confusion_has_shares_of_the_true_class_as_colours_and_clips_as_numbers(num_classes: int, seed: int) -> None:
    confusion_KK = np.random.default_rng(seed).integers(0, 4, (num_classes, num_classes)) * 700
    names = [f"class {i}" for i in range(num_classes)]
    axis = draw_confusion("kws", confusion_KK, names).axes[0]
    shares_KK = axis.images[0].get_array()
    for true, row in enumerate(confusion_KK):
        np.testing.assert_allclose(shares_KK[true], row / row.sum() if row.any() else 0 * row)
    cells = {text.get_position(): int(text.get_text().replace(",", "")) for text in axis.texts}
    assert cells == {(predicted, true): count for (true, predicted), count in np.ndenumerate(confusion_KK) if count}
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    expected = [f"{name} ({row.sum():,})" for name, row in zip(names, confusion_KK, strict=True)]
    assert [label.get_text() for label in axis.get_yticklabels()] == expected


def test_confusion_of_many_classes_names_all_of_them_and_has_no_numbers() -> None:
    axis = draw_confusion("spk", np.eye(50, dtype=int), [f"speaker {i}" for i in range(50)]).axes[0]
    assert not axis.texts
    assert len(axis.get_xticklabels()) == len(axis.get_yticklabels()) == 50


def test_confusion_of_so_many_classes_that_no_name_is_read_stays_of_a_size_and_says_so() -> None:
    figure = draw_confusion("spk", np.eye(1251, dtype=int), [f"speaker {i}" for i in range(1251)])
    assert max(figure.get_size_inches()) < 40
    axis = figure.axes[0]
    assert not axis.get_xticklabels() and "1,251 classes, too many to name" in axis.get_xlabel()


TRIALS = ScoredTrials(
    6,
    [str(number) for number in range(6)],
    [
        {"method.beta": 0.2 + 0.1 * number, "method.cut": ("block3", "fc1")[number % 2], "method.temperature": 1.0}
        for number in range(6)
    ],
    np.linspace(0.4, 0.5, 6),
)
PARAMETERS = [
    Parameter.of(name, [point[name] for point in TRIALS.points], is_log=name == "method.beta")
    for name in TRIALS.points[0]
]


def test_a_logarithmic_axis_within_a_decade_has_ticks() -> None:
    figure = draw_parameter_map(TRIALS, PARAMETERS[0], PARAMETERS[1], {})
    figure.draw_without_rendering()
    axis = figure.axes[0]
    low, high = axis.get_xlim()
    shown = {
        float(place): label.get_text() for place, label in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    }
    inside = {place: text for place, text in shown.items() if low <= place <= high}
    assert len(inside) >= 2
    assert all(float(text) == pytest.approx(10**place, rel=0.01) for place, text in inside.items())
    assert [label.get_text() for label in axis.get_yticklabels()] == ["block3", "fc1"]


def test_an_axis_of_categories_names_each_where_its_lines_pass_and_one_of_a_single_value_once() -> None:
    axis = draw_parallel(TRIALS, PARAMETERS, {}).axes[0]
    ticks = [(*text.get_position(), text.get_text()) for text in axis.texts]
    assert [(share, text) for place, share, text in ticks if 0.5 < place < 1] == [(0, "block3"), (1, "fc1")]
    assert [(share, text) for place, share, text in ticks if 1.5 < place < 2] == [(0.5, "1")]


def _lines(axis: Axes) -> dict[float, tuple[list[float], list[float]]]:
    """Return the ends of the interval and the dot, by line of the table."""
    drawn: dict[float, tuple[list[float], list[float]]] = {}
    for line in axis.lines:
        ends, dot = drawn.setdefault(line.get_ydata()[0], ([], []))
        (dot if line.get_marker() == "o" else ends).extend(line.get_xdata())
    return drawn


def test_table_draws_every_estimate_in_the_panel_of_its_task_on_the_line_of_its_system() -> None:
    values = {
        "random": {"kws": Interval(0.5, 0.4, 0.65)},
        "student": {"kws": Interval(0.7, 0.6, 0.75), "spk": Interval(1, 1, 1), "mean": Interval(0.85, 0.8, 0.875)},
    }
    kws, spk, mean = draw_table("table", ["student", "random"], [["kws", "spk", "mean"]], values).axes
    assert [axis.get_title(loc="left") for axis in (kws, spk, mean)] == ["kws", "spk", "mean"]
    assert [label.get_text() for label in kws.get_yticklabels()] == ["student", "random"]
    np.testing.assert_allclose(_lines(kws)[0][0] + _lines(kws)[0][1], [60, 75, 70])
    np.testing.assert_allclose(_lines(kws)[1][0] + _lines(kws)[1][1], [40, 65, 50])
    assert _lines(spk).keys() == {0} and _lines(mean).keys() == {0}
    np.testing.assert_allclose(_lines(mean)[0][0] + _lines(mean)[0][1], [80, 87.5, 85])
    for axis, numbers in ((kws, ["70.0", "50.0"]), (spk, ["100.0", "–"]), (mean, ["85.0", "–"])):
        assert [text.get_text() for text in axis.texts] == numbers
        assert [text.get_position()[1] for text in axis.texts] == [0, 1]
    assert kws.yaxis_inverted()
    assert to_hex(mean.get_facecolor()) != to_hex(kws.get_facecolor())


def test_table_of_many_tasks_goes_on_in_another_row_that_names_the_systems_again() -> None:
    tasks = [f"task {i}" for i in range(12)]
    values = {"random": dict.fromkeys(tasks, Interval(0.5, 0.4, 0.6))}
    figure = draw_table("table", ["random"], [tasks], values)
    assert len(figure.axes) == 12
    named = [
        axis.get_title(loc="left") for axis in figure.axes if any(text.get_text() for text in axis.get_yticklabels())
    ]
    assert named == ["task 0", "task 7"]


def test_an_evaluation_has_a_row_of_panels_for_each_measure_with_its_numbers() -> None:
    def intervals(value: float) -> dict[Measure, dict[str, Interval]]:
        headings = ("kws", "meaning", "mean")
        return {
            measure: {heading: Interval(value + (10 * n + k) / 1000, 0.0, 1.0) for k, heading in enumerate(headings)}
            for n, measure in enumerate(MEASURES)
        }

    rows = [Row(name, None, None, 1, intervals(value), {}, {}) for name, value in (("a", 0.1), ("b", 0.7))]
    table = EvaluationTable(("kws", "meaning"), {"kws": 5, "meaning": 5}, tuple(rows), "a", "0" * 64, (), ())
    axes = draw_evaluation("evaluation", table).axes
    titles = [f"{heading}, {measure}" for measure in MEASURES for heading in ("kws", "meaning", "mean")]
    assert [axis.get_title(loc="left") for axis in axes] == titles
    for number, axis in enumerate(axes):
        offset = (number // 3) + (number % 3) / 10
        assert [text.get_text() for text in axis.texts] == [f"{10 + offset:.1f}", f"{70 + offset:.1f}"]
        named = [text.get_text() for text in axis.get_yticklabels()]
        assert named == (["a", "b"] if number % 3 == 0 else ["", ""])
        set_apart = to_hex(axis.get_facecolor()) != to_hex(axes[0].get_facecolor())
        assert set_apart == (number % 3 == 2)


def test_accuracy_is_drawn_at_the_size_of_each_encoder_and_as_a_line_without_one() -> None:
    unknown = Interval(0.6, float("nan"), float("nan"))
    found = {"a": (1000, Interval(0.5, 0.4, 0.7)), "b": (1000, unknown), "log-mel": (None, Interval(0.3, 0.2, 0.4))}
    (axis,) = draw_by_parameters("by size", found).axes
    lines = {line.get_label(): line for line in axis.lines}
    (x_a, x_b) = (lines[label].get_xdata()[0] for label in ("a: 50.0", "b: 60.0"))
    assert x_b < 1000 < x_a and x_a * x_b == pytest.approx(1000**2)  # side by side, the better first
    assert lines["log-mel: 30.0"].get_ydata() == [30, 30]
    (interval,) = [line for line in axis.lines if line.get_label().startswith("_")]
    np.testing.assert_allclose(interval.get_xydata(), [[x_a, 40], [x_a, 70]])


def test_accuracy_is_drawn_along_the_operations_of_a_curve_and_as_a_level_without_any() -> None:
    estimates = [Interval(value, value - 0.1, value + 0.1) for value in (0.5, 0.4)]
    curves = {"a": [(600.0, estimates[0]), (60.0, estimates[1])], "b": [(62.0, estimates[1])]}
    levels = {"random": Interval(0.3, 0.2, 0.4), "known": Interval(0.45, 0.4, 0.5)}
    (axis,) = draw_by_operations("by operations", curves, levels).axes
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(lines["a: 40.0, 50.0"].get_xydata(), [[60, 40], [600, 50]])
    np.testing.assert_allclose(lines["b: 40.0"].get_xydata(), [[62, 40]])
    assert lines["random: 30.0"].get_ydata() == [30, 30]
    intervals = [line.get_xydata() for line in axis.lines if line.get_label().startswith("_")]
    np.testing.assert_allclose(intervals, [[[600, 40], [600, 60]], [[60, 30], [60, 50]], [[62, 30], [62, 50]]])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["60", "600"]  # 62 would overlap 60
    legend = axis.get_legend()
    assert legend is not None
    order = [text.get_text() for text in legend.get_texts()]
    assert order == ["a: 40.0, 50.0", "known: 45.0", "b: 40.0", "random: 30.0"]  # in the order of their ends


ODD = ("_silence_", "5 $ or $ 6", "x^2 \\ $$ {")


def _odd_map() -> Figure:
    return draw_map(ODD[1], np.eye(3, 2), [Grouping(ODD[0], np.arange(3), ODD, ODD[1])])


def _odd_curves() -> Figure:
    history = [{"epoch": 0.0, **{f"{name}/x": 1.0 for name in ODD}}]
    return draw_health(ODD[1], history, [Metric("x", ODD[0], ODD[2])])


def _odd_confusion() -> Figure:
    return draw_confusion(ODD[1], np.eye(3, dtype=int), ODD)


def _odd_table() -> Figure:
    return draw_table(ODD[0], ODD, [ODD], {name: dict.fromkeys(ODD, Interval(0.5, 0.4, 0.6)) for name in ODD})


def _odd_sizes() -> Figure:
    return draw_by_parameters(" ".join(ODD), {name: (1000, Interval(0.5, 0.4, 0.6)) for name in ODD})


@pytest.mark.parametrize("draw", [_odd_map, _odd_curves, _odd_confusion, _odd_table, _odd_sizes])
def test_names_are_drawn_as_they_are(draw: Callable[[], Figure], tmp_path: Path) -> None:
    svg = to_svg(draw()).decode()
    assert all(svg.count(name) >= 2 for name in ODD[:2])  # in a title, and in a legend or at an axis
    assert ODD[2] in svg
    save(draw(), str(tmp_path / "picture.png"))


LONG = [f"{n} {'a recording of a street in the morning, near the station, ' * 2}{n}" for n in range(4)]
_IMAGES = [np.random.default_rng(number).normal(size=(64, 90)) for number in range(4)]
_ESTIMATE = Interval(0.5, 0.4, 0.6)


def _long_watched() -> Figure:
    curve = WatchedCurve(LONG[0], "headline", [1, 2], [0.5, 0.6], 0.4)
    return draw_watched("title", panels({name: [curve] for name in LONG}))


LONG_NAMES: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: draw_confusion("title", np.eye(4, dtype=int), LONG),
    "systems": lambda: draw_table("title", LONG, [["birds, few-shot"]], {n: {"birds": _ESTIMATE} for n in LONG}),
    "tasks": lambda: draw_table("title", ["a"], [LONG], {"a": dict.fromkeys(LONG, _ESTIMATE)}),
    "map": lambda: draw_map("title", np.eye(4, 2), [by_class("by class", np.arange(4), LONG)] * 2),
    "sizes": lambda: draw_by_parameters("title", dict.fromkeys(LONG, (1000, _ESTIMATE))),
    "operations": lambda: draw_by_operations("title", {name: [(10.0, _ESTIMATE)] for name in LONG}, {}),
    "curves": lambda: draw_curves({name: ([1, 2], [0.5, 0.6]) for name in LONG}),
    "watched": _long_watched,
    "sheet": lambda: draw_sheet("title", [SheetRow("cluster", _IMAGES, LONG)], FrontEndConfig()),
    "nearest": lambda: draw_nearest("title", [NearestRow(name, _IMAGES, LONG) for name in LONG], FrontEndConfig()),
}


@pytest.mark.parametrize("kind", LONG_NAMES)
def test_long_names_leave_room_for_the_drawing_and_for_each_other(kind: str) -> None:
    figure = LONG_NAMES[kind]()
    figure.draw_without_rendering()
    panels_ = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert min(axis.get_window_extent().width for axis in panels_) > 1.2 * figure.dpi
    texts = [text for text in figure.findobj(Text) if "a rec" in text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent() for text in texts]
    assert boxes
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
