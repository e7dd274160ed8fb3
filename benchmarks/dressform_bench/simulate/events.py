"""A fleet of servers, event by event: requests arrive and are routed, rounds are run, pictures come back.

Pure, and the same for the same arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from dressform_bench.goodput import Outcome
from dressform_bench.schedule import Arrival
from dressform_bench.simulate.server import Limits, Server
from dressform_bench.simulate.step_times import StepTimes
from dressform_export import stages

stages.importable()
from denoise.job import Job  # noqa: E402

ROUTING = ("round_robin", "least_loaded")

_DONE, _ROUND, _ARRIVAL = range(3)
"""What happens at one instant happens in this order."""


class Router:
    """Which server gets the next request: in turn, or the one with the fewest requests in flight, in turn among those.

    ``in_flight`` is by server, and the caller keeps it.
    """

    def __init__(self, routing: str, servers: int) -> None:
        if routing not in ROUTING:
            raise ValueError(f"routing must be one of {', '.join(ROUTING)}, not {routing!r}")
        if servers < 1:
            raise ValueError(f"servers must be at least 1, not {servers}")
        self.in_flight = [0] * servers
        self._least = routing == "least_loaded"
        self._turn = 0

    def next(self) -> int:
        """The number of the server."""
        chosen = self._turn
        if self._least:
            least = min(self.in_flight)
            later = self.in_flight[chosen:]
            chosen = chosen + later.index(least) if least in later else self.in_flight.index(least)
        self._turn = (chosen + 1) % len(self.in_flight)
        return chosen


def simulated(
    arrivals: Sequence[Arrival],
    times: StepTimes,
    limits: Limits,
    servers: int = 1,
    routing: str = "round_robin",
    batching: str = "step",
) -> list[Outcome]:
    """What becomes of ``arrivals``, in their order; a request that meets a full server is refused, and not sent again.

    Raises:
        ValueError: for no server, or an unknown ``routing`` or ``batching``.
    """
    router = Router(routing, servers)
    fleet = [Server(times, limits, batching) for _ in range(servers)]
    outcomes: dict[int, Outcome] = {}
    events = [(arrival.at, _ARRIVAL, number, -1) for number, arrival in enumerate(arrivals)]
    heapify(events)

    def plan_round(place: int) -> None:
        due = None if fleet[place].planned else fleet[place].next_round()
        if due is not None:
            fleet[place].planned = True
            heappush(events, (due, _ROUND, place, place))

    while events:
        now, event, number, place = heappop(events)
        if event == _ARRIVAL:
            arrival, place = arrivals[number], router.next()
            if fleet[place].accepts(number, arrival.kind, now, router.in_flight[place]):
                router.in_flight[place] += 1
                plan_round(place)
            else:
                outcomes[number] = Outcome(arrival.kind, now, now, now + times.answer_seconds, "Overloaded", "full")
        elif event == _ROUND:
            fleet[place].planned = False
            for ready, ended, job in fleet[place].round(now):
                outcomes[ended] = _answered(arrivals[ended], ready + times.answer_seconds, job)
                heappush(events, (ready, _DONE, ended, place))
            plan_round(place)
        else:
            router.in_flight[place] -= 1
    return [outcomes[number] for number in range(len(arrivals))]


def _answered(arrival: Arrival, ended: float, job: Job) -> Outcome:
    """The request with as much of an answer's info as a simulation knows."""
    info = {
        "arrived_ns": round(1e9 * arrival.at),
        "step_ends_ms": [end / 1e6 - 1000 * arrival.at for end in job.step_ends_ns],
        "batch_sizes": job.batch_sizes,
        "unet_rows": job.rows_run,
    }
    return Outcome(arrival.kind, arrival.at, arrival.at, ended, info=info)
