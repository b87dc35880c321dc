"""What a program of one's own hands over: images, codes and batches of its own loaders.

```
numpy or torch, uint8 or float N,C,H,W ──► images_of ──► float N,C,H,W in [-1, 1]
numpy or torch, whole numbers          ──► codes_of  ──► int64 N,h,w or N,h,w,M
x, (x, labels) or a `Batch`            ──► as_batch  ──► `Batch`
```

What does not fit is a ValueError of one line.
"""

import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.data.images import to_float
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import derive_seed, eval_seed
from vqvae_lightning.models.distributed import rank_and_world
from vqvae_lightning.models.layout import CodeLayout

# How far floats may lie outside of [-1, 1]: rounding, and the steps of an optimizer on images.
TOLERANCE = 0.01


class PlainBatch(Batch):
    """A batch of a loader of one's own: training draws from torch's random state as it is."""

    def step_uniform(self, x: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape of x from torch's random state."""
        return torch.rand(x.shape, device=x.device)


def tensor_of(given: object, name: str) -> Tensor:
    """A tensor of a numpy array, or the tensor itself; of an array it is a copy.

    Raises ValueError for anything else, such as a sparse tensor.
    """
    if isinstance(given, Tensor):
        if given.layout != torch.strided:
            raise ValueError(f"{name}: got a tensor of layout {given.layout}, wanted a dense one")
        return given
    if isinstance(given, np.ndarray):
        try:
            # torch reads no array that is turned round.
            return torch.tensor(np.ascontiguousarray(given))
        except TypeError:
            raise ValueError(f"{name}: got an array of {given.dtype}, wanted numbers") from None
    raise ValueError(f"{name}: got {type(given).__name__}, wanted a torch tensor or a numpy array")


def images_of(
    given: object, shape: tuple[int, ...], like: Tensor, check_values: bool = True
) -> Tensor:
    """Images as a model sees them, float (N, C, H, W) in [-1, 1].

    Gradients pass, to images that are floats.

    Args:
        given: uint8 0 … 255, or floats in [-1, 1].
        shape: (C, H, W), what the model was made for.
        like: a tensor with the dtype and the device of the model.
        check_values: whether to look at the values of floats, which waits for a GPU.
    """
    x = tensor_of(given, "images")
    if x.dim() != 4 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"images: got shape {tuple(x.shape)}, wanted (N, {', '.join(map(str, shape))})"
        )
    if x.dtype == torch.uint8:
        return to_float(x.to(like.device)).to(like.dtype)
    if not x.is_floating_point():
        raise ValueError(f"images: got {x.dtype}, wanted torch.uint8, or floats in [-1, 1]")
    if check_values and x.numel():
        low, high = (float(value) for value in x.detach().aminmax())
        if not (low >= -1 - TOLERANCE and high <= 1 + TOLERANCE):
            raise ValueError(
                f"images: got floats from {low:.4g} to {high:.4g}, wanted uint8, or floats in"
                " [-1, 1]"
            )
    return x.to(like.device, like.dtype)


def warn_of_range(x: Tensor) -> None:
    """Warns of a first batch of floats that all lie in [0, 1], as many loaders have them."""
    if x.is_floating_point() and x.numel() and float(x.min()) >= 0 and float(x.max()) <= 1:
        warnings.warn(
            "images: all floats of the first batch lie in [0, 1], but a model takes [-1, 1]; give"
            " 2 * x - 1, or uint8",
            stacklevel=2,
        )


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of images. Raises ValueError for another shape."""
    found = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(found) != 3 or not all(isinstance(side, Integral) and side > 0 for side in found):
        raise ValueError(f"image_shape: got {shape}, wanted (C, H, W), such as (1, 28, 28)")
    channels, height, width = map(int, found)
    return channels, height, width


def codes_of(given: object, layout: CodeLayout, device: torch.device) -> Tensor:
    """Codes int64 (N, *layout.shape) of codes in that shape, or of sequences (N, T)."""
    codes = tensor_of(given, "codes")
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"codes: got {codes.dtype}, wanted whole numbers")
    if tuple(codes.shape[1:]) == (layout.length,):
        codes = layout.unflatten(codes)
    if codes.dim() < 2 or tuple(codes.shape[1:]) != layout.shape:
        wanted = ", ".join(map(str, layout.shape))
        raise ValueError(
            f"codes: got shape {tuple(codes.shape)}, wanted (N, {wanted}) or (N, {layout.length})"
        )
    return codes.to(device, torch.int64)


def checked_labels(
    label: Any,
    n: int,
    classes: int,
    device: torch.device,
    check_values: bool = True,
    name: str = "label",
) -> Tensor:
    """The classes (n,) int64, on a device, of one label for all n, or one for each.

    Raises ValueError for anything else, and with `check_values` for a label outside 0 … classes−1.
    """
    try:
        labels = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: got {label!r}, wanted whole numbers") from None
    if labels.is_floating_point() or labels.dim() > 1 or labels.shape not in ((), (n,)):
        raise ValueError(
            f"{name}: got {labels.dtype} of shape {tuple(labels.shape)}, wanted one whole number"
            f", or {n}"
        )
    if check_values and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        wrong = next(int(one) for one in labels.flatten() if not 0 <= one < classes)
        raise ValueError(f"{name}: got {wrong}, wanted 0 to {classes - 1}")
    return labels.to(device, torch.int64).expand(n)


def as_batch(given: Any, index: int, loader: int = 0) -> Batch:
    """The batch of a step: a `Batch` as it is; x or (x, labels) as a PlainBatch.

    An evaluation draws other noise for each image of each batch, loader and rank.

    Args:
        given: what a loader yields.
        index: the number of the batch among those of its loader on this rank.
        loader: the number of the loader, where an evaluation has several.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(given, Batch):
        return given
    x, *more = given if isinstance(given, list | tuple) else [given]
    if len(more) > 1:
        raise ValueError(f"batch: got {1 + len(more)} parts, wanted x or (x, labels)")
    if not isinstance(x, Tensor | np.ndarray):
        raise ValueError(f"batch: got {type(x).__name__}, wanted x or (x, labels), of tensors")
    labels = tensor_of(more[0], "labels") if more else torch.empty(0, dtype=torch.int64)
    seed = derive_seed(eval_seed(0), index, rank_and_world()[0], *([loader] if loader else []))
    return PlainBatch(tensor_of(x, "batch"), labels, torch.arange(len(x)), seed)
