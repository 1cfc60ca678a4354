"""Recognises the names of splits in columns, files and folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum

from unfused_ray.data.sources.notes import Note, Notes

EVAL = "eval"
"""Split of clips called eval or evaluation, until :func:`resolve_eval` knows the names of all other splits."""

_ROLES = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "validset", "valset", "devset"), "valid"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
    **dict.fromkeys(("eval", "evaluation", "evalset"), EVAL),
}
_HELD_OUT = {"valid", "test", EVAL}


class Plainness(IntEnum):
    """How plainly a name gives a split."""

    NONE = 0
    WORD = 1
    """A word within the name is a split: ``speech-train``, ``test_tone``."""
    PART = 2
    """The name begins with a split: ``test-clean``, but also ``train-horn``."""
    WHOLE = 3
    """The whole name is that of a split: ``test``, ``Test Set``, ``dev_data``, ``fold3``."""


_FOLD = re.compile(r"(?:fold)?[ _-]?0*(\d+)(?:\.0+)?")
_NAMED_FOLD = re.compile(r"fold[ _-]?0*\d+")
_SHARD_NUMBERS = re.compile(r"[-_.]\d+[-_.]of[-_.]\d+.*$|[-_.]?\d+$")  # of the hub; sometimes followed by a hash
_PART = re.compile(r"([A-Za-z]+)[-.](.+)")  # train.clean.100 of the hub, test-other of LibriSpeech
_PART_OF_VALUE = re.compile(r"([A-Za-z]+)[_ ]([\w.-]+)")  # test_clean
_SET = re.compile(r"(.*[^ _-])[ _-]+(?:set|split)")  # Training Set
_COLUMN = re.compile(r"(?:is_|in_)?([a-z]+?)(?:_set|_split)?")
_WORD = re.compile(r"[a-z]+")
_OF_LISTS = {"list", "lists", "files", "filelist", "filelists", "filenames", "split", "splits", "segments", "manifest"}
_BESIDE_SPLITS = {"set", "fold", "data", "clean", "other"}


def split_of_value(value: str) -> str:
    """Return the split that a value of a split column names; an unrecognised value is a split of its own.

    ``test-…`` is a part of the test clips, which an evaluation also reports by itself.
    """
    name = value.strip()
    found = _SET.fullmatch(name.casefold())
    for whole in (found.group(1) if found else name, name):
        if is_recognised(split := _split_of_whole(whole)):
            return split
    part = _PART_OF_VALUE.fullmatch(name)
    role = _ROLES.get(part.group(1).casefold(), "") if part else ""
    if part and role in _HELD_OUT:  # clips of train_small may also be in train, so it stays a split of its own
        return f"test-{re.sub('[_. ]', '-', part.group(2))}" if role == "test" else role
    return name


def _split_of_whole(name: str) -> str:
    """Return the split with this name, in any case; the name itself if it is no known split."""
    lower = name.casefold()
    if lower in _ROLES:
        return _ROLES[lower]
    if _NAMED_FOLD.fullmatch(lower):
        return fold(lower) or name
    if (part := _PART.fullmatch(name)) and (role := _ROLES.get(part.group(1).casefold())):
        return f"test-{part.group(2).replace('.', '-')}" if role == "test" else role
    return name


def fold(value: str) -> str | None:
    """Return the split of a fold's number or name, such as ``3``, ``3.0`` or ``fold03``; None for other values."""
    found = _FOLD.fullmatch(value.strip().casefold())
    return f"fold{found.group(1)}" if found else None


def is_recognised(split: str) -> bool:
    """Return True for train, valid, test, a part of test, eval, or a fold."""
    return split in _ROLES.values() or split.startswith("test-") or _NAMED_FOLD.fullmatch(split) is not None


def is_held_out(name: str) -> bool:
    """Return True if a name, recognised as a split or not, says that clips are held out."""
    return _NAMED_FOLD.fullmatch(name) is not None or bool(_HELD_OUT & _roles(name))


