"""What can go wrong, in one small tree:

    DressformError
    ├── InvalidRequest       the request breaks the contract, or the server cannot do that: change it
    │   ├── PersonNotFound   no person is seen, or nothing that the category covers: no automatic mask
    │   ├── GarmentNotFound  no garment is seen in the garment's picture: no automatic category
    │   └── AccessDenied     the server, or a proxy before it, wants other credentials
    ├── Overloaded           the server is full: try again after .retry_after seconds
    ├── DeadlineExceeded     not finished within the deadline
    ├── Cancelled            cancelled before it was finished
    ├── NotFound             the server has no such request, or no such model
    ├── ServerUnavailable    nobody answers, or the server is not ready
    └── ServerError          a fault of the server's own

The server's messages carry a stable code (``dressform_contract.ERRORS``); ``BY_CODE`` gives the class of each. What has
no such code (Triton's own errors, a proxy's, a broken connection) is judged by its gRPC or HTTP status.
Transports translate foreign exceptions here, once, with ``raise … from``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from dressform_contract import Fault


class DressformError(Exception):
    """The root of all errors of this package. ``str(error)`` is a sentence and what to do about it.

    ``code`` is the server's stable code (None if it gave none), ``fields`` what came with it.
    """

    advice: ClassVar[str] = ""

    def __init__(
        self,
        sentence: str,
        *,
        code: str | None = None,
        fields: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.fields = dict(fields or {})
        self.request_id = request_id

    @property
    def sentence(self) -> str:
        """What happened, ending in a full stop."""
        text = str(self.args[0]).strip()
        return text if text.endswith((".", "!", "?")) else text + "."

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}".strip()


class InvalidRequest(DressformError):
    """The request breaks the contract, or this export cannot do it: sent again as it is, it fails again."""


class PersonNotFound(InvalidRequest):
    """The server's parser sees no person, or nothing on the person that the category covers."""

    advice = "Send a mask, another category, or a picture that shows the person."


class GarmentNotFound(InvalidRequest):
    """The server's parser sees no garment in the garment's picture."""

    advice = "Send a category, or a picture that shows the garment."


class AccessDenied(InvalidRequest):
    """The server, or a proxy before it, wants credentials, or others than these."""

    advice = "Check the API key or token in headers, and the client's certificate (tls)."


class Overloaded(DressformError):
    """The server is full and took nothing on."""

    @property
    def retry_after(self) -> float:
        """Seconds after which a new try makes sense, as the server estimates; 1 if it did not say."""
        try:
            return max(0.0, float(self.fields["retry_after_ms"]) / 1000)
        except (KeyError, ValueError):
            return 1.0

    def __str__(self) -> str:
        return f"{self.sentence} Try again in {self.retry_after:.1f} s."


class DeadlineExceeded(DressformError):
    """The picture could not be made within the deadline."""

    advice = "Allow more time (timeout, deadline_ms), or ask for fewer steps or a smaller picture."


class Cancelled(DressformError):
    """The request was cancelled."""

    advice = "Send it again with a new request id if the picture is still wanted."


class NotFound(DressformError):
    """The server has no request with this id in flight, or does not serve this model."""

    advice = "Check the request id, and what the server serves (dressform health); mask needs a garment parser there."


class ServerUnavailable(DressformError):
    """No server answers at this address, or it is not ready."""

    advice = (
        "Check that `dressform serve` is running there and ready (dressform health), "
        "and that the port speaks this protocol (by default gRPC 8001, HTTP 8000)."
    )


class ServerError(DressformError):
    """A fault of the server's own, or an answer that cannot be read."""

    def __str__(self) -> str:
        name = f" and the request id {self.request_id}" if self.request_id else ""
        return f"{self.sentence} See the server's log; if it happens again, report it with this message{name}."


BY_CODE: dict[str, type[DressformError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "UNSUPPORTED": InvalidRequest,
    "PERSON_NOT_FOUND": PersonNotFound,
    "GARMENT_NOT_FOUND": GarmentNotFound,
    "ID_IN_USE": InvalidRequest,
    "OVERLOADED": Overloaded,
    "STOPPING": ServerUnavailable,
    "DEADLINE": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "NOT_FOUND": NotFound,
    "ENGINE": ServerError,
    "INTERNAL": ServerError,
}
"""The class of each code in ``dressform_contract.ERRORS``."""

_BY_STATUS: dict[str, type[DressformError]] = {
    # gRPC status names
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "RESOURCE_EXHAUSTED": InvalidRequest,  # a message above the size limit
    "NOT_FOUND": NotFound,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAVAILABLE": ServerUnavailable,
    # HTTP statuses
    "400": InvalidRequest,
    "401": AccessDenied,
    "403": AccessDenied,
    "404": NotFound,
    "408": DeadlineExceeded,
    "413": InvalidRequest,
    "415": InvalidRequest,
    "422": InvalidRequest,
    "429": Overloaded,
    "499": Cancelled,
    "502": ServerUnavailable,
    "503": ServerUnavailable,
    "504": DeadlineExceeded,
}

_BY_WORDS: dict[str, type[DressformError]] = {
    "is not healthy": ServerUnavailable,  # a Python process died with the request; the server is started anew
    "This protocol is restricted": AccessDenied,  # Triton's administration wants the key; by gRPC it says UNAVAILABLE
}
"""Words of Triton's whose status says something else."""


def from_answer(message: str | None, status: str | None, request_id: str | None = None) -> DressformError:
    """The error that a server's (or proxy's) answer stands for.

    Args:
        message: the text, in which Triton may have put "in ensemble …" before ours.
        status: gRPC status name, with or without "StatusCode.", or HTTP status in digits.
    """
    fault = Fault.parse(message or "")
    if fault is not None:
        return BY_CODE[fault.code](fault.sentence, code=fault.code, fields=dict(fault.fields), request_id=request_id)
    name = (status or "").removeprefix("StatusCode.")
    kind = next((kind for words, kind in _BY_WORDS.items() if words in (message or "")), None)
    kind = kind or _BY_STATUS.get(name, ServerError)
    return kind(message or f"the server answered {name or 'nothing'} without a reason", request_id=request_id)
