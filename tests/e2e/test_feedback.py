"""What the real server says of itself, and that it refuses feedback where it keeps no audit log."""

from __future__ import annotations

import uuid

import pytest

from dressform import Client, InvalidRequest


def test_the_server_tells_its_limits_and_defaults(client: Client) -> None:
    about = client.about()
    assert (about.tryon, about.parser, about.feedback) == (True, False, False)
    assert about.minimum <= about.height <= about.maximum
    assert about.height % about.multiple_of == about.width % about.multiple_of == 0
    assert about.num_inference_steps >= 1
    assert about.solver == "ddim"


def test_feedback_without_an_audit_log_is_refused_with_what_to_do(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="--audit-log") as refused:
        client.feedback(str(uuid.uuid4()), "up")
    assert refused.value.code == "UNSUPPORTED"


def test_ratings_are_checked_before_the_log(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="id must have 22 characters or more"):
        client.feedback("short", "up")
    with pytest.raises(InvalidRequest, match="rating must be one of up, down"):
        client.feedback(str(uuid.uuid4()), "sideways")  # type: ignore[arg-type]
