"""Dressform's client: virtual try-on and inpainting on a Triton server, in a few lines.

>>> from dressform import Client
>>> with Client("grpc://127.0.0.1:8001") as client:
...     client.tryon("person.jpg", "shirt.jpg").image.save("fitted.png")
"""

from dressform.async_client import AsyncClient
from dressform.client import Client
from dressform.errors import (
    AccessDenied,
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
from dressform.handles import AsyncHandle, Handle
from dressform.inpaint_pipeline import DressformInpaintPipeline
from dressform.many import Finished
from dressform.options import Options
from dressform.pictures import Picture
from dressform.pipeline import Pipeline, generate_tryon, load_models
from dressform.progress import Progress
from dressform.results import MaskResult, Result
from dressform.retries import Retry
from dressform.status import About, Health, Model, ModelStatistics
from dressform.transports import TLS, AsyncTransport, Transport

__all__ = [
    "TLS",
    "About",
    "AccessDenied",
    "AsyncClient",
    "AsyncHandle",
    "AsyncTransport",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "DressformError",
    "DressformInpaintPipeline",
    "Finished",
    "GarmentNotFound",
    "Handle",
    "Health",
    "InvalidRequest",
    "MaskResult",
    "Model",
    "ModelStatistics",
    "NotFound",
    "Options",
    "Overloaded",
    "PersonNotFound",
    "Picture",
    "Pipeline",
    "Progress",
    "Result",
    "Retry",
    "ServerError",
    "ServerUnavailable",
    "Transport",
    "generate_tryon",
    "load_models",
]
