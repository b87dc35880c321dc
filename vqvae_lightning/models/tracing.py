"""Whether torch is writing the computation down instead of doing it."""

import torch


def is_traced() -> bool:
    """Whether `torch.export`, `torch.onnx.export` or `torch.jit.trace` records this call.

    A record is replayed on other batches. Code that looks at values, or at how many rows there are,
    would hold for the recorded batch alone.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
