"""The simulated fleet: against theory, against the engine with real batches, and by what must always hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise.engine import Engine
from dressform.options import Solver
from dressform_bench import results
from dressform_bench.goodput import Outcome
from dressform_bench.schedule import MIX, Arrival, Kind, poisson
from dressform_bench.simulate.__main__ import main
from dressform_bench.simulate.events import ROUTING, Router, simulated
from dressform_bench.simulate.fleet import Study
from dressform_bench.simulate.measurement import calls, fitted
from dressform_bench.simulate.server import BATCHING, Limits
from dressform_bench.simulate.step_times import StepTimes, affine, plan, read_manifest, read_table
from dressform_bench.simulate.validation import compared
from unit.denoise_fakes import Clock, FakeMeter, FakeUNet, FakeWindow, make_job

LIMITS = Limits(max_rows=32, max_jobs=32, max_work_seconds=1800)
TIMES = StepTimes("a", "test", {1: 0.02, 2: 0.025, 8: 0.06}, 0.01, 0.02, 0.003, 0.001, overlap=0.5)
BOUNDLESS = Limits(max_rows=1, max_jobs=10**6, max_work_seconds=1e9)

solvers: st.SearchStrategy[Solver] = st.sampled_from(["lcm", "unipc", "pndm", "euler"])
kinds = st.builds(Kind, st.integers(4, 30), solvers, st.sampled_from([1.0, 5.0]), st.just(1.0))
times = st.builds(
    StepTimes,
    st.just("any"),
    st.just("test"),
    st.builds(lambda a, b: {1: a + b, 2: a + 2 * b, 32: a + 32 * b}, st.floats(0.001, 1), st.floats(0, 0.1)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 0.1),
    st.floats(0, 0.01),
    st.floats(0, 1),
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Arrival, ...]:
    gaps = draw(st.lists(st.floats(0, 0.5), min_size=1, max_size=25))
    return tuple(Arrival(sum(gaps[: k + 1]), draw(kinds), k) for k in range(len(gaps)))


@settings(max_examples=60, deadline=None)
@given(schedules(), times, st.integers(1, 6), st.sampled_from(ROUTING), st.sampled_from(BATCHING), st.integers(1, 8))
def test_no_job_is_lost_and_none_is_faster_than_alone(
    schedule: tuple[Arrival, ...], step_times: StepTimes, servers: int, routing: str, batching: str, max_jobs: int
) -> None:
    outcomes = simulated(schedule, step_times, replace(LIMITS, max_jobs=max_jobs), servers, routing, batching)
    assert [(one.kind, one.due) for one in outcomes] == [(arrival.kind, arrival.at) for arrival in schedule]
    for one in outcomes:
        if one.error:
            assert one.error == "Overloaded"
            assert max_jobs * servers < len(schedule), "a fleet with room for all refuses nobody"
        else:
            assert one.info is not None
            assert len(one.info["batch_sizes"]) == len(plan(one.kind))
            assert one.latency >= step_times.solo(one.kind) - 1e-6


@settings(max_examples=40, deadline=None)
@given(kinds, times)
def test_a_request_alone_takes_its_solo_time(kind: Kind, step_times: StepTimes) -> None:
    (outcome,) = simulated([Arrival(3.0, kind, 0)], step_times, LIMITS)
    assert outcome.latency == pytest.approx(step_times.solo(kind), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(schedules(), times, st.integers(1, 4), st.integers(1, 4), st.sampled_from(BATCHING))
def test_twice_the_servers_never_answer_fewer(
    schedule: tuple[Arrival, ...], step_times: StepTimes, servers: int, max_jobs: int, batching: str
) -> None:
    equal = [replace(arrival, kind=schedule[0].kind) for arrival in schedule]
    limits = replace(LIMITS, max_jobs=max_jobs)

    def answered(count: int) -> int:
        return sum(not one.error for one in simulated(equal, step_times, limits, count, "least_loaded", batching))

    assert answered(2 * servers) >= answered(servers)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_one_step_of_one_row_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is ρ s / (2 (1 - ρ)) (Pollaczek 1930, Khinchine 1932)."""
    kind, seconds = Kind(1, "ddim", 1.0, 1), 0.1
    schedule = poisson(load / seconds, 2000, [kind], seed=1, limit=10**6)
    outcomes = simulated(schedule, affine(0.0, seconds), BOUNDLESS)
    offered = len(schedule) / 2000 * seconds
    waits = [one.latency - seconds for one in outcomes]
    assert sum(waits) / len(waits) == pytest.approx(offered * seconds / (2 * (1 - offered)), rel=0.06)


