"""Requests by tritonclient itself, past our client."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from PIL import Image

from dressform_server import Server


def png(image: Image.Image) -> bytes:
    """The picture as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def raw(server: Server, photo: Image.Image, mask: Image.Image, rows: int = 1, **call: Any) -> Any:
    """The answer of ``inpaint`` over gRPC; ``call`` is for ``InferenceServerClient.infer``."""
    inputs = []
    for name, value in {"image": png(photo), "mask": png(mask), "prompt": b"a"}.items():
        tensor = triton.InferInput(name, [rows, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value]] * rows, np.object_))
        inputs.append(tensor)
    with triton.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as connection:
        return connection.infer("inpaint", inputs, **call)
