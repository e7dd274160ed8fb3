"""Triton stage ``watch``: a request's steps as they happen.

A decoupled model that keeps its response senders. One thread looks at the job table for all watchers, every
``POLL_SECONDS`` while there are any; a request that is watched knows nothing of it.
"""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository's root: stages import one another from there

import triton_python_backend_utils as pb_utils

import wire
from jobs.heart import Heart
from jobs.table import JobTable
from watch.audience import Audience, AudienceFull

POLL_SECONDS = 0.01
RETRY_MS = 1000


class TritonPythonModel:
    """See the module."""

    def initialize(self, args):
        """Open the job table, start the thread."""
        self.table = JobTable.open()
        self.heart = Heart(self.table, "watch")
        self.audience = Audience(self.table, time.monotonic)
        self.arrived = threading.Event()
        self.stopping = False
        self.thread = threading.Thread(target=self.look, name="watch", daemon=True)
        self.thread.start()

    def execute(self, requests):
        """Take in watchers; they are answered from the thread."""
        with self.heart.at_call():
            for request in requests:
                self.take_in(request)
        self.arrived.set()

    def take_in(self, request):
        """One more watcher, or one that hears why not."""
        stream = Stream(request)
        try:
            self.audience.add(wire.watchable_id(request), stream)
        except wire.Refusal as refusal:
            stream.end(refusal.fault)
        except AudienceFull as error:
            stream.end(wire.Refusal("OVERLOADED", str(error), retry_after_ms=RETRY_MS).fault)
        except Exception as error:
            stream.end(wire.Fault("INTERNAL", f"{type(error).__name__}: {error}"))

    def look(self):
        """Poll while anybody watches, sleep otherwise."""
        while not self.stopping:
            self.arrived.clear()
            self.audience.poll()
            if len(self.audience):
                time.sleep(POLL_SECONDS)
            else:
                self.arrived.wait()

    def finalize(self):
        """Send everybody away, leave the job table."""
        self.stopping = True
        self.arrived.set()
        self.thread.join()
        self.audience.close()
        self.heart.close()
        self.table.close()


class Stream:
    """One client's stream: a `watch.audience.Viewer`."""

    def __init__(self, request):
        self.sender = request.get_response_sender()

    def send(self, event, last):
        """One event; with ``last`` the stream ends."""
        response = pb_utils.InferenceResponse([pb_utils.Tensor("event", wire.text(event))])
        self.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)

    def end(self, fault):
        """The end, as an error where ``fault`` is one."""
        if fault is None:
            self.sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        else:
            self.sender.send(wire.refuse(fault), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def gone(self):
        """Whether the client has hung up."""
        return self.sender.is_cancelled()