def test_routing_by_turns_evens_arrivals_out_and_routing_by_load_jobs_of_unequal_length() -> None:
    def mean_wait(servers: int, routing: str, *mix: Kind) -> float:
        step = affine(0.0, 0.1 * len(mix) / sum(kind.steps for kind in mix))  # 0.1 s a job on average
        schedule = poisson(7 * servers, 400 / servers, mix, seed=2)
        outcomes = simulated(schedule, step, BOUNDLESS, servers, routing)
        return sum(one.latency - step.solo(one.kind) for one in outcomes) / len(outcomes)

    short, long = Kind(1, "ddim", 1.0, 1), Kind(19, "ddim", 1.0, 1)
    assert mean_wait(8, "round_robin", short) < mean_wait(1, "round_robin", short)  # Erlang's arrivals, not Poisson's
    assert mean_wait(8, "least_loaded", short) == mean_wait(8, "round_robin", short)  # equal jobs leave in turn
    assert mean_wait(8, "least_loaded", short, long) < mean_wait(8, "round_robin", short, long)


def test_step_level_batching_answers_more_in_time_than_request_level() -> None:
    study = Study(TIMES, LIMITS, MIX, "step", slo=2.0, kept=0.95, seconds=60, requests=300, seeds=[0])
    step, request = (replace(study, batching=batching).row(1, "round_robin", study.capacity) for batching in BATCHING)
    assert step["share_within_slo"] > request["share_within_slo"]
    assert step["p50_s"] < request["p50_s"]


def test_request_level_batches_run_to_their_end() -> None:
    kind = Kind(4, "ddim", 1.0, 1)
    arrivals = [Arrival(at, kind, 0) for at in (0.0, 0.1, 0.2)]
    sizes = {
        batching: [
            one.info["batch_sizes"] for one in simulated(arrivals, affine(0, 1), LIMITS, batching=batching) if one.info
        ]
        for batching in BATCHING
    }
    assert sizes["request"] == [[1, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]]
    assert sizes["step"][0] == [1, 3, 3, 3]


@pytest.mark.parametrize("batching", BATCHING)
def test_hollow_batches_go_through_the_same_steps_as_real_ones(batching: str) -> None:
    steps, arrivals = [9, 3, 6, 2], []
    clock, window = Clock(), FakeWindow()
    engine = Engine(
        FakeUNet(clock, 0.1), 8, 4, window, FakeMeter(), one_batch_at_a_time=batching == "request", clock=clock
    )
    ended = {}
    for number, count in enumerate(steps):  # each one arrives in the midst of a round, 0.1 s after the one before
        arrivals.append(Arrival(0.1 * number - 0.05 * (number > 0), Kind(count, "ddim", 7.5, 1), number))
        engine.admit(number, make_job(seed=number, num_inference_steps=count))
        ended |= engine.round(list(engine.jobs))
    while engine.jobs:
        ended |= engine.round(list(engine.jobs))
    same = StepTimes("same", "test", {1: 0.1, 8: 0.1}, between_steps_seconds=0.0)
    outcomes = simulated(arrivals, same, replace(LIMITS, max_rows=4), batching=batching)
    real = [ended[number].batch_sizes for number in range(len(steps))]  # type: ignore[union-attr]
    assert [one.info["batch_sizes"] for one in outcomes if one.info] == real


