"""Speech and sound tasks: rules, groups and splits on made-up files; synthesis if its programs are installed."""

from __future__ import annotations

import io
import itertools
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus import synthesis
from corpus.clips import Clip
from corpus.packages import Packages
from corpus.sounds import sounds, windows
from corpus.splits import SPLITS
from corpus.tasks import effect, extra, kws, lid, mandarin, spk


def level_db(wave: np.ndarray) -> float:
    """Return the root mean square, in dB of full scale."""
    return float(10 * np.log10((wave**2).mean()))


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("default grass footstep", "footstep"),
        ("walkie talkie", None),
        ("explosion plasma", "laser"),
        ("big explosion", "explosion"),
        ("shotgun", "gunshot"),
        ("shotgun reload", None),
        ("weapon switch", None),
        ("human female die", "cry"),
        ("diesel idle", None),
        ("wolf growl", "beast"),
        ("chicken die", "bird"),
        ("water splash", "water"),
        ("thunder", "weather"),
        ("helicopter engine inside", "engine"),
        ("menu theme", None),
        ("teleport", None),
        ("quake", None),
    ],
)
def test_effects_are_named_by_rules(words: str, label: str | None) -> None:
    assert effect.effect_class(words) == label


def test_games_that_share_sounds_have_one_split() -> None:
    for family in ("openarena", "tuxm", "tuxt", "freedroid", "lbreakout", "geki", "minetest"):
        assert len({split for name, split in effect.SPLIT_OF.items() if name.startswith(family)}) == 1, family
    assert effect.SPLIT_OF["madbomber-data"] == effect.SPLIT_OF["frozen-bubble-data"]
    assert list(effect.SPLIT_OF.values()).count("test") >= 20


def test_pre_training_hears_no_game_that_effect_holds_out() -> None:
    held = {name for name, split in effect.SPLIT_OF.items() if split != "train"}
    assert not held & set(extra.SOUNDS_TASK.packages)


def test_sounds_of_archives_are_read_and_known_by_their_bytes(tmp_path: Path) -> None:
    wave = np.sin(np.arange(8000) / 9).astype(np.float32) / 2
    file = io.BytesIO()
    soundfile.write(file, wave, 16000, format="WAV", subtype="PCM_16")
    (tmp_path / "game/share").mkdir(parents=True)
    (tmp_path / "game/share/FireBall2.wav").write_bytes(file.getvalue())
    with zipfile.ZipFile(tmp_path / "game/share/data.pk3", "w") as archive:
        archive.writestr("sound/steps/Snow_step.wav", file.getvalue())
        archive.writestr("readme.txt", "no sound")
    plain, packed = sounds(Packages(tmp_path), "game")
    assert (plain.words, packed.words, packed.name) == ("fire ball", "snow step", "sound/steps/Snow_step.wav")
    np.testing.assert_allclose(packed.load(), wave, atol=1e-4)
    assert plain.source == tmp_path / "game/share/FireBall2.wav"
    assert isinstance(packed.source, str)
    assert len(packed.source) == 40


def test_windows_cover_a_long_sound_without_overlap() -> None:
    wave = np.arange(16000 * 5, dtype=np.float32)
    parts = list(windows(wave, 1.5, 3))
    assert [len(part) for part in parts] == [24000] * 3
    assert parts[0][0] == 0
    assert parts[-1][-1] == wave[-1]
    assert parts[0][-1] < parts[1][0]
    assert len(next(iter(windows(wave[:100], 1.5, 3)))) == 100


@pytest.mark.parametrize(
    ("folder", "labels"),
    [
        ("ㄅㄧㄢ", ("1", "an", "b")),
        ("ㄓ4", ("4", "ih", "zh")),
        ("ㄨㄛ3", ("3", "o", None)),
        ("ㄇㄚ1", (None, "a", "m")),
        ("ㄅ", ("1", None, None)),
        ("ㄦ2", ("2", "er", None)),
    ],
)
def test_syllables_are_labelled_from_bopomofo(folder: str, labels: tuple[str | None, str | None, str | None]) -> None:
    match = mandarin._FOLDER.fullmatch(folder)
    assert match
    parts = match.groups()
    assert (mandarin.tone(*parts), mandarin.rime(*parts), mandarin.onset(*parts)) == labels


def test_every_rime_and_onset_is_in_every_split() -> None:
    folders = [onset + rime for onset in "ㄅㄇㄉㄌㄍㄓ" for rime in "ㄚㄢㄤㄥㄠ"]
    matches = [match for folder in folders if (match := mandarin._FOLDER.fullmatch(folder))]
    splits = mandarin._splits(matches)
    for place in (0, 2):
        for split in SPLITS:
            found = {match[place + 1] for match in matches if splits[mandarin._syllable(match)] == split}
            assert found == {match[place + 1] for match in matches}


