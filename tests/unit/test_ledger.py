"""The story of each request: what stages tell, how it is put together, counted and written down."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import audit, usage
from jobs.entry import Slot
from jobs.ledger import ABANDONED, LOST, OUTCOMES, SETTLE_NS, STAGES, Account, Ledger
from jobs.post import Mailbox, Post
from jobs.table import JobTable
from unit.denoise_fakes import Clock

LEASE = 10_000
ID = "0123456789abcdef-request"
FACTS = {"id": ID, "task": "tryon", "category": "upper", "size": "512x384", "client": "shop-a"}
MARKS = {"started": 10, "prepared": 20, "admitted": 35, "first_step": 40, "finished": 90, "decoded": 100, "ended": 130}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[JobTable]:
    opened = JobTable.open(tmp_path / "table.jobs", slots=4, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def ledger(table: JobTable, clock: Clock) -> Ledger:
    return Ledger(table, clock)


def news(slot: Slot | None, **told: Any) -> dict[str, Any]:
    """A message as it comes out of the mailbox."""
    return json.loads(json.dumps({"slot": slot and [slot.number, slot.generation], **told}))


def marks(*names: str) -> dict[str, int]:
    return {name: MARKS[name] for name in names}


@given(st.permutations(range(4)))
def test_a_request_is_put_together_from_what_the_stages_tell_in_any_order(order: list[int]) -> None:
    clock = Clock()
    told = [
        news(Slot(1, 5), **FACTS, marks=marks("started")),
        news(Slot(1, 5), marks=marks("prepared")),
        news(Slot(1, 5), steps=3, compute_seconds=0.25, marks=marks("admitted", "first_step", "finished")),
        news(Slot(1, 5), outcome="done", marks=marks("decoded", "ended")),
    ]
    ledger = Ledger(None, clock)  # type: ignore[arg-type]  # the table is asked in a sweep alone
    for number in order:
        ledger.hear(told[number])
    assert ledger.closed() == []
    clock.now += SETTLE_NS
    (account,) = ledger.closed()
    assert (account.task, account.steps, account.outcome, account.code) == ("tryon", 3, "done", "")
    assert account.spans() == {stage: (MARKS[begin], MARKS[end]) for stage, (begin, end) in STAGES.items()}
    assert account.seconds == pytest.approx(120e-9)
    ledger.hear(told[1])  # too late
    clock.now += SETTLE_NS
    assert ledger.closed() == []


def test_the_stage_that_a_request_ended_in_lasts_until_its_end() -> None:
    account = Account(marks=marks("started", "prepared", "admitted", "ended"))
    assert account.spans() == {"preprocess": (10, 20), "encode": (20, 35), "wait": (35, 130)}
    assert Account(marks=marks("started", "ended")).spans() == {"preprocess": (10, 130)}


def test_what_was_refused_before_it_had_a_slot_is_over_at_once(ledger: Ledger) -> None:
    ledger.hear(news(None, **FACTS, outcome="refused", code="OVERLOADED", marks=marks("started", "ended")))
    (account,) = ledger.closed()
    assert (account.outcome, account.code) == ("refused", "OVERLOADED")


def test_a_request_that_no_stage_saw_end_is_closed_when_its_slot_expires(
    table: JobTable, ledger: Ledger, clock: Clock
) -> None:
    slot = table.claim(ID, LEASE)
    ledger.hear(news(slot, **FACTS, marks={"started": clock.now}))
    for _ in range(2):
        ledger.sweep()
        clock.now += 4 * 10**9
        assert ledger.closed() == []
    clock.now += 4 * 10**9
    ledger.sweep()
    clock.now += SETTLE_NS
    (account,) = ledger.closed()
    assert (account.outcome, account.code, account.client) == ("failed", LOST, "shop-a")
    assert account.seconds == pytest.approx(12)


def test_who_leaves_is_no_fault_of_ours(table: JobTable, ledger: Ledger, clock: Clock) -> None:
    """One marked and then broken off; one broken off when it had all its steps; one that nobody explains."""
    slots = [table.claim(f"{number}{ID[1:]}", LEASE) for number in range(3)]
    for slot in slots:
        ledger.hear(news(slot, **FACTS, marks={"started": clock.now}))
    table.cancel(f"0{ID[1:]}")
    ledger.hear(news(slots[1], marks={"finished": clock.now}))
    clock.now += 2 * LEASE * 10**6
    ledger.sweep()
    clock.now += SETTLE_NS
    ends = [(one.outcome, one.code) for one in ledger.closed()]
    assert ends == [("cancelled", "CANCELLED"), ("cancelled", ABANDONED), ("failed", LOST)]


def test_a_slot_that_is_anothers_by_now_was_lost(table: JobTable, ledger: Ledger, clock: Clock) -> None:
    slot = table.claim(ID, LEASE)
    ledger.hear(news(slot, **FACTS, marks={"started": clock.now}))
    table.free(slot, "cancelled")
    clock.now += 10**6
    assert table.claim(ID, LEASE).number == slot.number
    ledger.sweep()
    clock.now += SETTLE_NS
    assert [(one.outcome, one.code) for one in ledger.closed()] == [("failed", LOST)]


def test_the_table_may_be_quicker_than_the_post(table: JobTable, ledger: Ledger, clock: Clock) -> None:
    slot = table.claim(ID, LEASE)
    ledger.hear(news(slot, **FACTS, marks={"started": clock.now}))
    table.free(slot, "failed")
    ledger.sweep()
    ledger.hear(news(slot, outcome="failed", code="ENGINE", marks={"ended": clock.now + 5}))
    clock.now += SETTLE_NS
    assert [one.code for one in ledger.closed()] == ["ENGINE"]


def test_everything_that_is_over_is_closed_at_the_end(ledger: Ledger) -> None:
    ledger.hear(news(Slot(1, 5), **FACTS, outcome="done", marks=marks("started", "ended")))
    ledger.hear(news(Slot(2, 5), **FACTS, marks=marks("started")))
    assert [one.outcome for one in ledger.closed(everything=True)] == ["done"]


def test_the_post_brings_what_many_threads_tell(tmp_path: Path) -> None:
    warnings: list[str] = []
    mailbox = Mailbox(warnings.append, tmp_path / "x.post")
    assert (tmp_path / "x.post").stat().st_mode & 0o077 == 0
    posts = [Post(warnings.append, tmp_path / "x.post") for _ in range(3)]

    def tell(post: Post) -> None:
        for number in range(100):
            post.tell(Slot(number, 1), steps=number)

    threads = [threading.Thread(target=tell, args=[post]) for post in posts]
    for thread in threads:
        thread.start()
    heard: list[dict[str, Any]] = []
    while len(heard) < 300:
        came = mailbox.messages(5)
        assert came
        heard += came
    assert Counter(one["steps"] for one in heard) == dict.fromkeys(range(100), 3)
    for post in posts:
        post.close()
    mailbox.close()
    assert not (tmp_path / "x.post").exists()
    assert warnings == []


def test_a_message_that_cannot_be_read_costs_itself_alone(tmp_path: Path) -> None:
    warnings: list[str] = []
    mailbox = Mailbox(warnings.append, tmp_path / "x.post")
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for message in (b'{"steps": 1}', b'{"steps": ', b'{"steps": 2}'):
        sender.sendto(message, str(tmp_path / "x.post"))
    sender.close()
    assert mailbox.messages(1) == [{"steps": 1}, {"steps": 2}]
    mailbox.close()
    assert len(warnings) == 1


def test_lost_post_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    post = Post(warnings.append, tmp_path / "nobody.post")
    post.tell(None, steps=1)
    post.tell(None, steps=2)
    post.close()
    (warning,) = warnings
    assert "does not reach" in warning


class Meter:
    """Keeps what is counted."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.observed: dict[tuple[str, ...], float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counted[(name, *labels.values())] += amount  # type: ignore[assignment]

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed[(name, *labels.values())] = value

    def declare(self, name: str, **labels: str) -> None:
        self.counted[(name, *labels.values())] += 0


