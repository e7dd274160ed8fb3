"""What every Python stage needs of Triton: reading requests, answering with coded errors, calling a leaf model.

This file, ``metrics.py`` and the ``model.py`` files are the only ones that know Triton.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from dressform_contract import (
    CLIENT_HEADER,
    CLIENT_NAME,
    ERRORS,
    FORWARDED_HEADERS,
    MAX_ID,
    MIN_WATCHABLE_ID,
    TRACE_HEADER,
    TRACEPARENT_HEADER,
    Fault,
)
from jobs.entry import Slot, State
from jobs.post import Post
from jobs.table import JobTable
from metrics import REFUSED, Recorder
from preprocess.errors import RequestError

ROOT = Path(__file__).parent
_LONGEST_TRACEPARENT = 200
"""Version 00 has 55 characters; later ones may have more."""


class Refusal(Exception):
    """A request that ends in ``fault``."""

    def __init__(self, code: str, sentence: str, **fields: object) -> None:
        self.fault = Fault(code, sentence, tuple((k, str(v)) for k, v in fields.items()))
        super().__init__(str(self.fault))


class EngineError(RuntimeError):
    """A leaf model that failed; the message is its reason."""


def manifest() -> dict[str, Any]:
    """The repository's manifest.json."""
    loaded: dict[str, Any] = json.loads((ROOT / "manifest.json").read_text())
    return loaded


def parameters(request: Any) -> dict[str, object]:
    """The request's KServe parameters, typed."""
    return dict(json.loads(request.parameters() or "{}"))


def array(request: Any, name: str) -> NDArray[Any]:
    """The one batch row of input ``name``."""
    values: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return values[0]


def optional_array(request: Any, name: str) -> NDArray[Any] | None:
    """The one batch row of input ``name``, or None where the request does not carry it."""
    return None if pb_utils.get_input_tensor_by_name(request, name) is None else array(request, name)


def blob(request: Any, name: str) -> bytes | None:
    """The single BYTES value of input ``name``, or None where the request does not carry it.

    Raises:
        Refusal: if there is not exactly one value.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy()
    if values.size != 1:
        raise Refusal("INVALID_ARGUMENT", f"{name} must hold one value, not a tensor of shape {list(values.shape)}")
    return bytes(values.reshape(-1)[0])


def word(request: Any, name: str) -> str | None:
    """The single value of input ``name`` as text, or None where the request does not carry it.

    Raises:
        Refusal: if there is not exactly one value, or it is not UTF-8.
    """
    value = blob(request, name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise Refusal("INVALID_ARGUMENT", f"{name} must be UTF-8 text: {error}") from error


def own_parameters(request: Any) -> dict[str, object]:
    """The request's parameters; Triton's own ``timeout`` (microseconds, 0: none) is a deadline too: the earlier holds.

    Raises:
        Refusal: for a client's own sequence, which would collide with the denoiser's.
    """
    if request.correlation_id() or request.flags():
        raise Refusal("INVALID_ARGUMENT", "sequence_id, sequence_start and sequence_end are not allowed")
    given = {name: value for name, value in parameters(request).items() if name.lower() not in FORWARDED_HEADERS}
    timeout_us = request.timeout()
    deadline = given.get("deadline_ms")
    if timeout_us and (deadline is None or (isinstance(deadline, int) and deadline * 1000 > timeout_us)):
        return given | {"deadline_ms": max(timeout_us // 1000, 1)}
    return given


def caller(request: Any) -> dict[str, Any]:
    """Who asks, by the headers: ``client``, ``traceparent`` and ``trace_steps``, as `jobs.ledger.Account` has them.

    Raises:
        Refusal: at a name that is not allowed, or one given twice.
    """
    came = [(name.lower(), value) for name, value in parameters(request).items() if name.lower() in FORWARDED_HEADERS]
    headers = dict(came)
    if len(headers) < len(came):  # one as a header, one as a parameter, in other letters
        raise Refusal("INVALID_ARGUMENT", f"one of {', '.join(FORWARDED_HEADERS)} was given twice")
    client, steps = headers.get(CLIENT_HEADER), headers.get(TRACE_HEADER)
    if client is not None and not (isinstance(client, str) and CLIENT_NAME.fullmatch(client)):
        text = "must be 1 to 64 letters, digits, points, hyphens or underscores"
        raise Refusal("INVALID_ARGUMENT", f"{CLIENT_HEADER} {text}, not {client!r:.80}")
    if steps not in (None, "steps"):
        raise Refusal("INVALID_ARGUMENT", f"{TRACE_HEADER} must be steps, not {steps!r:.80}")
    parent = str(headers.get(TRACEPARENT_HEADER) or "")
    known = parent if len(parent) <= _LONGEST_TRACEPARENT else ""  # W3C: what cannot be read is ignored
    return {"client": client or "", "traceparent": known, "trace_steps": steps is not None}


def own_id(request: Any) -> str:
    """The request's id; empty where it has none.

    Raises:
        Refusal: if it is too long, or no text.
    """
    try:
        request_id = str(request.request_id())
    except UnicodeDecodeError as error:
        raise Refusal("INVALID_ARGUMENT", f"the request's id must be UTF-8 text: {error}") from error
    if len(request_id) > MAX_ID:
        raise Refusal(
            "INVALID_ARGUMENT", f"the request's id must have at most {MAX_ID} characters, not {len(request_id)}"
        )
    return request_id


def check_not_stopping(table: JobTable) -> None:
    """Refuse what is new where the server is about to stop."""
    if table.stopping:
        raise Refusal("STOPPING", "the server is about to stop and takes no new requests")


def posted() -> Post:
    """What tells the stage ``jobs`` about requests."""
    return Post(pb_utils.Logger.log_warn)


def watchable_id(request: Any) -> str:
    """The input ``id``: that of a request which may be watched and cancelled.

    Raises:
        Refusal: if it is missing or too short.
    """
    request_id = word(request, "id")
    if request_id is None or len(request_id) < MIN_WATCHABLE_ID:
        came = "none" if request_id is None else f"{len(request_id)} characters"
        raise Refusal("INVALID_ARGUMENT", f"id must have {MIN_WATCHABLE_ID} characters or more; there came {came}")
    return request_id


def answer_later(request: Any) -> Callable[[Any], None]:
    """What sends the response of ``request``, from any thread; ``execute`` returns None for it."""
    sender = request.get_response_sender()
    return lambda response: sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def answer(outputs: Mapping[str, NDArray[Any]]) -> Any:
    """A response of one batch row."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value[None]) for name, value in outputs.items()])