def lists_held_out(stem: str, is_text: bool = False) -> bool:
    """Return True if the name of a file says that the file may list or hold clips that are held out.

    Args:
        stem: the name without its suffix.
        is_text: the file ends in ``.txt`` or ``.json``, as notes and settings do too. Then the name must be that of a
            split alone, or of a list (``testing_list``, not ``requirements-dev`` or ``eval_results``).
    """
    words = set(_WORD.findall(stem.casefold()))
    return is_held_out(stem) and (not is_text or bool(words & _OF_LISTS) or words <= _ROLES.keys() | _BESIDE_SPLITS)


def split_of_column(name: str) -> str:
    """Return the split that a column is named after, such as ``is_test`` or ``train_set``; "" for any other column."""
    found = _COLUMN.fullmatch(name.casefold())
    return _ROLES.get(found.group(1), "") if found else ""


def split_of_name(name: str) -> str:
    """Return the split that the name of a file or folder, without suffix, gives; "" if it gives none, or two.

    The name is that of a split, or has one among its words, as on the hub (``train.clean.100-00000-of-00001``), in
    LibriSpeech (``test-other``) or in WebDataset (``speech-train-000012``).
    """
    return named_split(name)[0]


def named_split(name: str) -> tuple[str, Plainness]:
    """Return the split that the name of a file or folder gives, as :func:`split_of_name` does, and how plainly."""
    stem = without_numbers(name)
    for whole in (stem, name):
        if is_recognised(split := _split_of_whole(whole)):
            is_part = _PART.fullmatch(whole) is not None and _NAMED_FOLD.fullmatch(whole.casefold()) is None
            return split, Plainness.PART if is_part else Plainness.WHOLE
    roles = _roles(stem)
    if len(roles) != 1:
        return "", Plainness.NONE
    is_whole = set(_WORD.findall(stem.casefold())) <= _ROLES.keys() | _BESIDE_SPLITS
    return roles.pop(), Plainness.WHOLE if is_whole else Plainness.WORD


def split_of_folder(name: str) -> str:
    """Return the split that a whole source's folder is named after, such as ``test`` or ``test-clean``; "" if none."""
    split = _split_of_whole(name)
    return split if is_recognised(split) else ""


def without_numbers(name: str) -> str:
    """Return the part of the name that the shards of a split share."""
    return _SHARD_NUMBERS.sub("", name) or name


def names_recognised(names: Counter[tuple[str, str]], unit: str = "clips") -> Notes:
    """Note each name that was recognised as a differently named split; keys are (name, split)."""
    return Counter(
        {
            Note("names recognised", f"{name} → {split}", unit): count
            for (name, split), count in names.items()
            if name != split
        }
    )


def resolve_eval(splits: Sequence[str]) -> tuple[list[str], Notes]:
    """Assign clips of eval or evaluation to test if no other name gives test, otherwise to valid.

    Eval is the test set in AudioSet, in FSD50K and on the hub; beside a test set it is a validation set. If both valid
    and test are named too, eval stays a split of its own.
    """
    others = {split.partition("-")[0] for split in splits} - {EVAL}
    role = next((split for split in ("test", "valid") if split not in others), EVAL)
    count = sum(split == EVAL for split in splits)
    if not count:
        return list(splits), Counter()
    if role == EVAL:
        text = f"{count:,} clips are called eval beside others of valid and of test: eval stays a split of its own"
        return list(splits), Counter({Note("look again", text): 1})
    return [role if split == EVAL else split for split in splits], names_recognised(Counter({(EVAL, role): count}))


def split_of_clip(name: str) -> str:
    """Return the split that the first or last word of a clip's file name gives; "" if they give none, or two."""
    words = _WORD.findall(name.casefold().rpartition(".")[0] or name.casefold())
    roles = {_ROLES[word] for word in (*words[:1], *words[-1:]) if word in _ROLES}
    return roles.pop() if len(roles) == 1 else ""


def _roles(name: str) -> set[str]:
    return {_ROLES[word] for word in _WORD.findall(name.casefold()) if word in _ROLES}
