"""Whether torch is writing the computation down instead of doing it."""

import torch


def is_traced() -> bool:
    """Whether `torch.export`, `torch.onnx.export` or `torch.jit.trace` records this call.

    A record is replayed on other batches. Code that looks at values, or at how many rows there are,
    would hold for the recorded batch alone.
    """
    # torch.jit has no list of its public names, and this one no types.
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced or torch.compiler.is_exporting()