def test_the_same_seed_gives_the_same_figures() -> None:
    study = Study(TIMES, LIMITS, MIX, "step", slo=2.0, kept=0.95, seconds=10, requests=100, seeds=[3])
    assert study.row(4, "least_loaded", 20) == study.row(4, "least_loaded", 20)
    assert study.row(4, "least_loaded", 20) != replace(study, seeds=[4]).row(4, "least_loaded", 20)


def test_routing() -> None:
    in_turn, least = Router("round_robin", 3), Router("least_loaded", 3)
    least.in_flight[:] = [1, 0, 0]
    assert [in_turn.next() for _ in range(4)] == [0, 1, 2, 0]
    assert [least.next() for _ in range(4)] == [1, 2, 1, 2]


def test_a_full_server_refuses() -> None:
    arrivals = [Arrival(0.01 * k, MIX[0], k) for k in range(5)]
    few = simulated(arrivals, TIMES, replace(LIMITS, max_jobs=2))
    assert [one.error for one in few] == ["", "", "Overloaded", "Overloaded", "Overloaded"]
    late = [Arrival(at, MIX[-1], 0) for at in (0.0, 0.5, 5.0)]  # the last one finds it idle
    outcomes = simulated(late, TIMES, replace(LIMITS, max_work_seconds=0.5))
    assert [one.error for one in outcomes] == ["", "Overloaded", ""]


def test_the_servers_needed_are_the_fewest_that_keep_the_slo() -> None:
    study = Study(TIMES, LIMITS, MIX, "step", slo=2.0, kept=0.9, seconds=20, requests=200, seeds=[0])
    rate = 5 * study.capacity
    servers = study.needed(rate, "least_loaded")["servers"]
    assert study.row(servers, "least_loaded", rate)["share_within_slo"] >= 0.9
    assert study.row(servers - 1, "least_loaded", rate)["share_within_slo"] < 0.9
    hopeless = replace(study, times=replace(TIMES, before_seconds=5.0, overlap=1.0), slo=1.0, requests=1, seconds=1)
    found = hopeless.needed(300, "round_robin")
    assert (found["servers"], found["servers_range"]) == (None, [None, None])


def test_servers_needed_are_the_median_of_several_draws_of_the_arrivals() -> None:
    study = Study(TIMES, LIMITS, MIX, "step", slo=2.0, kept=0.95, seconds=5, requests=60, seeds=range(5))
    rate = 6 * study.capacity
    counts = sorted(study.fewest(rate, "round_robin", seed) for seed in study.seeds)
    found = study.needed(rate, "round_robin")
    assert (found["servers"], found["servers_range"]) == (counts[2], [counts[0], counts[4]])
    assert counts[0] < counts[4], "few requests: another draw needs other servers"
    offered = sum(len(poisson(rate, max(5, 60 / rate), MIX, seed)) for seed in study.seeds)
    assert found["offered_per_s"] == pytest.approx(offered / 5 / max(5, 60 / rate), abs=1e-3)
    low, high = found["share_interval"]
    assert low < found["share_within_slo"] < high


def test_a_fit_finds_the_times_of_the_server_that_was_simulated() -> None:
    true = replace(TIMES, step_seconds={1: 0.03, 32: 0.03 + 31 * 0.004}, overlap=0.4)
    loaded = simulated(poisson(4, 100, MIX, seed=0), true, LIMITS)
    parts = {"preprocess": 4, "encode": 5.5, "wait": 0.5, "decode": 15, "postprocess": 5, "total": 0}
    loaded_infos = [
        (one.latency, {**one.info, "milliseconds": parts | {"total": 1000 * (one.latency - true.answer_seconds)}})
        for one in loaded
        if one.info is not None
    ]
    found = fitted("found", loaded_infos, [(0.5, {"milliseconds": parts})])
    for rows in (1, 4, 16):
        assert found.step(rows) == pytest.approx(true.step(rows), rel=0.1)
    assert (found.before_seconds, found.after_seconds) == pytest.approx((0.01, 0.02))
    assert found.answer_seconds == pytest.approx(true.answer_seconds)
    assert found.overlap == pytest.approx(true.overlap, abs=0.25)
    with pytest.raises(ValueError, match="0 UNet calls in a row are too few"):
        fitted("none", [], [])


