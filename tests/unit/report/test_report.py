"""Report pages of all four kinds of runs are well formed, need no other file, and show what the folders hold."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.reports import HOSTILE, LENGTHS, TASK, Page, Runs, write_runs, write_sweep
from support.tasks import PROTOCOL, write_task
from support.terminal import Ended

from unfused_ray import recipes
from unfused_ray.config import PretrainConfig, SweepConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import embed_clips
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job.job import WATCHED
from unfused_ray.figures.sweep import MIN_SURFACE, Parameter, ScoredTrials, surface
from unfused_ray.models.export import load_encoder
from unfused_ray.report import clips, report, sounds, sweep
from unfused_ray.report.choice import NUM_CLUSTERS, choose
from unfused_ray.report.clips import clip_seconds
from unfused_ray.report.evaluation import most_confused
from unfused_ray.report.parameters import comparable, importances, parameters_of
from unfused_ray.runs.reader import RunReader
from unfused_ray.runs.run import Run
from unfused_ray.runs.watched import watched_curves
from unfused_ray.sweeps.plan import read_sweep
from unfused_ray.sweeps.space import to_json
from unfused_ray.sweeps.trial import Record, read_records
from unfused_ray.training.worker.optimizer import learning_rate

KINDS = ("pretraining", "distillation", "shuffled", "evaluation", "sweep", "all")
MAX_BYTES = 5_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Runs:
    return write_runs(tmp_path_factory.mktemp("runs"), tracking_uri)


@pytest.fixture(scope="module")
def pages(runs: Runs) -> dict[str, Page]:
    """Pages of the runs by kind; "all" is one page of all runs."""
    uris = {kind: (getattr(runs, kind),) for kind in KINDS[:-1]} | {"all": runs.all}
    return {kind: Page(report.to_html(uris)) for kind, uris in uris.items()}


def section(page: Page, heading: str) -> str:
    """Return the HTML of the section with this heading."""
    (title,) = [element for element in page.all("h3") if element.text == heading]
    name = title.attributes["id"].replace("heading", "run")
    start = page.html.index(f'<section id="{name}"')
    return page.html[start : page.html.index("</section>", start)] + "</section>"


def data(uri: str, kind: str) -> bytes:
    """Return the content of a data URI."""
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.partition(",")[2], validate=True)


# --- the page itself ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_well_formed_and_needs_nothing_but_itself(pages: dict[str, Page], kind: str) -> None:
    page = pages[kind]
    assert len(page.html.encode()) < MAX_BYTES
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in ("src", "href"):
            target = element.attributes.get(name, "#")
            assert target.startswith(("data:", "#")), target
            assert not target.startswith("#") or target == "#" or target[1:] in ids
        for name in ("aria-labelledby", "for"):
            assert element.attributes.get(name, ids[0]) in ids
        assert not any(name.startswith("on") for name in element.attributes)
    assert "@import" not in page.html and "url(" not in page.html
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("h1")) == 1
    assert page.all("meta", name="viewport") and page.all("html", lang="en")


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_has_words_and_headings_skip_no_level(pages: dict[str, Page], kind: str) -> None:
    page = pages[kind]
    assert page.all("img") and all(image.attributes["alt"] for image in page.all("img"))
    assert all(sound.attributes["aria-label"] for sound in page.all("audio"))
    levels = [int(element.tag[1]) for element in page.elements if re.fullmatch("h[1-6]", element.tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for heading in page.all("th", scope="col"):
        assert heading.attributes["aria-sort"] == "none"
    assert len(page.all("th", scope="col")) == sum("thead" in button.path for button in page.all("button"))


@pytest.mark.parametrize(
    ("kind", "heading", "name"),
    [("pretraining", "While it trained", ""), ("evaluation", "While the models trained", "watched: ")],
)
def test_a_page_shows_what_was_watched_beside_random_networks(
    pages: dict[str, Page], runs: Runs, kind: str, heading: str, name: str
) -> None:
    shown = Page(section(pages[kind], heading))
    curves = watched_curves(Run(runs.pretraining).history())
    assert [curve.measure for curve in curves] == ["headline", "neighbours", "few-shot"]
    assert "not used in training" not in section(pages[kind], heading)
    alts = [image.attributes["alt"] for image in shown.all("img")]
    assert alts == [
        f"Validation clips of {TASK} by {curve.measure}: {name}{curve.accuracies[0]:.1%} after epoch 1, "
        f"{curve.accuracies[1]:.1%} after epoch 2, random networks {curve.random:.1%}"
        for curve in curves
    ]
    drawn = data(shown.all("img")[0].attributes["src"], "image/svg+xml").decode()
    assert "stroke-dasharray" in drawn
    assert Path(runs.evaluation, WATCHED).exists()


def test_names_of_clips_labels_classes_and_systems_stay_text(pages: dict[str, Page]) -> None:
    page = pages["all"]
    keys = {element.text for element in page.all("span", class_="key")}
    of_runs = keys - {element.text for element in pages["evaluation"].all("span", class_="key")}
    assert of_runs and all(re.fullmatch(r"clip \d+ " + re.escape(HOSTILE), key) for key in of_runs)
    assert any("label 0 <b>" in element.text for element in page.all("p", class_="note"))
    assert any(element.text == "model <i>" for element in page.all("th"))
    assert any("task & co" in element.text for element in page.all("button"))
    assert not page.all("i") and not page.all("img", src="x")


def test_credentials_are_masked(pages: dict[str, Page]) -> None:
    page = pages["pretraining"]
    assert "https://…@tracking.example/?api_token=…&x=1" in {element.text for element in page.all("dd")}
    assert "hunter2" not in page.html and "sesame" not in page.html and "alice" not in page.html


# --- training runs ---


def test_curves_end_where_the_history_does(runs: Runs, pages: dict[str, Page]) -> None:
    history = Run(runs.distillation).history()
    alts = [image.attributes["alt"] for image in pages["distillation"].all("img", class_="chart")]
    for heading, figure in (("loss", "loss"), ("learning rate", "learning_rate"), ("speed", "clips_per_second")):
        first, last = history[0][figure], history[-1][figure]
        assert f"{heading} over the epochs: {first:.4g} after epoch 1, {last:.4g} after epoch 2" in alts


def test_the_history_has_the_learning_rate_of_each_epochs_last_step(runs: Runs) -> None:
    config = RunReader(runs.pretraining).config
    rates = [entry["learning_rate"] for entry in RunReader(runs.pretraining).history()]
    steps = 1  # in an epoch: 60 clips, 32 a global batch
    assert rates == [learning_rate(config.optimizer, (epoch + 1) * steps - 1, steps, 2 * steps) for epoch in range(2)]


def test_a_run_says_what_it_ran_on(runs: Runs, pages: dict[str, Page]) -> None:
    environment = RunReader(runs.distillation).environment
    assert environment["torch"] == version("torch")
    told = " ".join(element.text for element in pages["distillation"].all("details"))
    assert all(f"{name}" in told and value in told for name, value in environment.items())


def test_clips_are_the_nearest_the_median_and_the_farthest_of_their_cluster(runs: Runs, pages: dict[str, Page]) -> None:
    assignment = RunReader(runs.pretraining).assignment
    listening = Page(section(pages["pretraining"], "Listen to the clusters"))
    names = [element.text.split()[1] for element in listening.all("h4")]
    options = [element.text for element in listening.all("option")]
    assert [option.split(",")[0] for option in options] == [f"cluster {name}" for name in names]
    keys = iter(element.text for element in listening.all("span", class_="key"))
    for name in names:
        members = np.flatnonzero(assignment.labels[0] == int(name))
        ordered = members[np.argsort(assignment.distances[0][members], kind="stable")]
        expected = dict.fromkeys([ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]])
        assert [next(keys).split()[1] for _ in expected] == [str(clip) for clip in expected]


def test_sounds_are_the_clips_and_spectrograms_have_their_length(pages: dict[str, Page]) -> None:
    page = pages["pretraining"]
    sounds, keys = page.all("audio"), page.all("span", class_="key")
    assert len(sounds) == len(keys) > 3
    for sound, key in zip(sounds, keys, strict=True):
        samples, rate = soundfile.read(io.BytesIO(data(sound.attributes["src"], "audio/ogg")))
        seconds = LENGTHS[int(key.text.split()[1]) % len(LENGTHS)] / 16_000
        assert len(samples) / rate == pytest.approx(seconds, abs=0.05)
        assert np.sqrt(np.mean(samples**2)) > 0.03


@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_a_tone_is_still_that_tone_in_opus(sample_rate: int) -> None:
    time = np.arange(sample_rate) / sample_rate
    wave = (np.sin(2 * np.pi * 440 * time) * 10_000).astype(np.int16)
    samples, rate = soundfile.read(io.BytesIO(sounds.encode_opus(wave, sample_rate)))
    spectrum = np.abs(np.fft.rfft(samples[: len(samples) // 2]))
    assert spectrum.argmax() * rate / (len(samples) // 2) == pytest.approx(440, abs=3)


def test_of_shuffled_labels_distances_are_to_the_mean_as_the_student_hears_it(runs: Runs) -> None:
    run = RunReader(runs.shuffled)
    index = ClipIndex.load(run.config.data, run.config.splits)
    encoder = load_encoder(run.uri)
    vectors = embed_clips(encoder, index, np.arange(index.num_clips))[encoder.encoder.config.cut]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = run.assignment.labels[0]
    measured = clips._measured(run, index, [0, 1])
    for clip, label in enumerate(labels.tolist()):
        if label > 1:
            assert np.isnan(measured[clip])
            continue
        mean = np.mean([vectors[other] for other in np.flatnonzero(labels == label)], axis=0)
        expected = 1 - vectors[clip] @ mean / np.linalg.norm(mean)
        assert measured[clip] == pytest.approx(expected, abs=1e-5)


def test_clips_that_are_gone_or_others_by_now_are_said_and_the_rest_of_the_page_stays(
    runs: Runs, tmp_path: Path
) -> None:
    folder, moved = tmp_path / "run", tmp_path / "source"
    shutil.copytree(runs.pretraining, folder)
    record = json.loads((folder / "run.json").read_text())
    record["config"]["data"] = [str(moved)]
    (folder / "run.json").write_text(json.dumps(record))
    page = Page(report.to_html([str(folder)]))
    assert not page.all("audio") and page.all("img", class_="chart")
    assert f"cannot be read now: {moved} holds no manifest.json" in page.html
    shutil.copytree(runs.source, moved)
    (moved / "00000.parquet").unlink()
    assert "cannot be heard here" in report.to_html([str(folder)])
    record["facts"]["data_checksums"] = ["0"]
    (folder / "run.json").write_text(json.dumps(record))
    assert "no longer those that the run was trained on" in report.to_html([str(folder)])


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    Run(str(tmp_path)).open(PretrainConfig(name="young"), {"num_clips": 9})
    page = Page(report.to_html([str(tmp_path)]))
    assert "No epoch has ended yet." in page.html
    assert page.all("summary") and not page.all("img")


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=30).filter(any),
    num_without=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_chosen_clusters_include_the_extremes_of_size_and_coherence(
    sizes: list[int], num_without: int, seed: int
) -> None:
    labels = np.repeat(np.arange(-1, len(sizes)), [num_without, *sizes])
    distances = np.random.default_rng(seed).uniform(size=len(labels)).astype(np.float32)
    chosen = choose(labels, distances)
    enough = {c: size for c, size in enumerate(sizes) if size >= min(3, max(sizes))}
    assert chosen.keys() <= enough.keys() and 1 <= len(chosen) <= NUM_CLUSTERS
    found = [sizes[cluster] for cluster in chosen]
    assert found == sorted(found, reverse=True)
    assert found[0] == max(sizes) and found[-1] == min(enough.values())
    means = {cluster: distances[labels == cluster].mean(dtype=np.float64) for cluster in enough}
    reasons = {reason: cluster for cluster, text in chosen.items() for reason in text.split(", ")}
    assert means[reasons["the most coherent"]] == min(means.values())
    assert means[reasons["the least coherent"]] == max(means.values())
    asked = [cluster for cluster in range(len(sizes)) if sizes[cluster]][:3]
    more = choose(labels, distances, asked)
    assert more.keys() == {*chosen, *asked}
    assert all(("asked for" in why.split(", ")) == (cluster in asked) for cluster, why in more.items())


@pytest.mark.parametrize(
    ("sizes", "reasons"),
    [
        ((4,), ["the largest"]),
        ((4, 9), ["the largest", "the smallest"]),
        ((4, 9, 6), ["the largest", "of median size", "the smallest"]),
    ],
)
def test_few_clusters_are_called_by_their_sizes(sizes: tuple[int, ...], reasons: list[str]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    unknown = np.full(len(labels), np.nan, np.float32)
    assert list(choose(labels, unknown).values()) == reasons


def test_a_cluster_that_is_asked_for_is_heard_and_one_that_is_not_there_refused(
    runs: Runs, tmp_path: Path, command_line: Callable[..., Ended]
) -> None:
    output = tmp_path / "page.html"
    largest = int(np.bincount(RunReader(runs.pretraining).assignment.labels[0]).argmax())
    ended = command_line("report", runs.pretraining, runs.sweep, "--output", str(output), "--clusters", str(largest))
    assert ended.code == 0, ended.err
    headings = [element.text for element in Page(output.read_text()).all("h4")]
    assert headings[0].startswith(f"cluster {largest} asked for, ")
    with pytest.raises(ValueError, match=r"clusters=99 100: .* no such cluster .* its \d clusters are numbered 0 to 3"):
        report.to_html([runs.pretraining], [largest, 99, 100])
    with pytest.raises(ValueError, match="no run of the page has clusters"):
        report.to_html([runs.sweep], [largest])


@pytest.mark.parametrize("num_runs", [0, 1, 2, 5, 40])
def test_the_clips_of_any_number_of_runs_fit_on_a_page(num_runs: int) -> None:
    seconds = clip_seconds(num_runs)
    noise = np.random.default_rng(0).integers(-20_000, 20_000, int(16_000 * seconds)).astype(np.int16)
    num_bytes = 4 / 3 * (len(sounds.encode_opus(noise, 16_000)) + 64 * 100 * seconds * 5 / 8)
    assert num_runs * NUM_CLUSTERS * 3 * num_bytes < MAX_BYTES


# --- several runs ---


@given(st.lists(st.sampled_from(["x", "y", "x (1)", "x (2)", "x (1) (1)", ""]), max_size=8))
def test_runs_that_share_a_name_get_names_of_their_own(names: list[str]) -> None:
    """Of x, x and x (1), two were called x (1), and the curves of one were lost."""
    shown = report._distinct(names)
    assert len(set(shown)) == len(names)
    for old, new in zip(names, shown, strict=True):
        assert new == old if names.count(old) == 1 else new.startswith(f"{old} (")


def test_several_runs_show_in_what_their_settings_differ(pages: dict[str, Page]) -> None:
    table = Page(section(pages["all"], "Differences, distillation"))
    assert [button.text for button in table.all("button")] == ["setting", "teacher-student", "shuffled-student"]
    assert [row.text.split() for row in table.all("tr")[1:]] == [["labels.origin", "teacher", "shuffled"]]
    curves = Page(section(pages["all"], "Curves, distillation"))
    assert all("teacher-student: " in image.attributes["alt"] for image in curves.all("img"))
    links = [link.attributes["href"] for link in pages["all"].all("a")]
    assert [f"#run-{number}" for number in range(1, 7)] == [link for link in links if link.count("-") == 1]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither run\.json .*, sweep\.json .* nor table\.json"):
        report.to_html([str(tmp_path)])
    with pytest.raises(ValueError, match="no run is named"):
        report.to_html([])
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"sweep\.json has format_version none"):
        report.to_html([str(tmp_path)])


def test_the_command_writes_the_page_and_says_where(
    runs: Runs, tmp_path: Path, command_line: Callable[..., Ended]
) -> None:
    output = tmp_path / "a folder" / "page.html"
    ended = command_line("report", runs.sweep, runs.sweep, "--output", str(output))
    assert ended.code == 0 and str(output) in ended.out
    assert len(Page(output.read_text()).all("h2")) == 2  # contents, and the sweep only once


# --- evaluations ---


def test_an_evaluation_has_its_table_and_its_confusions(runs: Runs, pages: dict[str, Page]) -> None:
    table = json.loads(Path(runs.evaluation, "table.json").read_text())
    text = Page(section(pages["evaluation"], "Accuracy"))
    names = [element.text for element in text.all("th", scope="row")]
    assert names[: len(table["rows"])] == [row["name"] for row in table["rows"]]
    values = [element.attributes["data-value"] for element in text.all("td", class_="number")]
    for row in table["rows"]:
        for measure in MEASURES:
            assert str(row["accuracy"][measure]["task & co"]["value"]) in values
            if row["difference"]:
                assert str(row["difference"][measure]["task & co"]["value"]) in values
    alts = [image.attributes["alt"] for image in Page(section(pages["evaluation"], "Errors")).all("img")]
    assert f"Confusion matrix of {table['reference']} on task & co" in " ".join(alts)


def test_an_evaluation_lets_hear_what_its_rows_find_nearest(runs: Runs, pages: dict[str, Page]) -> None:
    heard = Page(section(pages["evaluation"], "Listen to the nearest clips of each system"))
    record = json.loads(Path(runs.evaluation, "evaluation.json").read_text())
    assert record["asked"] and record["asked"][0].startswith("random ")
    places = [element.text for element in heard.all("b")]
    labels = [element.text.rpartition(", ")[0] for element in heard.all("p", class_="note")]
    assert len(places) == len(labels) == len(heard.all("audio"))
    firsts = [place for place, name in enumerate(places) if name == "test clip"]
    groups = heard.all("h4")
    assert len(firsts) == len(groups) >= 1
    for group, first, end in zip(groups, firsts, [*firsts[1:], len(places)], strict=True):
        assert set(places[first + 1 : end]) == set(record["asked"])
        for name in record["asked"]:
            found = [label for label, place in zip(labels[first:end], places[first:end], strict=True) if place == name]
            right = found.count(labels[first])
            assert f"{name}: {right} of {len(found)} are {labels[first]}" in group.text


@pytest.mark.parametrize("heading", ["Accuracy", "The winner on the test split"])
def test_accuracies_stand_beside_what_they_are_not_to_be_read_without(runs: Runs, tmp_path: Path, heading: str) -> None:
    write_sweep(tmp_path, 3)
    shutil.copytree(runs.evaluation, tmp_path / "table")
    table = json.loads((tmp_path / "table" / "table.json").read_text())
    said = {"near_copies": "3 of 24 test clips have a near-copy", "remarks": "an ONNX file normalises otherwise"}
    (tmp_path / "table" / "table.json").write_text(json.dumps(table | {name: [each] for name, each in said.items()}))
    page = Page(report.to_html([str(tmp_path / "table" if heading == "Accuracy" else tmp_path)]))
    told = [element.text for element in Page(section(page, heading)).all("p", class_="prose")]
    assert {f"{each}." for each in said.values()} <= set(told)
    assert any(each.startswith("Headline over all test clips together") for each in told)


def test_clips_of_a_task_that_was_prepared_again_are_not_heard(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    shutil.copytree(runs.evaluation, folder)
    record = json.loads((folder / "evaluation.json").read_text())
    assert [*record["checksums"]] == [TASK]
    for prepared, sizes in (("fewer", (8, 8, 8)), ("others", (24, 24, 12))):
        record["config"]["tasks"] = [write_task(tmp_path / prepared / TASK, *sizes)]
        (folder / "evaluation.json").write_text(json.dumps(record))
        page = Page(report.to_html([str(folder)]))
        assert f"{TASK} are no longer those that were evaluated: evaluate again" in html.unescape(page.html)
        assert not page.all("audio") and page.all("img", class_="chart")
    del record["checksums"]  # as written by older versions
    (folder / "evaluation.json").write_text(json.dumps(record))
    assert "the evaluation does not say which clips of" in report.to_html([str(folder)])


def test_a_comparison_and_a_table_of_something_else_are_refused_in_a_line(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    shutil.copytree(runs.evaluation, folder)
    table = json.loads((folder / "table.json").read_text())
    (folder / "table.json").write_text(json.dumps({**table, "rows": "none", "tasks": 3}))
    with pytest.raises(ValueError, match=r"table\.json is not as .* \(2 values are .*; tasks: .*\): evaluate again$"):
        report.to_html([str(folder)])
    (folder / "frozen.json").write_text("{}")
    for read in (report.kind_of, EvaluationTable.load):
        with pytest.raises(ValueError, match=r"table is the folder of a comparison: name one of its folders evalu"):
            read(str(folder))


def test_an_evaluation_says_what_it_is_of_and_two_in_what_they_differ(
    runs: Runs, pages: dict[str, Page], tmp_path: Path
) -> None:
    text = Path(runs.evaluation, "evaluation.json").read_text()
    record = json.loads(text)
    told = {element.text for element in pages["evaluation"].all("dd")}
    assert {record["config"]["cache"], json.dumps(record["config"]["models"]), version("torch")} <= told
    other = tmp_path / "other"
    shutil.copytree(runs.evaluation, other)
    record["config"] |= {"random_seeds": 7, "name": "other"}
    (other / "evaluation.json").write_text(json.dumps(record))
    table = Page(section(Page(report.to_html([runs.evaluation, str(other)])), "Differences, evaluation"))
    assert [row.text.split() for row in table.all("tr")[1:]] == [["random_seeds", "1", "7"]]


@given(
    st.integers(1, 6).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 3), min_size=k, max_size=k), min_size=k, max_size=k)
    )
)
def test_the_commonest_errors_are_found(rows: list[list[int]]) -> None:
    found = most_confused(np.array(rows), 4)
    errors = sorted((n for i, row in enumerate(rows) for j, n in enumerate(row) if i != j and n), reverse=True)
    assert [n for _, _, n in found] == errors[:4]
    assert all(rows[true][predicted] == n and true != predicted for true, predicted, n in found)


# --- sweeps ---


def test_a_sweep_marks_the_default_trial_and_the_winner(runs: Runs, pages: dict[str, Page]) -> None:
    records = read_records(runs.sweep)
    finished = [record for record in records if record.state == "finished"]
    winner = max(finished, key=lambda record: record.accuracy)
    names = [element.text for element in pages["sweep"].all("th", scope="row")]
    assert names[0] == f"{winner.id} (winner)"
    config = SweepConfig(**read_sweep(runs.sweep)["config"])
    (default,) = [record for record in records if sweep.is_default(config, record)]
    assert f"{default.id} (default)" in names and len(names) == len(records)
    alts = [image.attributes["alt"] for image in pages["sweep"].all("img")]
    assert any(re.search(r"winner: [\d.]+% at α [\d.]+, β [\d.]+", alt) for alt in alts)


def test_a_sweep_says_what_it_ran_on(pages: dict[str, Page]) -> None:
    (details,) = [each for each in pages["sweep"].all("details") if "Environment and origin" in each.text]
    assert "a machine of 2 CPUs" in details.text
    assert "headline on folds of training and validation clips" in {each.text for each in pages["sweep"].all("dd")}


def test_intervals_of_trials_are_by_the_protocol_of_their_sweep_or_the_page_says_so(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", 3)
    path, protocol = tmp_path / "sweep" / "sweep.json", tmp_path / "protocol.toml"
    protocol.write_text(PROTOCOL)  # it has 200 replicates
    record = json.loads(path.read_text())
    record["config"]["protocol"] = str(protocol)
    record["facts"]["protocol"] = load_protocol(str(protocol)).sha256
    path.write_text(json.dumps(record))
    config = SweepConfig(**record["config"])
    assert sweep._bootstrap(config, record["facts"]["protocol"])[0].replicates == 200
    said = "by the bootstrap of this version's own, 10,000 replicates with seed 0"
    assert said not in html.unescape(report.to_html([str(tmp_path / "sweep")]))
    protocol.write_text(PROTOCOL.replace("replicates = 200", "replicates = 300"))
    assert said in html.unescape(report.to_html([str(tmp_path / "sweep")]))
    protocol.unlink()
    assert said in html.unescape(report.to_html([str(tmp_path / "sweep")]))


def test_a_trial_that_failed_says_why(tmp_path: Path) -> None:
    write_sweep(tmp_path, 3)
    Record({"method.alpha": 0.5, "method.beta": 1.0}, "failed", message="out of <memory>").write(str(tmp_path))
    cells = [element.text for element in Page(report.to_html([str(tmp_path)])).all("td")]
    assert "failed out of <memory>" in cells


def test_trials_are_compared_after_the_same_epoch(tmp_path: Path) -> None:
    few, many = write_sweep(tmp_path / "few", 6), write_sweep(tmp_path / "many", 18)
    scored = comparable(few)
    assert scored is not None and scored.epoch == 1 and len(scored.ids) == 6
    scored = comparable(many)
    assert scored is not None and scored.epoch == 2 and len(scored.ids) == 12
    assert scored.accuracies.tolist() == [r.rungs[1].accuracy for r in many if r.id in scored.ids and len(r.rungs) > 1]
    assert comparable([Record({"method.alpha": 0.5})]) is None


def test_importance_finds_the_parameter_that_decides(tmp_path: Path) -> None:
    records = write_sweep(tmp_path, 30)
    scored = comparable(records)
    assert scored is not None
    searched = read_sweep(str(tmp_path))["space"]
    shares = importances(scored, parameters_of(records, searched))
    assert list(shares) == ["method.alpha", "method.beta"]
    assert shares["method.alpha"] > 0.8 and sum(shares.values()) == pytest.approx(1)
    level = ScoredTrials(1, scored.ids[:5], scored.points[:5], np.full(5, 0.5))
    assert importances(level, parameters_of(records, searched)) == {}


def test_numbers_lie_on_the_scale_that_they_were_searched_on() -> None:
    searched = {
        "method.alpha": FloatDistribution(1e-6, 1.0),
        "method.beta": FloatDistribution(0.1, 0.2, log=True),
        "labels.num_clusters": CategoricalDistribution((16, 4096)),
        "batch.block": IntDistribution(1, 1000, log=True),
    }
    points = [dict(zip(searched, values, strict=True)) for values in ((1e-6, 0.1, 16, 1), (1.0, 0.2, 4096, 1000))]
    found = parameters_of([Record(point) for point in points], to_json(searched))
    assert [parameter.scale for parameter in found] == ["linear", "log", "linear", "log"]
    older = parameters_of([Record(point) for point in points], {})  # an older sweep without its space
    assert {parameter.scale for parameter in older} == {"linear"}


@pytest.mark.parametrize(
    ("values", "is_log", "scale"),
    [
        ([0.003, 0.15, 0.7], True, "log"),
        ([0.01, 0.3, 0.5, 0.9, 0.99], False, "linear"),
        (["fc1", "block3"], False, "category"),
        ([True, False], False, "category"),
        ([4, [4, 8]], False, "category"),
    ],
)
def test_scales_of_parameters(values: list[object], is_log: bool, scale: str) -> None:
    parameter = Parameter.of("a.field", values, is_log)
    assert parameter.scale == scale
    places = parameter.places(values)
    if scale == "log":
        np.testing.assert_allclose(10**places, np.array(values, float))
    if scale == "category":
        assert [json.loads(parameter.categories[int(place)]) for place in places] == values


def test_the_surface_spans_neighbouring_trials_and_nothing_else() -> None:
    axes = [Parameter("a", "linear", ()), Parameter("b", "log", ())]
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(-1, 2)
    triangles = surface(grid, axes)
    assert triangles is not None and not triangles.mask.any()
    assert surface(grid[: MIN_SURFACE - 1], axes) is None
    assert surface(np.repeat(np.arange(20.0)[:, None], 2, axis=1), axes) is None
    assert surface(grid, [axes[0], Parameter("c", "category", ("x",))]) is None
    far = surface(np.concatenate([grid / 10, [[9.0, 9.0]]]), axes)
    assert far is not None
    assert all(len(grid) not in corners for corners in far.triangles[~far.mask].tolist())


def test_a_space_without_alpha_is_mapped_by_its_two_most_important_parameters(tmp_path: Path) -> None:
    write_sweep(tmp_path, 12)
    rates = recipes.SWEEP["tiny"][1].distill.optimizer.lr * np.geomspace(0.5, 2, 12)
    for number, folder in enumerate(sorted((tmp_path / "trials").iterdir())):
        record = json.loads((folder / "trial.json").read_text())
        alpha = record["point"]["method.alpha"]
        record["point"] = {"optimizer.lr": rates[number], "method.cut": "fc1", "method.temperature": 1 + alpha}
        (folder / "trial.json").write_text(json.dumps(record))
    page = Page(report.to_html([str(tmp_path)]))
    assert "temperature–lr map" in {element.text for element in page.all("b")}
