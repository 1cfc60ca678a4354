"""Near-copies are found after every alteration, told from other clips, and counted under a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evaluations import evaluated
from support.sources import tone, write_source
from support.tasks import replace_columns, write_encoder, write_task
from support.terminal import Ended, text_of

from unfused_ray.api import duplicates
from unfused_ray.audio.decode import encode_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig, PrepareConfig
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards import ingest
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.retrieval import fingerprints, leakage
from unfused_ray.retrieval.alterations import ALTERATIONS
from unfused_ray.retrieval.duplicates import Threshold, find_copies, nearest
from unfused_ray.retrieval.fingerprints import DIM, fingerprint, load_fingerprints

RATE = 16_000
LOG_MEL = LogMel(FrontEndConfig())


def babble(seed: int, num_samples: int = 16_000) -> np.ndarray:
    """Return tones that come and go as in speech; clips differ by how they change."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / RATE
    wave = np.zeros(num_samples)
    for pitch in rng.uniform(100, 6_000, 12):
        turns = np.interp(time, np.linspace(0, time[-1], 12), rng.uniform(0, 1, 12) ** 3)
        wave += turns * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 7))
    return np.round(2_000 * wave).astype(np.int16)


def write_babble(folder: Path, waves: list[np.ndarray], splits: tuple[str, ...] = ("",)) -> str:
    """Write a prepared source of some waves, the same number in each split; return its path."""
    size = len(waves) // len(splits)
    write_source(folder, [[size]] * len(splits), splits=splits)
    audio = [encode_flac(wave, RATE) for wave in waves]
    return replace_columns(folder, audio=audio, num_samples=[len(wave) for wave in waves])


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_copy_has_nearly_the_fingerprint_of_its_original(name: str) -> None:
    originals = [babble(seed) for seed in range(8)]
    prints = np.stack([fingerprint(wave, LOG_MEL) for wave in originals])
    np.testing.assert_allclose(np.linalg.norm(prints, axis=1), 1, rtol=1e-5)
    copies = np.stack([fingerprint(ALTERATIONS[name](wave, RATE), LOG_MEL) for wave in originals])
    similarities = copies @ prints.T
    assert np.array_equal(similarities.argmax(axis=1), np.arange(8))
    assert np.diag(similarities).min() > (similarities - 2 * np.eye(8)).max()
    assert not fingerprint(np.zeros(4_000, np.int16), LOG_MEL).any()  # silence is near no clip


