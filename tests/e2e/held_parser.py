"""A garment parser that works on whatever it gets for as long as a file is there."""

from __future__ import annotations

import shutil
from pathlib import Path

from e2e.conftest import run_in_python

HELD = '''
import time
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The exported parser, which does not answer while a file is there."""

    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))

    def execute(self, requests):
        Path(HELD).with_suffix(".asked").touch()
        while Path(HELD).exists():
            time.sleep(0.01)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        canvases = pb_utils.get_input_tensor_by_name(request, "canvases").as_numpy()
        if (canvases == 7).all():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("this picture is poisoned"))
        labels = self.session.run(None, {"canvases": canvases})[0]
        return pb_utils.InferenceResponse([pb_utils.Tensor("labels", labels)])
'''


def with_held_parser(exported: Path, repository: Path, held: Path) -> Path:
    """A copy of ``exported`` whose parser waits while ``held`` is there (see `asked`)."""
    shutil.copytree(exported, repository)
    run_in_python(repository / "parser" / "config.pbtxt")
    (repository / "parser" / "1" / "model.py").write_text(HELD.replace("HELD", repr(str(held))))
    return repository


def asked(held: Path) -> bool:
    """Whether the parser has been asked."""
    return held.with_suffix(".asked").exists()
