"""A record is a line of JSON with the run's fields; a worker's warnings have its rank, and credentials are masked."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from unfused_ray import logs
from unfused_ray.training.coordinator import Coordinator, Message

URI = "s3://alice:hunter2@bucket/a"


def test_a_warning_of_a_worker_reaches_whoever_watches_the_run_with_its_rank() -> None:
    coordinator, logger = Coordinator(None), logging.getLogger("unfused_ray.data.stream.read")
    with logs.forwarded(coordinator.note, 3):
        logger.warning("%s is damaged", "shard")
        logger.info("not this")
    logger.warning("nor this")
    assert coordinator.progress().messages == (Message("shard is damaged", 3),)


def test_a_record_is_a_line_of_json_with_the_fields_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, package = logging.getLogger(), logging.getLogger(logs.PACKAGE)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(package, "level", package.level)
    monkeypatch.setenv(logs.LOG_FILE, str(tmp_path / "log.jsonl"))
    logs.configure()
    logger = logging.getLogger("unfused_ray.training.worker.loop")
    with logs.fields(lambda: {"run": "1", "stage": "pretrain", "epoch": 2, "step": 7}):
        logger.warning("cannot read %s", URI, extra={"rank": 1})
        try:
            raise ValueError(f"{URI}\nis no file")
        except ValueError:
            logger.debug("only in the file", exc_info=True)
    logger.info("after the run")
    logging.getLogger("matplotlib.font_manager").info("generated new fontManager")
    logging.getLogger("matplotlib.font_manager").warning("a library warns")
    said = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["level"] for record in said] == ["WARNING", "DEBUG", "INFO", "WARNING"]
    assert {name: said[0].get(name) for name in ("run", "stage", "rank", "epoch", "step", "logger")} == {
        "run": "1", "stage": "pretrain", "rank": 1, "epoch": 2, "step": 7, "logger": "unfused_ray.training.worker.loop"
    }  # fmt: skip
    assert "is no file" in said[1]["traceback"]
    assert "run" not in said[2]
    terminal = capsys.readouterr().err
    assert "cannot read" in terminal
    assert "only in the file" not in terminal and "fontManager" not in terminal
    assert "hunter2" not in terminal + (tmp_path / "log.jsonl").read_text()
    for handler in root.handlers:
        handler.close()
