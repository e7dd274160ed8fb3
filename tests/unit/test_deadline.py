"""The deadline of a request: the earlier of its caller's and the server's own."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dressform_server import Settings
from dressform_server.flags import variables
from dressform_server.launcher import add_shared_arguments, shared_options
from jobs.deadline import VARIABLE, spelled
from preprocess.preparation import validated


@pytest.mark.parametrize(
    ("longest", "asked", "allowed"),
    [(None, None, None), (None, 5_000, 5_000), ("600", None, 600_000), ("600", 5_000, 5_000), ("2", 5_000, 2_000)],
)
@pytest.mark.parametrize("task", ["inpaint", "tryon", "mask"])
def test_the_earlier_deadline_holds(
    monkeypatch: pytest.MonkeyPatch, task: str, longest: str | None, asked: int | None, allowed: int | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if longest is not None:
        monkeypatch.setenv(VARIABLE, longest)
    given = {} if asked is None else {"deadline_ms": asked}
    assert validated(given, task)["deadline_ms"] == allowed  # type: ignore[arg-type]


def test_whose_deadline_it_is_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")
    assert spelled(2_000) == "2000 ms (the server's own limit for any request)"
    assert spelled(1_999) == "1999 ms"


def test_the_option_reaches_the_stages() -> None:
    parser = argparse.ArgumentParser()
    add_shared_arguments(parser)
    asked = parser.parse_args(["models", "--longest-request", "600"])
    assert variables(Settings(Path("models"), **shared_options(asked)))[VARIABLE] == "600"
    assert VARIABLE not in variables(Settings(Path("models")))
