"""Dressform's client: virtual try-on and inpainting on a Triton server, in a few lines.

>>> from dressform import Client
>>> with Client("grpc://127.0.0.1:8001") as client:
...     client.tryon("person.jpg", "shirt.jpg").image.save("fitted.png")
"""

from dressform.client import Client, Health
from dressform.errors import (
    Cancelled,
    DeadlineExceeded,
    DressformError,
    GarmentNotFound,
    InvalidRequest,
    NotFound,
    Overloaded,
    PersonNotFound,
    ServerError,
    ServerUnavailable,
)
from dressform.options import Options
from dressform.pictures import Picture
from dressform.pipeline import Pipeline, generate_tryon, load_models
from dressform.results import MaskResult, Result
from dressform.transports import TLS, Transport

__all__ = [
    "TLS",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "DressformError",
    "GarmentNotFound",
    "Health",
    "InvalidRequest",
    "MaskResult",
    "NotFound",
    "Options",
    "Overloaded",
    "PersonNotFound",
    "Picture",
    "Pipeline",
    "Result",
    "ServerError",
    "ServerUnavailable",
    "Transport",
    "generate_tryon",
    "load_models",
]
