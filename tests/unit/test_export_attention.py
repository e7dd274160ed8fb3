"""Fused attention: the same answers without the matrix, and nothing else touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from dressform_export.attention import DOMAIN, OPERATOR, fuse_attention

HEADS, WIDTH = 4, 8


class Attention(nn.Module):
    """Attention as diffusers writes it; a mask where ``masked``."""

    def __init__(self, *, masked: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.masked = masked

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        q, k, v = (t.view(b, -1, HEADS, WIDTH).transpose(1, 2) for t in self.project(x).chunk(3, dim=-1))
        mask = torch.tril(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)) if self.masked else None
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).reshape(b, -1, HEADS * WIDTH)


def exported(module: nn.Module, path: Path) -> onnx.ModelProto:
    torch.onnx.export(
        module.eval(),
        (torch.randn(2, 5, HEADS * WIDTH),),
        str(path),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "b", 1: "s"}, "y": {0: "b", 1: "s"}},
        opset_version=18,
        dynamo=False,
    )
    return onnx.load(str(path))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_answers_stay(tmp_path: Path) -> None:
    module = Attention()
    model = exported(module, tmp_path / "plain.onnx")
    assert "Softmax" in operators(model)
    assert fuse_attention(model) == 1
    assert "Softmax" not in operators(model)
    (fused,) = [node for node in model.graph.node if node.op_type == OPERATOR]
    assert (fused.domain, onnx.helper.get_attribute_value(fused.attribute[0])) == (DOMAIN, HEADS)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows, tokens in ((1, 7), (3, 64), (2, 300)):
        x = torch.randn(rows, tokens, HEADS * WIDTH, generator=torch.Generator().manual_seed(tokens))
        with torch.inference_mode():
            expected = module(x).numpy()
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, atol=1e-5)


def test_masked_attention_is_left_alone(tmp_path: Path) -> None:
    model = exported(Attention(masked=True), tmp_path / "masked.onnx")
    before = model.SerializeToString()
    assert fuse_attention(model) == 0
    assert model.SerializeToString() == before


def test_graphs_of_an_export_have_no_unmasked_attention_left(tiny_repository: Path) -> None:
    counted = {}
    for leaf in ("unet", "vae_encoder", "vae_decoder", "text_encoder"):
        model = onnx.load(str(tiny_repository / leaf / "1" / "model.onnx"), load_external_data=False)
        counted[leaf] = (operators(model).count(OPERATOR), operators(model).count("Softmax"))
    # The tiny UNet: 7 blocks of self- and cross-attention. The text encoder's attention is causal.
    assert counted == {"unet": (14, 0), "vae_encoder": (1, 0), "vae_decoder": (1, 0), "text_encoder": (0, 2)}


_PEAK = """
import sys
from pathlib import Path
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
def peak():  # of this process's own memory; ru_maxrss would begin with that of the test's
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
before = peak()
session.run(None, {"x": np.zeros((1, int(sys.argv[2]), int(sys.argv[3])), np.float32)})
print(peak() - before)
"""


def peak(path: Path, tokens: int) -> int:
    """Bytes that one run takes beyond those of the loaded graph."""
    command = [sys.executable, "-c", _PEAK, str(path), str(tokens), str(HEADS * WIDTH)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_matrix_is_not_materialised(tmp_path: Path) -> None:
    tokens = 4096
    matrix = HEADS * tokens**2 * 4
    model = exported(Attention(), tmp_path / "plain.onnx")
    assert peak(tmp_path / "plain.onnx", tokens) > 0.9 * matrix, "else this test would say nothing"
    assert fuse_attention(model) == 1
    onnx.save(model, str(tmp_path / "fused.onnx"))
    assert peak(tmp_path / "fused.onnx", tokens) < 0.1 * matrix