@given(st.data())
def test_the_nearest_others_are_those_of_the_whole_product(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    queries, others = (
        rng.normal(size=(data.draw(st.integers(1, 9)), 4)),
        rng.normal(size=(data.draw(st.integers(2, 9)), 4)),
    )
    numbers = data.draw(
        st.sampled_from([None, (rng.integers(3, size=len(queries)), rng.integers(3, size=len(others)))])
    )
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("unfused_ray.retrieval.duplicates._TILE", data.draw(st.integers(1, 10)))
        places, values = nearest(np.tanh(queries) / 2, np.tanh(others) / 2, numbers, told.append)
    assert told == sorted({*told}) and told[-1] == len(queries) * len(others)
    product = (np.tanh(queries) / 2).astype(np.float32) @ (np.tanh(others) / 2).astype(np.float32).T
    if numbers is not None:
        product[numbers[0][:, None] == numbers[1]] = -1
    assert np.array_equal(places, product.argmax(axis=1))
    np.testing.assert_allclose(values, product.max(axis=1), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two sources; the second has three altered clips of the first."""
    folder = tmp_path_factory.mktemp("copies")
    first = [babble(seed) for seed in range(30)]
    second = [babble(seed) for seed in range(100, 137)]
    for place, (clip, name) in zip(
        (4, 9, 20), ((2, "MP3"), (7, "a tenth cut off"), (19, "half the level")), strict=True
    ):
        second.insert(place, ALTERATIONS[name](first[clip], RATE))
    return write_babble(folder / "first", first), write_babble(folder / "second", second, ("train", "test"))


def test_copies_between_two_sources_are_found_and_no_others(
    sources: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (ClipIndex.load([uri], None) for uri in sources)
    copies = find_copies(first, second, IN_PROCESS)
    assert "near-copies: 1200/1200 comparisons (100%)" in capsys.readouterr().err
    assert {clip: other for clip, (other, _) in copies.pairs.items()} == {2: 4, 7: 9, 19: 20}
    threshold = copies.threshold
    assert threshold.precision > 0.99
    assert threshold.num_copies == 27 * len(ALTERATIONS)  # none made of clips with a copy
    assert min(threshold.found.values()) > 0.9
    assert copies.by_splits == {("", "test"): 1, ("", "train"): 2}
    shown = text_of(copies.to_terminal())
    assert "3 of 30 clips have a near-copy" in shown and "share of them that it finds: half the level 100%" in " ".join(
        shown.split()
    )
    rows = list(csv.DictReader(io.StringIO(copies.to_csv())))
    assert {(row["key"], row["copy_key"]) for row in rows} == {
        ("clip-2", "clip-4"),
        ("clip-7", "clip-9"),
        ("clip-19", "clip-20"),
    }


def test_within_a_source_a_clip_is_no_copy_of_itself(tmp_path: Path) -> None:
    waves = [babble(seed) for seed in range(20)]
    waves[11] = ALTERATIONS["Opus"](waves[3], RATE)
    source = write_babble(tmp_path / "in", waves)
    copies = find_copies(ClipIndex.load([source], None), None, IN_PROCESS)
    assert {clip: other for clip, (other, _) in copies.pairs.items()} == {3: 11, 11: 3}


def test_copies_are_found_however_many_of_the_clips_have_an_equal_one(tmp_path: Path) -> None:
    waves = [babble(seed) for seed in range(30)]
    disguised = [*waves[:29], ALTERATIONS["MP3"](waves[29], RATE)]
    first, second = (write_babble(tmp_path / name, each) for name, each in (("a", waves), ("b", disguised)))
    twice = write_babble(tmp_path / "twice", [*waves, *disguised])
    between = find_copies(*(ClipIndex.load([uri], None) for uri in (first, second)), IN_PROCESS)
    within = find_copies(ClipIndex.load([twice], None), None, IN_PROCESS)
    assert {clip: other for clip, (other, _) in between.pairs.items()} == {clip: clip for clip in range(30)}
    assert {clip: other for clip, (other, _) in within.pairs.items()} == {clip: (clip + 30) % 60 for clip in range(60)}
    assert min(between.threshold.found.values()) > 0.9


def test_a_search_says_where_most_near_copies_are_missed(tmp_path: Path) -> None:
    waves = [babble(seed) for seed in range(16)]
    disguised = [ALTERATIONS["MP3"](wave, RATE) for wave in waves]  # with a copy each, real pairs look like false ones
    first, second = (write_babble(tmp_path / name, each) for name, each in (("a", waves), ("b", disguised)))
    copies = find_copies(*(ClipIndex.load([uri], None) for uri in (first, second)), IN_PROCESS)
    said = "most near-copies that are not equal are missed, as "
    assert said in leakage.count_in_words(copies)
    assert said.capitalize() in " ".join(text_of(copies.to_terminal()).split())


def test_only_a_threshold_below_most_made_copies_is_doubted() -> None:
    found = dict.fromkeys(("MP3", "Opus"), 0.9)
    assert Threshold(0.9, 0.999, found, 40).doubt == ""
    missed = Threshold(0.9999, 0.6, {"MP3": 0.0, "Opus": 0.3}, 40)
    assert "as 85% of the test copies are: more than a third" in missed.doubt
    assert missed.text.endswith(f". M{missed.doubt[1:]}")
    assert Threshold(0.9999, 1.0, {}, 0).text.endswith(
        "Only equal clips are found: there was no clip to make test copies of"
    )


def test_fingerprints_are_kept_in_the_source_and_damaged_ones_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "in", [[3], [2]], damaged=[1])
    index = ClipIndex.load([str(tmp_path / "in")], None)
    made = load_fingerprints(index, IN_PROCESS)
    assert made.shape == (5, DIM) and np.flatnonzero(~made.any(axis=1)).tolist() == [1]
    expected = fingerprint(tone(0, 4_000), LOG_MEL)
    np.testing.assert_allclose(made[0].astype(np.float32), expected, atol=1e-3)
    kept = sorted((tmp_path / "in" / "fingerprints-1").iterdir())
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-5])
    assert np.array_equal(load_fingerprints(index, IN_PROCESS), made)
    monkeypatch.setattr(fingerprints, "fingerprint_units", None)  # none are missing now, so it is not called
    assert np.array_equal(load_fingerprints(index, IN_PROCESS), made)


def test_sources_of_other_front_ends_are_refused(sources: tuple[str, str], tmp_path: Path) -> None:
    write_source(tmp_path / "in", [[3]])
    manifest = json.loads((tmp_path / "in" / "manifest.json").read_text())
    manifest["config"]["front_end"]["hop"] = 200
    (tmp_path / "in" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="were prepared with different front ends"):
        find_copies(ClipIndex.load([str(tmp_path / "in")], None), ClipIndex.load([sources[0]], None), IN_PROCESS)


def test_copies_of_clips_among_themselves_and_pairs_in_a_folder_are_refused(
    sources: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"both select .*second/0*1\.parquet, whose clips would be found as copies of them"
    ):
        duplicates(sources[1], sources, splits=["test"])
    (tmp_path / "link").symlink_to(sources[1])
    for same in (sources[1], str(tmp_path / "link"), sources[1] + "/"):
        with pytest.raises(ValueError, match=r"names .*second twice, so its clips would be counted twice and found as"):
            duplicates((sources[1], same))
        with pytest.raises(ValueError, match=r"both select .*second/0*0\.parquet, whose clips would be found"):
            duplicates(sources[1], same)
    with pytest.raises(ValueError, match="is a folder, and the pairs are one CSV file: name a file"):
        duplicates(sources[0], output=str(tmp_path))


@pytest.mark.usefixtures("ray_session")
def test_the_command_line_and_prepare_count_near_copies(
    sources: tuple[str, str], tmp_path: Path, command_line: Callable[..., Ended], caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "copies.csv"
    arguments = ["--against", sources[1], "--against-splits", "train", "--output", str(output)]
    assert len(duplicates(sources[0], [sources[1]], against_splits=["test"]).pairs) == 1
    ended = command_line("duplicates", sources[0], *arguments)
    assert ended.code == 0 and "2 of 30 clips have a near-copy" in ended.out
    assert len(output.read_text().splitlines()) == 3
    audio = tmp_path / "audio"
    audio.mkdir()
    for seed in (2, 500, 501):
        (audio / f"{seed}.flac").write_bytes(encode_flac(babble(seed), RATE))
    prepare = ["prepare", "--source", str(audio), "--output", str(tmp_path / "shards"), "--near-copies", *sources]
    assert command_line(*prepare).code == 0
    assert "1 of 3 clips have a near-copy" in caplog.text and "such as 2.flac in clip-2 (1.000)" in caplog.text
    assert command_line(*prepare[:5]).code == 0  # near_copies does not change the shards
    again = command_line(*prepare, "--dry-run")
    assert again.code == 0 and "nothing to do but to search for near-copies in" in " ".join(again.out.split())


def test_sources_that_near_copies_cannot_be_looked_for_in_are_refused_before_the_ingest(
    sources: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/1.flac").write_bytes(encode_flac(babble(1), RATE))
    config = PrepareConfig(source=str(tmp_path / "audio"), output=str(tmp_path / "out"), near_copies=(sources[0],))
    assert "search for near-copies in" in text_of(ingest.describe(ingest.check(config)))
    with pytest.raises(FileNotFoundError, match=r"typo holds no manifest\.json"):
        ingest.check(config.replace(near_copies=[sources[0], str(tmp_path / "typo")]))
    with pytest.raises(ValueError, match=r"near_copies=.* was prepared with another front end .*hop: 160 → 200"):
        ingest.check(config.replace({"front_end.hop": 200}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before", ["teacher", "init_from", "fork"])
def test_a_network_has_heard_what_those_before_it_heard(before: str, tmp_path: Path) -> None:
    first, second = (write_encoder(tmp_path / name, "fc1") for name in ("first", "second"))
    for uri, config in (
        (first, {"data": ["old", "both"], "splits": ["", "train"]}),
        (second, {"data": ["new", "both"], "splits": ["train"], before: first}),
    ):
        path = Path(uri) / "encoder.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": {"config": config}}))
    assert leakage.training_sources(second) == (
        ("both", ("", "train")),
        ("new", ("train",)),
        ("old", ("", "train")),
    )


def test_a_table_says_how_many_test_clips_have_a_near_copy_in_what_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = [babble(seed, 6_000) for seed in range(36)]
    task = write_task(tmp_path / "task", 18, 6, 12)
    replace_columns(tmp_path / "task", audio=[encode_flac(w, RATE) for w in waves], num_samples=[6_000] * 36)
    heard_waves = [babble(seed, 6_000) for seed in range(200, 230)]
    heard_waves[5] = ALTERATIONS["MP3"](waves[30], RATE)
    source = write_babble(tmp_path / "heard", heard_waves, ("train",))
    models = []
    for name, extra in (("teller", {"data": [source], "splits": ["", "train"]}), ("mute", None)):
        uri = write_encoder(tmp_path / name, "fc1")
        description = json.loads((tmp_path / name / "encoder.json").read_text())
        (tmp_path / name / "encoder.json").write_text(json.dumps(description | {"extra": {"config": extra}}))
        models.append(uri)
    notes = evaluated(tmp_path, task, *models).notes
    note = ". ".join(notes)
    assert "task, test: 1 of 12 clips have a near-copy (similarity 0." in note
    assert "such as clip-30 in clip-5 (" in note and "among the 30 training clips of teller" in note
    assert "not searched among the training clips of mute (its export does not say)" in note
    written = (tmp_path / "out" / "table.md").read_text()
    assert all(f"- {each}.\n" in written for each in notes)
    read = json.loads((tmp_path / "out" / "evaluation.json").read_text())["encoders"]
    own = {name: json.loads((tmp_path / name / "encoder.json").read_text())["sha256"] for name in ("teller", "mute")}
    assert read == {name: {"task": [sha256]} for name, sha256 in own.items()}
    other = write_task(tmp_path / "other", 18, 6, 12)
    both = evaluated(tmp_path, task, models[1], tasks=(task, other)).notes
    assert [each.partition(": ")[0] for each in both if "not searched" in each] == ["task, other"]
    tested = ClipIndex.load([task], ["test"])
    monkeypatch.setattr(leakage, "_SECONDS_UNASKED", 1.0)
    assert "have a near-copy" in leakage.near_copies("task", tested, {"teller": models[0]})[0]  # from kept fingerprints
    for path in (tmp_path / "heard" / "fingerprints-1").iterdir():
        path.unlink()
    (said,) = leakage.near_copies("task", tested, {"teller": models[0]})
    assert "hours without fingerprints: make them by unfused-ray duplicates" in said
