"""The LAPE tasks, on miniatures of their data sets: splits, labels, groups, rejects and refusals."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support import lape_sets
from support.inputs import rows_by_key
from support.tasks import PROTOCOL, write_encoder
from support.terminal import Ended, text_of

from unfused_ray.api import prepare
from unfused_ray.audio.decode import decode, read_flac
from unfused_ray.config import EvaluateConfig, LapeTaskCode, PrepareConfig
from unfused_ray.data.parts.rejects import REJECTS, write_rejects
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.ingest import check, describe
from unfused_ray.data.sources.lape.disk import Entry
from unfused_ray.data.sources.lape.registry import TASKS, list_task
from unfused_ray.data.sources.lape.splits import deal
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan

ELEVEN = ("sc-v1", "sc-v2-12", "sc-v2-35", "lbs", "vc", "ic", "vf", "ns", "bsd", "tut", "us8k")
# In the miniatures: number of clips by split, and number of rejects by reason.
CLIPS: dict[str, dict[str, int]] = {
    "sc-v1": {"train": 40 + 4 + 4, "valid": 10 + 2 + 2, "test": 24},
    "sc-v2-12": {"train": 40 + 4 + 4, "valid": 10 + 2 + 2, "test": 24},
    "sc-v2-35": {"train": 48, "valid": 12, "test": 12},
    "lbs": {"train": 16, "valid": 3, "test": 4},
    "vc": {"train": 9, "valid": 3, "test": 3},
    "ic": {f"fold{session}": 8 for session in range(1, 6)},
    "vf": {"train": 60, "valid": 12, "test": 12},
    "ns": {"train": 12, "valid": 4, "test": 4},
    "bsd": {"train": 28, "valid": 3, "test-ff1010bird": 4, "test-warblrb10k": 4},
    "tut": {"train": 12, "valid": 4, "test": 8},
    "us8k": {f"fold{fold}": 9 if fold == 4 else 6 for fold in range(1, 11)},
    "lbs-chapters": {"train": 6 + 3 + 5, "valid": 3, "test": 6},
}
REJECTED: dict[str, dict[str, int]] = {
    "sc-v1": {"missing": 1},
    "sc-v2-12": {"missing": 1},
    "sc-v2-35": {"duplicate": 1, "missing": 1},
    "vc": {"duplicate": 1, "missing": 1, "unlisted": 1},
    "ic": {"unlisted": 1},
    "vf": {"duplicate": 1},
    "ns": {"missing": 1, "unlisted": 1},
    "bsd": {"duplicate": 2, "unlisted": 1, "wrong format": 1},
    "tut": {"unlisted": 1},
    "us8k": {"missing": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all data sets; tests do not write to it."""
    folder = tmp_path_factory.mktemp("data")
    lape_sets.write_all(folder)
    return folder


def rows_of(root: Path, code: str) -> list[dict[str, Any]]:
    return list_task(code, str(root)).items.to_pylist()


def labels_of(rows: list[dict[str, Any]], split: str) -> Counter[str]:
    return Counter(label for row in rows if row["split"] == split for label in row["labels"])