def spoken_package(folder: Path) -> None:
    """Write the packages of spk; each file is a different second of noise."""
    syllables = ["".join(parts) for parts in itertools.product("ㄅㄇㄉㄌㄍㄓ", "ㄚㄢㄤㄥㄠ", ("", "2", "3", "4"))]
    files = [f"gcin-voice/{mandarin.SOUNDS}/{name}/{voice}.ogg" for name in syllables for voice in "35"]
    packs = f"hedgewars-data/{lid.VOICE_PACKS}"
    files += [f"{packs}/{pack}/Phrase{number}.ogg" for pack in ("Classic", "Default_pl") for number in "abcdefghijkl"]
    voices = "kajongg/usr/share/kajongg/voices"
    files += [f"{voices}/{voice}/tile{number}.ogg" for voice in ("de/male1", "female2") for number in "abcdefghijkl"]
    files += [f"fillets-ng-data-{name}/usr/share/games/fillets-ng/sound/room/x/a-m-b.ogg" for name in ("cs", "nl")]
    for number, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{number}".encode())
    for name in ("tuxpaint-stamps-default", "festvox-ru", "qabcs-data", "planetblupi-common"):
        (folder / name).mkdir()
    for place in (f"tuxpaint-stamps-default/{lid.STAMPS}", "planetblupi-common/usr/share/planetblupi/sound/de"):
        (folder / place).mkdir(parents=True)


def test_what_one_task_of_speech_trains_on_no_other_holds_out(tmp_path: Path) -> None:
    spoken_package(tmp_path)
    packages, splits_of = Packages(tmp_path), dict[Path, set[str]]()
    tasks = (spk.TASK, lid.TASK, mandarin.TONE, mandarin.RIME, mandarin.ONSET)
    for clip in (clip for task in tasks for clip in task.clips(packages) if isinstance(clip, Clip)):
        for source in clip.sources:
            assert isinstance(source, Path)
            splits_of.setdefault(source, set()).add(clip.split)
    assert {path: splits for path, splits in splits_of.items() if len(splits) > 1} == {}
    assert {next(iter(splits)) for splits in splits_of.values()} == set(SPLITS)
    joined = [clip for clip in spk.TASK.clips(packages) if len(clip.sources) == 5]  # type: ignore[union-attr]
    assert {clip.split for clip in joined} == set(SPLITS)  # type: ignore[union-attr]


def test_a_word_under_two_names_is_taken_once(tmp_path: Path) -> None:
    spoken_package(tmp_path)
    words = tmp_path / "planetblupi-common/usr/share/planetblupi/sound/de"
    for number in range(30):
        (words / f"sound{number:03d}.wav").write_bytes(b"same" if number in (4, 7) else f"word {number}".encode())
    taken = {
        source.name for clip in lid.clips(Packages(tmp_path)) for source in clip.sources if isinstance(source, Path)
    }
    assert {"sound004.wav", "sound007.wav"} & taken == {"sound004.wav"}


def test_stamps_that_say_the_same_are_one_group(tmp_path: Path) -> None:
    for name, text in (("a", "A frog.\nes.utf8=Una rana."), ("b", "A toad.\nes.utf8=¡Una rana!"), ("c", "A cow.")):
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    for name, content in (("c_desc_fr", b"same"), ("d_desc_fr", b"same"), ("e_desc_fr", b"other")):
        (tmp_path / f"{name}.ogg").write_bytes(content)
    groups = lid.stamp_groups(tmp_path)
    assert groups.find("a") == groups.find("b") != groups.find("c")
    assert groups.find("c") == groups.find("d") != groups.find("e")


def test_words_are_paired_with_each_other_once() -> None:
    a, b, c = (Path(name) for name in "abc")
    assert list(lid._neighbours([a, b, c])) == [(a, b), (b, c), (c, a)]
    assert list(lid._neighbours([a, b])) == [(a, b)]


def test_a_word_lies_above_its_background() -> None:
    generator = np.random.default_rng(0)
    background = generator.standard_normal(16000).astype(np.float32)
    word = np.sin(np.arange(4000) / 5).astype(np.float32)
    for number in range(5):
        mixed = kws._in_noise(word, 0.0, background, f"key/{number}")
        frames = (mixed**2).reshape(-1, 400).mean(1)
        assert len(mixed) == 16000
        assert 9 < 10 * np.log10(frames.max() / np.median(frames)) < 27


def test_pre_training_says_no_word_of_kws(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("yes\nzebra\nit\nHarold\ncat's\nseven\nwonderfully\ncastle\n")
    assert extra.vocabulary(tmp_path / "words") == ["zebra", "castle"]


def need(*programs: str) -> None:
    """Skip the test if programs are not installed, and name them."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def test_all_voices_of_a_person_have_one_split() -> None:
    need("espeak-ng")
    split_of: dict[str, str] = {}
    for voice in kws.voices():
        assert split_of.setdefault(voice.person, voice.split) == voice.split
    assert set(split_of.values()) == set(SPLITS)
    assert len({voice.key for voice in kws.voices() if voice.split == "test"}) >= 20
    assert split_of["klatt"] == split_of["rms"] == split_of["awb"] == "test"


@pytest.mark.parametrize(("engine", "voice"), [("espeak-ng", "m3"), ("flite", "kal16"), ("festival", "ked")])
def test_synthesisers_say_words_slower_when_asked(engine: str, voice: str) -> None:
    need(engine)
    try:
        fast, slow = synthesis.speak(engine, voice, [synthesis.Utterance("seven", rate) for rate in (1.3, 0.75)])
    except ValueError as error:
        pytest.skip(str(error))
    assert 0.15 < len(fast) / 16000 < len(slow) / 16000 < 1.2
    assert level_db(fast) > -60
