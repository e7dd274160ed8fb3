"""How much a leaf computes."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dressform_export.graphs import Leaf, Probe


def flops(leaf: Leaf, module: nn.Module, probe: Probe) -> int:
    """Floating-point operations of one call at the sizes of ``probe``: matrix products and convolutions, 2 a product.

    Shapes alone are worked out, nothing is computed.
    """
    inputs = leaf.example(probe, torch.Generator().manual_seed(0))
    counter = FlopCounterMode(display=False)
    # As matrix products, attention is counted on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FakeTensorMode(allow_non_fake_inputs=True) as fake, counter:
        module(**{name: fake.from_tensor(tensor) for name, tensor in inputs.items()})
    return int(counter.get_total_flops())
