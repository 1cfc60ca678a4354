"""The tasks of the corpus, one module each. README.md of the package explains how to write one."""

from __future__ import annotations

from corpus.clips import Task
from corpus.tasks import (
    chord,
    drum,
    effect,
    extra,
    inst,
    kws,
    letter,
    lid,
    mandarin,
    music,
    phrases,
    pitch,
    soundtrack,
    spk,
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        kws.TASK,
        lid.TASK,
        letter.TASK,
        spk.TASK,
        mandarin.TONE,
        mandarin.RIME,
        mandarin.ONSET,
        effect.TASK,
        drum.TASK,
        inst.TASK,
        pitch.TASK,
        chord.TASK,
        soundtrack.TASK,
        music.TASK,
        phrases.TASK,
        extra.SPEECH_TASK,
        extra.SOUNDS_TASK,
        extra.SAID_TASK,
    )
}
"""All tasks by name, in the order of the report."""
