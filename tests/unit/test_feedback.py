"""Feedback: what is recorded and what is refused, in the stage and through the client."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dressform import About, AsyncClient, Client, InvalidRequest, ServerError
from dressform.testing import AsyncFakeTransport, FakeTransport
from dressform_server import Settings, SettingsError
from dressform_server.container import docker_run
from jobs import audit
from jobs.audit import AuditLog
from jobs.feedback import Feedback
from preprocess.errors import RequestError

ID = "0123456789abcdef-request"


def test_a_line_is_json_whatever_is_said() -> None:
    said = 'sleeves "fray" – Ärmel, 袖 \u2028'
    when = datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc)
    line = audit.line("feedback", vars(Feedback(ID, "down", said)), when)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "2026-01-02T03:04:05.678+00:00",
        "event": "feedback",
        "id": ID,
        "rating": "down",
        "comment": said,
    }


@pytest.mark.parametrize(
    ("rating", "comment", "sentence"),
    [
        ("sideways", "", "rating must be one of up, down, not 'sideways'"),
        ("", "", "rating must be one of"),
        ("up", "x" * 501, "comment must have at most 500 characters, not 501"),
        ("up", 'fine"}\n{"id": "forged', r"comment must have no control characters; there is '\\n'"),
        ("up", "\x1b[2J", "control characters"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(rating: str, comment: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Feedback(ID, rating, comment)


def test_ids_are_held_to_the_same_rules() -> None:
    with pytest.raises(RequestError, match="id must have at most 200 characters"):
        Feedback("i" * 201, "up")
    with pytest.raises(RequestError, match="id must have no control characters"):
        Feedback(ID + "\n", "up")


def test_the_log_is_appended_to_and_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("earlier\n")
    log = AuditLog(str(path))
    log.record("feedback", vars(Feedback(ID, "up")))
    path.rename(tmp_path / "audit.jsonl.1")
    log.record("feedback", vars(Feedback(ID, "down", "later")))
    earlier, first = (tmp_path / "audit.jsonl.1").read_text().splitlines()
    assert earlier == "earlier"
    assert json.loads(first)["rating"] == "up"
    assert json.loads(path.read_text())["comment"] == "later"


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        AuditLog(str(tmp_path / "missing" / "audit.jsonl"))
    with pytest.raises(SettingsError, match="there is no folder"):
        Settings(tmp_path, audit_log=tmp_path / "missing" / "audit.jsonl")


def test_the_container_gets_the_log_too(tmp_path: Path) -> None:
    line = docker_run(Settings(tmp_path, audit_log=tmp_path / "audit.jsonl"))
    assert f"-v {tmp_path}:/audit " in line
    assert "-e DRESSFORM_AUDIT_LOG=/audit/audit.jsonl " in line


def test_clients_send_ratings_and_read_abilities() -> None:
    fake = FakeTransport(("inpaint", "mask"), default_size=(96, 128), default_steps=20)
    with Client(transport=fake) as client:
        client.feedback(ID, "up")
        about = client.about()

    async def rated() -> About:
        async with AsyncClient(transport=AsyncFakeTransport(fake)) as waiting:
            await waiting.feedback(ID, "down", "the sleeve frays")
            return await waiting.about()

    assert asyncio.run(rated()) == about
    assert fake.feedback == [
        {"id": ID, "rating": "up"},
        {"id": ID, "rating": "down", "comment": "the sleeve frays"},
    ]
    assert about == About(False, True, 128, 96, 64, 1024, 8, 20, "ddim", True)
    assert fake.requests == []


def test_a_server_without_a_log_says_so() -> None:
    with Client(transport=FakeTransport(feedback=False)) as client:
        assert not client.about().feedback
        with pytest.raises(InvalidRequest, match="audit log"):
            client.feedback(ID, "up")


def test_an_unreadable_answer_is_the_servers_fault() -> None:
    with pytest.raises(ServerError, match="about itself"):
        About.of({})