def ended(outcome: str = "done", **facts: Any) -> Account:
    return Account(**{**FACTS, "outcome": outcome, "marks": MARKS, "compute_seconds": 0.5, **facts})


def test_usage_is_counted_by_what_the_shop_asks_about() -> None:
    meter = Meter()
    counts = usage.Usage(meter)
    for outcome in OUTCOMES:
        counts.count(ended(outcome))
    counts.count(ended(client=""))
    requests = {key[1:]: n for key, n in meter.counted.items() if key[0] == "dressform_requests_total"}
    assert requests == {
        **{("tryon", "upper", "512x384", outcome, "shop-a"): 1 for outcome in OUTCOMES},
        ("tryon", "upper", "512x384", "done", "unnamed"): 1,
    }
    assert meter.counted["dressform_compute_seconds_total", "tryon", "shop-a"] == 2
    assert meter.observed["dressform_request_seconds", "tryon"] == pytest.approx(120e-9)
    assert {key[1] for key in meter.observed if key[0] == "dressform_stage_seconds"} == set(STAGES)


def test_no_caller_can_fill_prometheus() -> None:
    meter = Meter()
    counts = usage.Usage(meter)
    for number in range(300):
        counts.count(ended(client=f"shop-{number}", size=f"{8 * number}x8"))
    requests = [key for key in meter.counted if key[0] == "dressform_requests_total"]
    assert len({key[5] for key in requests}) == usage.MOST_CLIENTS + 1
    assert len({key[3] for key in requests}) == usage.MOST_SIZES + 1
    counts.count(ended(client="shop-0", size="0x8"))  # who was known stays known
    assert sum(n for key, n in meter.counted.items() if "shop-0" in key[5:]) == 2