def splits_by_group(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    splits = defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
    return splits


def test_the_registry_knows_the_tasks_that_can_be_named() -> None:
    assert tuple(TASKS) == get_args(LapeTaskCode) == (*ELEVEN, "lbs-chapters")


def test_parts_of_a_file_that_begin_within_a_millisecond_have_keys_of_their_own() -> None:
    keys = {Entry("noise.wav", "silence", "train", start=start, seconds=1.0).key for start in (10.00001, 10.00002)}
    assert len(keys) == 2


@pytest.fixture(scope="module")
def prepared(root: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """The shards of every task."""
    output = tmp_path_factory.mktemp("shards")
    found = {}
    for code in TASKS:
        manifest = prepare(PrepareConfig(task=code, root=str(root), output=str(output / code)))
        assert manifest is not None
        found[code] = manifest
    return found


def test_every_task_becomes_shards_with_its_splits_and_what_is_set_aside(prepared: dict[str, Manifest]) -> None:
    assert {code: dict(task.clips_by_split) for code, task in prepared.items()} == {
        code: {split: CLIPS[code][split] for split in sorted(CLIPS[code])} for code in TASKS
    }
    assert {code: task.rejects for code, task in prepared.items() if task.rejects} == REJECTED
    for task in prepared.values():
        for reject in pq.read_table(Path(task.uri, REJECTS)).to_pylist():
            assert reject["detail"]
        assert task.summary is not None
        # lbs and vc recognise speakers, so their speakers are in train and test.
        assert not any("more than one split" in said for said in task.summary.sentences)


def test_shards_hold_the_sound_of_the_files_at_16_khz_whatever_their_rate(
    root: Path, prepared: dict[str, Manifest]
) -> None:
    for code in ("sc-v2-35", "vf", "bsd", "tut", "us8k"):
        rows = rows_by_key(prepared[code])
        listed = rows_of(root, code)
        assert rows.keys() == {row["key"] for row in listed} - {"warblrb10k/wav/759809.wav"}
        rates = set()
        for row in listed:
            if shard_row := rows.get(row["key"]):
                rates.add(soundfile.info(row["uri"]).samplerate)
                (expected,) = decode(io.BytesIO(Path(row["uri"]).read_bytes()), 16_000, 160_000)
                pcm = read_flac(shard_row["audio"], 0, shard_row["num_samples"])
                np.testing.assert_array_equal(pcm, expected)
                assert (shard_row["labels"], shard_row["group"]) == (row["labels"], row["group"])
        assert rates != {16_000}


def test_short_and_silent_clips_of_a_published_set_are_kept(prepared: dict[str, Manifest]) -> None:
    silent = rows_by_key(prepared["sc-v1"])["speech_commands_test_set_v0.01/_silence_/1.wav"]
    assert not read_flac(silent["audio"], 0, silent["num_samples"]).any()
    assert silent["num_samples"] == 16_000
    assert rows_by_key(prepared["us8k"])["UrbanSound8K/audio/fold1/100010-0-0-0.wav"]["num_samples"] == 800


def test_silence_is_cut_out_of_the_noises_of_which_validation_has_one_for_itself(
    root: Path, prepared: dict[str, Manifest]
) -> None:
    rows = rows_by_key(prepared["sc-v2-12"])
    silences = [row for row in rows_of(root, "sc-v2-12") if row["seconds"] is not None]
    assert len(silences) == 4 + 2
    for row in silences:
        noise, rate = soundfile.read(row["uri"], dtype="int16")
        first = round(row["start"] * rate)
        cut = rows[row["key"]]
        assert cut["labels"] == ["_silence_"]
        np.testing.assert_array_equal(read_flac(cut["audio"], 0, cut["num_samples"]), noise[first : first + rate])
        assert (Path(row["uri"]).name == "running_tap.wav") == (row["split"] == "valid")
    assert len({row["start"] for row in silences}) == len(silences)
    assert len({row["uri"] for row in silences}) == 3


def test_speech_commands_of_12_classes_takes_a_tenth_of_other_words_and_the_published_test_set(root: Path) -> None:
    for code in ("sc-v1", "sc-v2-12"):
        rows = rows_of(root, code)
        assert set(labels_of(rows, "test").values()) == {2}
        for split, size in (("train", 4), ("valid", 1)):
            labels = labels_of(rows, split)
            others = 4 if split == "train" else 2  # a tenth of 40, or of 10 with the missing clip, rounded up
            assert (labels.pop("_unknown_"), labels.pop("_silence_")) == (others, others)
            assert len(labels) == 10 and set(labels.values()) == {size}
        unknown = {row["key"].split("/")[1] for row in rows if "_unknown_" in row["labels"] and row["split"] != "test"}
        assert unknown <= {"bed", "marvin"}
        assert len(labels_of(rows, "test")) == 12


@pytest.mark.parametrize("code", ["sc-v1", "sc-v2-12", "sc-v2-35", "vf", "tut", "ic", "us8k", "lbs-chapters"])
def test_no_speaker_submission_location_session_or_recording_is_torn_apart(root: Path, code: str) -> None:
    for group, splits in splits_by_group(rows_of(root, code)).items():
        assert len(splits) == 1 or not group


def test_speakers_to_be_told_apart_are_in_every_split_with_chapters_and_videos_as_groups(root: Path) -> None:
    for code in ("lbs", "vc"):
        rows = rows_of(root, code)
        speakers = labels_of(rows, "train").keys()
        assert labels_of(rows, "valid").keys() == labels_of(rows, "test").keys() == speakers
    assert any(len(splits) > 1 for splits in splits_by_group(rows_of(root, "lbs")).values())
    groups = {row["group"] for row in rows_of(root, "vc")}
    assert len(groups) == 6 and "id10001/na8-QEFmj44" in groups


def test_of_readers_with_one_chapter_none_is_tested_and_of_two_none_validates(root: Path) -> None:
    rows = rows_of(root, "lbs-chapters")
    splits = {reader: {row["split"] for row in rows if row["labels"] == [reader]} for reader in ("103", "1034", "19")}
    assert splits == {"103": {"train", "valid", "test"}, "1034": {"train", "test"}, "19": {"train"}}


def test_each_source_of_birds_is_dealt_out_by_label_and_tested_as_a_part(root: Path) -> None:
    rows = rows_of(root, "bsd")
    for source in ("ff1010bird", "warblrb10k"):
        of_source = [row for row in rows if row["key"].startswith(source)]
        assert labels_of(of_source, f"test-{source}") == {"bird": 2, "no bird": 2}
        assert labels_of(of_source, "valid") == {"bird": 1, "no bird": 1}
        assert labels_of(of_source, "train") == {"bird": 7, "no bird": 7}


def test_emotions_are_the_four_and_a_session_is_a_fold_of_two_speakers(root: Path) -> None:
    rows = rows_of(root, "ic")
    for session in range(1, 6):
        assert labels_of(rows, f"fold{session}") == {"neu": 2, "ang": 2, "sad": 2, "hap": 2}
        speakers = {row["group"] for row in rows if row["split"] == f"fold{session}"}
        assert speakers == {f"Ses0{session}F", f"Ses0{session}M"}


def test_synth_lead_is_in_training_alone_and_instruments_are_groups(root: Path) -> None:
    rows = rows_of(root, "ns")
    assert labels_of(rows, "train") == {"bass": 4, "string": 4, "synth_lead": 4}
    assert labels_of(rows, "test") == labels_of(rows, "valid") == {"bass": 2, "string": 2}
    assert {row["group"] for row in rows if row["split"] == "test"} == {"bass_acoustic_001", "string_acoustic_001"}


def test_validation_of_scenes_has_locations_of_every_scene_to_itself(root: Path) -> None:
    rows = rows_of(root, "tut")
    assert labels_of(rows, "valid") == {"airport": 2, "street_pedestrian": 2}
    assert {row["group"] for row in rows if row["split"] == "test"} == {
        f"barcelona-{location}" for location in (4, 5, 10, 11)
    }


@pytest.mark.parametrize("code", TASKS)
def test_what_a_folder_lacks_is_said_in_one_error_with_its_place_and_where_to_get_it(tmp_path: Path, code: str) -> None:
    task = TASKS[code]
    with pytest.raises(FileNotFoundError) as refusal:
        prepare(PrepareConfig(task=code, root=str(tmp_path), output=str(tmp_path / "out")))
    message = str(refusal.value)
    assert f"{len(task.requires)} of {len(task.requires)}" in message
    for part in (task.name, str(tmp_path), task.requires[0], task.url, task.archives):
        assert part in message


def test_a_renamed_list_is_the_only_thing_that_is_missing(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "UrbanSound8K", tmp_path / "UrbanSound8K")
    (tmp_path / "UrbanSound8K/metadata/UrbanSound8K.csv").rename(tmp_path / "UrbanSound8K/metadata/us8k.csv")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .*\(UrbanSound8K/metadata/UrbanSound8K\.csv\)\. Get it from"):
        list_task("us8k", str(tmp_path))


@pytest.mark.parametrize(
    ("code", "folder"), [("us8k", "UrbanSound8K/audio"), ("tut", "TUT-urban-acoustic-scenes-2018-development/audio")]
)
def test_a_list_most_of_whose_files_are_not_there_is_refused(
    root: Path, tmp_path: Path, code: str, folder: str
) -> None:
    shutil.copytree(root / folder.split("/")[0], tmp_path / folder.split("/")[0])
    shutil.rmtree(tmp_path / folder)
    (tmp_path / folder).mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"(64 of the 64|24 of the 24) files .* are missing \(.*, .*, .* and (61|21) more\)"
    ):
        list_task(code, str(tmp_path))


@pytest.mark.parametrize(
    ("code", "path", "content", "message"),
    [
        ("vc", "VoxCeleb1/iden_split.txt", "1 id1/v/1.wav\n4 id1/v/2.wav\n", r"its line 2 is '4 id1/v/2\.wav'"),
        ("us8k", "UrbanSound8K/metadata/UrbanSound8K.csv", "slice_file_name,fold\na.wav,1\n", "without fsID, class"),
        ("bsd", "ff1010bird/ff1010bird_metadata_2018.csv", "itemid,hasbird\n1,maybe\n", "hasbird of 1 is 'maybe'"),
        ("bsd", "ff1010bird/ff1010bird_metadata_2018.csv", "itemid,hasbird\n1,1\n2,\n", "its row 2 has no hasbird"),
        ("ns", "nsynth-valid/examples.json", '{"a": {}}', "KeyError: 'instrument_family_str'"),
        ("ns", "nsynth-valid/examples.json", "<html>", "JSONDecodeError"),
        (
            "ns",
            "nsynth-valid/examples.json",
            '{"a": {"instrument_family_str": NaN, "instrument_str": "b"}}',
            "TypeError: an instrument's name is no text",
        ),
        ("sc-v2-35", "speech_commands_v0.02/testing_list.txt", "\xff\xfe", "no utf-8-sig text"),
        (
            "tut",
            "TUT-urban-acoustic-scenes-2018-development/evaluation_setup/fold1_train.txt",
            "a.wav",
            "its line 1 is",
        ),
    ],
)
def test_a_list_that_is_not_the_publishers_is_refused_with_its_place(
    root: Path, tmp_path: Path, code: str, path: str, content: str, message: str
) -> None:
    for required in TASKS[code].requires:
        (tmp_path / required).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (root / required).is_dir() else shutil.copy
        copy(root / required, tmp_path / required)
    (tmp_path / path).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as refusal:
        list_task(code, str(tmp_path))
    assert path in str(refusal.value) and TASKS[code].url in str(refusal.value)


def test_a_data_set_of_which_a_part_is_extracted_is_said_to_be_another_task(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = list_task("us8k", str(root)).items
    found, classes = len(items), len({label for (label,) in items["labels"].to_pylist()})
    assert f"UrbanSound8K in {root} has {found} clips of {classes} classes, as published 8,732 of 10" in caplog.text
    caplog.clear()
    whole = replace(TASKS["us8k"], clips=found, classes=classes)
    monkeypatch.setitem(TASKS, "us8k", whole)
    list_task("us8k", str(root))
    assert not caplog.text
    for part in ({"classes": classes + 1}, {"clips": found + 2}):
        monkeypatch.setitem(TASKS, "us8k", replace(whole, **part))
        list_task("us8k", str(root))
        assert f"has {found} clips of {classes} classes" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    ("code", "folder", "copies"),
    [
        ("vc", "VoxCeleb1", ("wav/id10001/v/\udce4.wav", "dev/wav/id10001/v/\udce4.wav")),
        ("vf", "voxforge", ("de/anna-20081000-abc/wav/\udce4.wav", "de/anna-20081000-abc/flac/\udce4.flac")),
    ],
)
def test_a_clip_that_is_there_twice_is_set_aside_even_if_its_name_is_not_utf8(
    root: Path, tmp_path: Path, code: str, folder: str, copies: tuple[str, str]
) -> None:
    shutil.copytree(root / folder, tmp_path / folder)
    for name in copies:
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch()
    rejects = list_task(code, str(tmp_path)).rejects
    write_rejects(str(tmp_path / REJECTS), rejects)
    assert "duplicate" in [reject.reason for reject in rejects if r"\udce4" in reject.key]


@pytest.mark.parametrize("code", TASKS)
def test_the_data_sets_own_folder_may_be_named_instead_of_the_one_above(root: Path, code: str) -> None:
    own = root / TASKS[code].requires[0].split("/")[0]
    assert list_task(code, str(own)).items == list_task(code, str(root)).items


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "us8k", "source": "x"}, "task=us8k and source=x contradict each other"),
        ({"root": "x"}, "root=x has no effect without a task"),
        ({"task": "lbs", "max_seconds": 4.0}, "max_seconds=4.0 has no effect with task=lbs"),
        ({"task": "sc-v3"}, "sc-v2-12"),
    ],
)
def test_settings_that_contradict_a_task_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrepareConfig(**fields)