def test_no_part_of_a_fit_is_below_nothing() -> None:
    """Steps that take 0.1 s for each row beyond the first, as if a call itself gave time back."""
    alone = [
        (1.0, {"milliseconds": {"preprocess": 1, "encode": 1, "wait": 1, "decode": 1, "postprocess": 1, "total": 5}})
    ]
    infos = []
    for rows in (2, 8):
        ends = [10_000 * rows + 100.0 * (rows - 1) * step for step in range(1, 41)]
        infos.append(
            {**alone[0][1], "arrived_ns": 0, "step_ends_ms": ends, "batch_sizes": [1] * 40, "unet_rows": 40 * rows}
        )
    found = fitted("steep", [(1.0, info) for info in infos], alone)
    assert 0 < found.step(1) < found.step(2) < found.step(8) == pytest.approx(0.7, rel=0.05)
    assert found.overlap == 0


def test_calls_with_a_job_that_is_not_known_are_left_out() -> None:
    known = {"arrived_ns": 0, "step_ends_ms": [10.0, 20.0, 35.0], "batch_sizes": [1, 1, 2], "unet_rows": 6}
    other = {"arrived_ns": 15_000_000, "step_ends_ms": [20.0], "batch_sizes": [2], "unet_rows": 1}
    assert [(call.seconds, call.rows, call.changes) for call in calls([known])] == [(0.01, 2, 0)]
    assert [(call.seconds, call.rows, call.changes) for call in calls([known, other])] == [(0.01, 2, 0), (0.015, 3, 1)]


def test_errors_are_relative_to_what_was_measured() -> None:
    def run(latency: float) -> list[Outcome]:
        return [Outcome(MIX[0], 0, 0, latency, info={"batch_sizes": [1]})]

    row = compared([run(1.0), run(1.5)], run(2.0), [run(1.0), run(1.0)], {MIX[0]: 0.9}, 2.0, seconds=10)
    assert row["error"] == {"p50_s": 1.0, "p95_s": pytest.approx(2 / 1.5 - 1, abs=1e-4), "goodput_per_s": -1.0}
    assert row["own_error"]["p50_s"] == 0
    assert row["spread"]["p50_s"] == 0.5
    assert compared([run(9.0)], run(1.0), [run(1.0)], {MIX[0]: 0.9}, 2.0, 10)["error"]["goodput_per_s"] is None


def test_step_times_between_and_beyond_the_rows_known() -> None:
    table = StepTimes("t", "test", {2: 0.1, 4: 0.16, 8: 0.2}, between_steps_seconds=0.0)
    assert [table.step(rows) for rows in (1, 2, 3, 6, 8, 16)] == pytest.approx([0.07, 0.1, 0.13, 0.18, 0.2, 0.28])
    assert StepTimes("t", "test", {4: 0.2}, between_steps_seconds=0.01).step(2) == pytest.approx(0.11)
    assert StepTimes("t", "test", {2: 0.1, 4: 0.4}, between_steps_seconds=0.0).step(1) == pytest.approx(0.05)


def test_a_record_s_model_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TIMES.record()))
    assert read_table(path) == TIMES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "not a mapping"),
        ('{"name": "x"}', "step_seconds"),
        ('{"name": "x", "step_seconds": {}}', "at least one"),
        ('{"name": "x", "step_seconds": {"0": 1}}', "rows from 1"),
        ('{"name": "x", "step_seconds": {"1": 1}, "overlap": 2}', "overlap must be from 0 to 1, not 2"),
        ('{"name": "x", "step_seconds": {"1": 1}, "befor_seconds": 2}', "befor_seconds"),
        ('{"name": "x", "step_seconds": {"1": 1}, "after_seconds": -1}', "after_seconds must be at least 0, not -1"),
    ],
)
def test_a_table_that_is_none_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as refused:
        read_table(path)
    assert "step_seconds, before_seconds" in str(refused.value)