def refuse(fault: Fault) -> Any:
    """A response that is the coded error ``fault``."""
    kinds = pb_utils.TritonError  # Triton adds it to the module only after the model file was imported
    status = {
        "INVALID_ARGUMENT": kinds.INVALID_ARG,
        "UNAVAILABLE": kinds.UNAVAILABLE,
        "CANCELLED": kinds.CANCELLED,
        "NOT_FOUND": kinds.NOT_FOUND,
        "INTERNAL": kinds.INTERNAL,
    }[ERRORS[fault.code].status]
    return pb_utils.InferenceResponse(error=kinds(str(fault), status))


def ended(table: JobTable, post: Post, slot: Slot, fault: Fault, **marks: int) -> Fault:
    """``fault``, by which the request in ``slot`` ends now: its slot is free, and its end is told."""
    outcome: State = "cancelled" if fault.code == "CANCELLED" else "failed"
    post.tell(slot, outcome=outcome, code=fault.code, marks={**marks, "ended": time.monotonic_ns()})
    table.free(slot, outcome)
    return fault


def refusal(fault: Fault) -> str:
    """The outcome of a request that ended in ``fault`` before any graph of the pipeline ran."""
    return {"CANCELLED": "cancelled", "ENGINE": "failed", "INTERNAL": "failed"}.get(fault.code, "refused")


def count_refusal(meter: Recorder, fault: Fault) -> None:
    """Count a request that ended in ``fault`` before any graph of the pipeline ran, where that was not our fault."""
    if refusal(fault) == "refused":
        meter.count(REFUSED, reason=fault.code.lower())


def fault_of(error: Exception) -> Fault:
    """The coded error that ``error`` stands for."""
    if isinstance(error, Refusal):
        return error.fault
    if isinstance(error, RequestError):
        return Fault(error.code, str(error))
    if isinstance(error, EngineError):
        return Fault("ENGINE", str(error))
    return internal(error)


def internal(error: Exception) -> Fault:
    """A fault of our own: its traceback goes to the log, its last line to the client."""
    pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
    return Fault("INTERNAL", f"{type(error).__name__}: {error}")


def call(model: str, inputs: list[Any], output: str) -> NDArray[Any]:
    """One synchronous BLS call of a leaf model with Triton tensors; ``output`` in host memory.

    Raises:
        EngineError: with the model's own reason.
    """
    request = pb_utils.InferenceRequest(
        model_name=model,
        inputs=inputs,
        requested_output_names=[output],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    )
    response = request.exec()
    if response.has_error():
        raise EngineError(f"{model}: {response.error().message()}")
    result: NDArray[Any] = pb_utils.get_output_tensor_by_name(response, output).as_numpy()
    return result


def parse(canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The garment parser's labels of pictures: uint8 [k, H, W, 3] → [k, H, W].

    Raises:
        EngineError: with the model's own reason.
    """
    return call("parser", [pb_utils.Tensor("canvases", canvases[None])], "labels")[0]


def text(value: object) -> NDArray[np.object_]:
    """A JSON value as a BYTES tensor [1]."""
    return np.array([json.dumps(value).encode()], np.object_)
