"""The log's lines as JSON."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from dressform_server.journal import Journal
from dressform_server.lines import FORMATS, OURS, TRITONS, as_json

LINE = "1124 00:28:21.897578 18682"


def entry(line: str, source: str = TRITONS) -> dict[str, str]:
    """What ``line`` becomes, without the time, which is checked."""
    made = json.loads(as_json(line, source))
    assert datetime.fromisoformat(made.pop("time")).tzinfo is not None
    return made


@pytest.mark.parametrize(("letter", "level"), [("I", "info"), ("W", "warning"), ("E", "error"), ("F", "fatal")])
def test_tritons_lines_have_their_level_place_and_sentence(letter: str, level: str) -> None:
    line = f'{letter}{LINE} model.py:96] "failed to load \\"unet\\": no\\nsuch file"'
    assert entry(line) == {"level": level, "source": "model.py:96", "message": 'failed to load "unet": no\nsuch file'}
    assert entry(f"{letter}{LINE} a.cc:1] plain words")["message"] == "plain words"


def test_what_is_known_of_a_request_is_fields() -> None:
    line = f'I{LINE} model.py:96] "request id=eb2ee5ab task=inpaint client=shop-a outcome=done ms=26.416"'
    assert entry(line) == {
        "level": "info",
        "source": "model.py:96",
        "message": "request",
        "id": "eb2ee5ab",
        "task": "inpaint",
        "client": "shop-a",
        "outcome": "done",
        "ms": "26.416",
    }


def test_other_lines_say_who_said_them() -> None:
    assert entry("ready: http://127.0.0.1:8000", OURS) == {
        "level": "info",
        "source": "dressform",
        "message": "ready: http://127.0.0.1:8000",
    }
    assert entry("warning: mind the gap", OURS)["level"] == "warning"
    assert entry("Traceback (most recent call last):") == {
        "level": "info",
        "source": "triton",
        "message": "Traceback (most recent call last):",
    }
    assert entry("request a=1 outcome=done", OURS)["message"] == "request a=1 outcome=done"  # not Triton's


def test_the_journal_writes_the_format_it_was_given(tmp_path: pytest.TempPathFactory) -> None:
    shown: list[str] = []
    log, source = tmp_path / "log", tmp_path / "lines"  # type: ignore[operator]
    source.write_text(f'W{LINE} a.cc:1] "careful"\nI{LINE} a.cc:1] "hm"\n')
    journal = Journal(log, shown.append, False, FORMATS["json"])
    journal.follow(source.open())
    journal.finish()
    assert [json.loads(line)["message"] for line in log.read_text().splitlines()] == ["careful", "hm"]
    assert [json.loads(line)["level"] for line in shown] == ["warning"]