def test_the_root_is_that_of_the_environment_and_one_is_needed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrepareConfig(task="ic", output=str(tmp_path / "out"))
    monkeypatch.delenv("UNFUSED_RAY_DATA", raising=False)
    with pytest.raises(ValueError, match=r"UNFUSED_RAY_DATA: give --root"):
        check(config)
    monkeypatch.setenv("UNFUSED_RAY_DATA", str(root))
    told = text_of(describe(check(config)))
    assert "would prepare" in told and "fold5" in told and "set aside: unlisted" in told


def test_a_prepared_task_is_known_again_and_another_task_is_refused_in_its_place(
    root: Path, prepared: dict[str, Manifest]
) -> None:
    done = prepared["tut"]
    config = PrepareConfig(task="tut", root=str(root), output=done.uri)
    assert check(config).finished == done
    with pytest.raises(ValueError, match="task: tut there, ic asked for"):
        check(config.replace(task="ic"))


def test_the_tasks_are_listed_with_their_facts_and_what_is_on_this_disk(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Ended]
) -> None:
    monkeypatch.delenv("UNFUSED_RAY_DATA", raising=False)
    shutil.copytree(root / "nsynth-test", tmp_path / "nsynth-test")
    shown = {}
    for folder in ("", str(root), str(tmp_path)):
        ended = command_line("tasks", "--root", folder)
        assert ended.code == 0
        facts, addresses = ended.out.split("where to get them")
        shown[folder] = {line.split()[0]: line for line in facts.splitlines() if line[1:2].isalpha()}
    for code, task in TASKS.items():
        for fact in (task.name, f"{task.classes:,}", f"{task.clips:,}", f"{task.hours:g}", task.licence):
            assert fact in shown[""][code]
        (line,) = (line for line in addresses.splitlines() if code in line.replace(",", "").split())
        assert line.split()[-1] == task.url
        assert shown[str(root)][code].rstrip().endswith("there")
    assert shown[str(tmp_path)]["ns"].rstrip().endswith("without nsynth-train/examples.json and 3 more")
    assert shown[str(tmp_path)]["ic"].rstrip().endswith("–")


