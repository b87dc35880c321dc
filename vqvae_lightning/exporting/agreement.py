"""Compares exported graphs with their model on real images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.exporting.graphs import Graph, ImageEncoder, PriorStep
from vqvae_lightning.exporting.runtimes import Call

# Another build adds up in another order: pixels may differ by a level, numbers by this share of the
# largest one.
PIXEL_LEVELS, FLOAT_SHARE = 1, 1e-3
# A code may differ only where features moved by this share of their size, some of these times, have
# it too: there two codes are equally near.
TIE_NOISE, TIE_DRAWS = 1e-5, 64
MOST_TIES = 0.01  # of all codes


class DisagreementError(ArithmeticError):
    """An exported graph and its model disagree. The message is one line."""


def compare(graphs: list[Graph], calls: Mapping[str, Call], images: Tensor) -> dict[str, Any]:
    """Compares exported graphs with the model on images uint8 (N, C, H, W), N >= 2.

    Every graph is given the model's own values, in batches of 1, of 2 and of all N.

    Returns:
        The entry for config.json: the number of images and, of a model with codes, the number of
        codes and of those that differ.

    Raises:
        DisagreementError: a difference beyond rounding.
    """
    encoder, decoder, *step = graphs
    with torch.no_grad():
        latents = encoder.module(images)
    different = _compare(encoder, calls["encoder"], {"images": images})
    _compare(decoder, calls["decoder"], {decoder.inputs[0].name: latents})
    for graph in step:
        length = latents.shape[1]
        given = {"codes": latents}
        if len(graph.inputs) == 3:
            assert isinstance(graph.module, PriorStep)
            given["labels"] = torch.arange(len(images)) % graph.module.net.classes
        for position in sorted({0, length // 2, length - 1}):
            at = {**given, "position": torch.tensor(position)}
            _compare(graph, calls["step"], {port.name: at[port.name] for port in graph.inputs})
    if encoder.output.dtype != "int64":
        return {"images": len(images)}
    return {"images": len(images), "codes": latents.numel(), "codes_that_differ": different}


def _compare(graph: Graph, call: Call, inputs: Mapping[str, Tensor]) -> int:
    """Compares a graph for each batch size. Returns how many values of all images differ."""
    different = 0
    size = next(iter(inputs.values())).shape[0]
    for batch in (1, 2, size):
        given = {name: value[:batch] if value.dim() else value for name, value in inputs.items()}
        with torch.no_grad():
            wanted = graph.module(*given.values())
        try:
            found = call(given)
        except Exception as error:
            # onnxruntime and torch raise errors of many types.
            reason = str(error).partition("\n")[0]
            raise DisagreementError(
                f"export: the {graph.name} fails for {batch} images: {reason}"
            ) from error
        if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            raise DisagreementError(
                f"export: the {graph.name} gives {found.dtype} of shape {tuple(found.shape)} for"
                f" {batch} images, the model {wanted.dtype} of shape {tuple(wanted.shape)}"
            )
        different = int((found != wanted).sum())
        wrong = _wrong(graph, given, found, wanted)
        if wrong:
            raise DisagreementError(
                f"export: of {wanted.numel():,} values of the {graph.name} for {batch} images,"
                f" {wrong:,} are not those of the model; nothing was kept"
            )
    return different


def _wrong(graph: Graph, given: Mapping[str, Tensor], found: Tensor, wanted: Tensor) -> int:
    """The number of values that differ by more than rounding explains."""
    if found.dtype == torch.uint8:
        return int(((found.int() - wanted.int()).abs() > PIXEL_LEVELS).sum())
    if found.dtype == torch.int64:
        return _wrong_codes(graph, given["images"], found, wanted)
    limit = FLOAT_SHARE * wanted.abs().max()
    return int((~((found - wanted).abs() <= limit)).sum())  # NaN is wrong


def _wrong_codes(graph: Graph, images: Tensor, found: Tensor, wanted: Tensor) -> int:
    """The number of wrong codes: those that differ and are no ties, or all if too many differ."""
    different = found != wanted
    if not different.any() or different.sum() > max(1, MOST_TIES * different.numel()):
        return int(different.sum())
    assert isinstance(graph.module, ImageEncoder)
    generator, wrong = torch.Generator().manual_seed(0), different
    for _ in range(TIE_DRAWS):
        with torch.no_grad():
            wrong = wrong & (graph.module.shaken_codes(images, TIE_NOISE, generator) != found)
    return int(wrong.sum())