def test_nor_can_many_that_mix_what_is_known() -> None:
    meter = Meter()
    counts = usage.Usage(meter)
    for client in range(usage.MOST_CLIENTS):
        for size in range(usage.MOST_SIZES):
            counts.count(ended(client=f"shop-{client}", size=f"{8 * size}x8"))
    requests = {key: n for key, n in meter.counted.items() if key[0] == "dressform_requests_total"}
    assert len(requests) == usage.MOST_SERIES + 1
    assert sum(requests.values()) == usage.MOST_CLIENTS * usage.MOST_SIZES


def test_what_has_not_happened_yet_is_shown() -> None:
    meter = Meter()
    counts = usage.Usage(meter, ["tryon"])
    shown = {key: n for key, n in meter.counted.items() if key[0] == "dressform_requests_ended_total"}
    assert shown == {("dressform_requests_ended_total", "tryon", outcome): 0 for outcome in OUTCOMES}
    counts.count(ended("failed"))
    assert meter.counted["dressform_requests_ended_total", "tryon", "failed"] == 1


def test_the_log_tells_no_id_while_the_audit_log_does() -> None:
    account = ended("failed", code="ENGINE")
    line = f"request id={ID[:8]} task=tryon client=shop-a outcome=failed code=ENGINE ms=0.000"
    assert usage.log_line(account) == line
    assert "id=a?ms?1?? " in usage.log_line(ended(id='a ms=1\n"'))
    facts = usage.facts(account)
    assert facts["id"] == ID
    assert facts["compute_ms"] == 500
    assert set(facts["milliseconds"]) == {*STAGES, "total"}


def test_the_audit_log_is_renamed_when_it_is_full_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = audit.AuditLog(str(path), max_bytes=1000)
    for number in range(40):
        log.record("request", {"number": number})
    files = [path, *(tmp_path / f"audit.jsonl.{number}" for number in range(1, audit.KEPT_FILES + 1))]
    assert all(file.stat().st_size <= 1000 for file in files if file.exists())
    assert files[1].exists()
    lines = [json.loads(line) for file in reversed(files) if file.exists() for line in file.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(40))
    for number in range(300):
        log.record("request", {"number": number})
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_log_of_no_limit_is_never_renamed(tmp_path: Path) -> None:
    log = audit.AuditLog(str(tmp_path / "audit.jsonl"))
    for number in range(40):
        log.record("request", {"number": number})
    assert [file.name for file in tmp_path.iterdir()] == ["audit.jsonl"]


def test_telling_does_not_wait_for_a_reader_that_hangs(tmp_path: Path) -> None:
    mailbox = Mailbox(print, tmp_path / "x.post")
    post = Post(pytest.fail, tmp_path / "x.post")
    for number in range(2000):  # more than the kernel keeps for a reader: a send would block here
        post.tell(None, steps=number)
    heard: list[dict[str, Any]] = []
    while len(heard) < 2000:
        heard += mailbox.messages(5)
    assert [one["steps"] for one in heard] == list(range(2000))
    post.close()
    mailbox.close()


def test_threads_share_the_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = audit.AuditLog(str(path), max_bytes=5000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.record("request", {"number": number}), range(300)))
    kept = [json.loads(line)["number"] for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert sorted(kept) == list(range(300))