def test_an_export_that_was_not_measured_says_what_to_do(tiny_repository: Path) -> None:
    with pytest.raises(ValueError, match="dressform-export verify"):
        read_manifest(tiny_repository)


def test_an_export_s_step_times_and_limits(tiny_repository: Path, tmp_path: Path) -> None:
    manifest = json.loads((tiny_repository / "manifest.json").read_text())
    manifest["engines"]["onnxruntime"]["capacity"] = {
        **{"machine": "m", "height": 64, "width": 64, "memory": 1, "fixed": 1, "per_row": 1, "max_rows": 8},
        "step_seconds": {"1": 0.1, "2": 0.15},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = read_manifest(tmp_path)
    flops = manifest["flops"]
    assert found.step_seconds == {1: 0.1, 2: 0.15}
    assert found.after_seconds == pytest.approx(0.1 * flops["vae_decoder"] / flops["unet"])
    assert Limits.of(tiny_repository) == Limits.of() == LIMITS


def test_limits_are_those_of_the_engine(tmp_path: Path) -> None:
    for name, text in (("denoise/config", "8"), ("denoise/configs/tensorrt", "4"), ("preprocess/config", "3")):
        path = tmp_path / f"{name}.pbtxt"
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = ("max_rows", "max_jobs", "max_work_seconds")
        path.write_text("".join(f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}' for key in keys))
    assert Limits.of(tmp_path) == Limits.of(tmp_path, "onnxruntime") == Limits(8, 3, 3)
    assert Limits.of(tmp_path, "tensorrt") == Limits(4, 3, 3)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs.jsonl"
    arguments = ["--affine", "0.02", "0.01", "--servers", "1", "3", "--loads", "1", "--requests", "50", "--rates", "5"]
    arguments += ["--steps", "4", "8", "--seeds", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    (record,) = results.read(tmp_path)
    assert json.loads(printed[-1]) == record
    assert record["command"].startswith("dressform bench simulate --affine 0.02 0.01")
    assert [(row["servers"], row["routing"]) for row in record["rows"]] == [(n, r) for n in (1, 3) for r in ROUTING]
    assert {row["routing"] for row in record["servers_needed"]} == set(ROUTING)
    assert record["step_time_model"]["step_seconds"] == {"1": 0.03, "2": 0.04}
    assert record["validation"] is None
    assert record["solo_capacity_per_s"] == pytest.approx(1 / (0.04 * 6), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one of the arguments --repository --table --affine --validate is required"),
        (["--affine", "1", "1", "--table", "x"], "not allowed with"),
        (["--affine", "-1", "0.5"], "step_seconds must be seconds above 0"),
        (["--affine", "1", "1", "--servers", "0"], "--servers: must be a number from 1, not '0'"),
        (["--affine", "1", "1", "--loads", "-2"], "--loads: must be above 0, not -2"),
        (["--affine", "1", "1", "--kept", "1.5"], "--kept: must be above 0 and at most 1, not 1.5"),
        (["--affine", "1", "1", "--routing", "random"], "--routing: invalid choice: 'random'"),
        (["--affine", "1", "1", "--device", "1", "1"], "--device is the UNet's of --validate"),
        (["--validate", "x", "--device", "-1", "1"], "--device: must be at least 0, not -1"),
        (["--table", "/nowhere.json"], "/nowhere.json is no table of step times"),
        (
            ["--affine", "1", "1", "--servers", "1", "--loads", "1", "--requests", "9", "--rates", "1e9"],
            "more than the 1000000 requests allowed",
        ),
        (["--repository", "/nowhere"], "/nowhere is no export"),
        (["--validate", "/nowhere"], "/nowhere is no export"),
    ],
)
def test_bad_arguments_are_told(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("servers", "routing", "batching", "sentence"),
    [
        (0, "round_robin", "step", "servers must be at least 1, not 0"),
        (1, "random", "step", "routing must be one of round_robin, least_loaded, not 'random'"),
        (1, "round_robin", "none", "batching must be one of step, request, not 'none'"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(servers: int, routing: str, batching: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        simulated([], TIMES, LIMITS, servers, routing, batching)