names = st.sets(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=40)


@given(names)
def test_dealing_gives_each_split_its_share_and_training_the_rest(found: set[str]) -> None:
    dealt = deal([*found, *found], {"test": 0.2, "valid": 0.1})
    assert dealt.keys() == found
    sizes = Counter(dealt.values())
    assert sizes["train"] >= 1
    if len(found) > 2:
        assert sizes["test"] == max(1, round(0.2 * len(found)))
        assert sizes["valid"] == max(1, round(0.1 * len(found)))


@given(names, st.randoms())
def test_dealing_depends_on_the_names_alone_and_changes_little_with_one_more(found: set[str], random: Any) -> None:
    order = sorted(found)
    random.shuffle(order)
    dealt = deal(order, {"test": 0.5})
    assert dealt == deal(found, {"test": 0.5})
    more = deal([*order, "another"], {"test": 0.5})
    assert sum(more[name] != dealt[name] for name in found) <= 1


def test_one_evaluation_of_an_encoder_fills_a_table_of_eleven_columns(
    prepared: dict[str, Manifest], tmp_path: Path, ray_session: None
) -> None:
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    config = EvaluateConfig(
        models=(f"tiny={write_encoder(tmp_path / 'tiny', 'fc2')}",),
        tasks=tuple(prepared[code].uri for code in ELEVEN),
        output=str(tmp_path / "out"),
        cache=str(tmp_path / "cache"),
        protocol=str(tmp_path / "protocol.toml"),
        random_seeds=0,
        shared_clips="keep",  # the miniatures repeat their 40 recordings
    )
    table = evaluation_job.run(evaluation_plan.check(config))
    assert table.tasks == ELEVEN
    assert table.num_folds == {"ic": 5, "us8k": 10}
    for row in table.rows:
        for code in ELEVEN:
            cell = json.loads((tmp_path / "out" / code / f"{row.name.replace(' ', '-')}.json").read_text())
            for measure in MEASURES:
                accuracies = [np.mean(result["scores"][measure]) for result in cell["seeds"]]
                assert len(accuracies) == table.num_folds.get(code, 1)
                assert row.accuracy[measure][code].value == pytest.approx(np.mean(accuracies))
            tested = sum(len(result["linear"]["predictions"]) for result in cell["seeds"])
            of_test = [size for split, size in CLIPS[code].items() if split.startswith(("test", "fold"))]
            assert tested == sum(of_test)
            listed = rows_by_key(prepared[code]).values()
            assert len(cell["classes"]) == len({label for each in listed for label in each["labels"]})
        assert row.accuracy_by_part["bsd"].keys() == {"ff1010bird", "warblrb10k"}
    written = (tmp_path / "out" / "table.md").read_text()
    assert written.startswith(f"| system | parameters | M multiply–adds / s | {' | '.join(MEASURES)} |\n")
    assert written.count(f"\n| system | {' | '.join(ELEVEN)} | mean |\n") == 2 * len(MEASURES)
