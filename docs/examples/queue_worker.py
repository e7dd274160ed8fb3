"""A shop's queue, worked off: python queue_worker.py QUEUE.db RESULTS [SERVER]

The shop inserts rows into the table ``pairs``; any number of workers on its machine paint them, by a server
anywhere. Kill a worker or the server at any time: what was taken is taken again, and nothing is painted twice as done.
"""

import os
import sqlite3
import sys
import time
from pathlib import Path

from dressform import AccessDenied, Client, DressformError, InvalidRequest, Retry

LEASE = 600  # seconds that a worker has for a pair; then it counts as dead, and the pair as waiting
TABLE = """CREATE TABLE IF NOT EXISTS pairs (id INTEGER PRIMARY KEY, person TEXT NOT NULL, garment TEXT NOT NULL,
    category TEXT NOT NULL DEFAULT 'auto', state TEXT NOT NULL DEFAULT 'waiting', due REAL DEFAULT 0, note TEXT)"""
TAKE = """UPDATE pairs SET state = 'taken', due = ? WHERE id = (SELECT id FROM pairs WHERE state IN ('waiting', 'taken')
    AND due < ? ORDER BY id LIMIT 1) RETURNING id, person, garment, category"""
TELL = "UPDATE pairs SET state = ?, due = ?, note = ? WHERE id = ? AND state = 'taken'"


def work(queue: str, results: Path, url: str = "grpc://127.0.0.1:8001") -> None:
    """Take pairs from ``queue`` for ever; pictures go to ``results``, by the pair's number."""
    results.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(queue, timeout=60, isolation_level=None)
    database.execute(TABLE)
    with Client(url, retries=Retry(retries=1000, seconds=LEASE / 2), timeout=LEASE - 10) as client:
        while True:
            taken = database.execute(TAKE, (time.time() + LEASE, time.time())).fetchone()
            if taken is None:
                time.sleep(0.5)
                continue
            number, person, garment, category = taken
            try:
                made = client.tryon(person, garment, category=category, seed=number, service_class="batch")
                part = results / f"{number}.{os.getpid()}.part"
                part.write_bytes(made.encoded[0])
                part.replace(results / f"{number}.png")  # there whole, or not there at all
                told = ("done", 0, "; ".join(made.warnings))
            except DressformError as error:  # refused: this pair will never do, and somebody must look at it
                ours = isinstance(error, AccessDenied) or error.code == "UNSUPPORTED"  # our settings, not the pair
                never = isinstance(error, InvalidRequest) and not ours
                told = ("refused", 0, str(error)) if never else ("waiting", time.time() + 30, str(error))
            database.execute(TELL, (*told, number))


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
