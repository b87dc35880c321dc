"""`open_export(folder)`: opens an exported folder as a model that encodes and decodes.

```
safetensors, hub ──► the LightningModule with its exact weights; a prior with its tokenizer
onnx, pt2        ──► Exported: encode, decode;  ExportedPrior: also step, sample
```

Nothing in a folder is executed: safetensors and ONNX hold numbers and operators. A `.pt2` may hold
pickles, which `torch.export.load` reads. It is opened only if the caller trusts its maker.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, canonical, one_line
from vqvae_lightning.exporting.formats import FORMATS, Graphs, check_packages
from vqvae_lightning.exporting.graphs import BATCH, Port
from vqvae_lightning.exporting.manifest import (
    MANIFEST,
    Manifest,
    check_together,
    read_manifest,
)
from vqvae_lightning.exporting.runtimes import Call
from vqvae_lightning.exporting.weights import module_from
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.priors.sampling import Sampling
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.image_model import checked_count
from vqvae_lightning.training.stages import Generates, HasLatents
from vqvae_lightning.verified import CheckpointError


class Exported:
    """Encoder and decoder of an exported autoencoder; see `graphs` for shapes and types."""

    def __init__(self, manifest: Manifest, calls: Mapping[str, Call]) -> None:
        self.manifest, self._calls = manifest, calls

    def encode(self, images: Tensor) -> Tensor:
        """Codes, or z of an AE or a VAE, of images uint8 (N, C, H, W).

        Raises ValueError for another type or shape.
        """
        return self.call("encoder", images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W) of the output of `encode`. Raises ValueError as `encode`."""
        return self.call("decoder", latents)

    def call(self, name: str, *given: Tensor) -> Tensor:
        """The output of a graph of the manifest. Raises ValueError for inputs that do not fit."""
        inputs, output = self.manifest.graphs[name]
        if len(given) != len(inputs):
            wanted = ", ".join(port.name for port in inputs)
            raise ValueError(f"{name}: got {len(given)} inputs, wanted {len(inputs)}: {wanted}")
        named = {port.name: tensor for port, tensor in zip(inputs, given, strict=True)}
        for port in inputs:
            check_tensor(port, named[port.name])
        try:
            found = self._calls[name](named)
        except Exception as error:
            # onnxruntime and torch raise errors of many types, such as for a lack of memory.
            reason = one_line(str(error).partition("\n")[0])
            raise ValueError(f"{name}: {reason}") from error
        check_tensor(output, found)
        return found


class ExportedPrior(Exported):
    """An exported prior with encoder and decoder of its tokenizer; codes are sequences (N, T)."""

    @property
    def length(self) -> int:
        """T, codes of an image."""
        return cast(int, self.manifest.graphs["step"][0][0].shape[1])

    @property
    def codebook_size(self) -> int:
        """K."""
        return cast(int, self.manifest.graphs["step"][1].shape[1])

    @property
    def is_conditional(self) -> bool:
        """Whether `step` wants labels."""
        return len(self.manifest.graphs["step"][0]) == 3

    def step(self, codes: Tensor, position: int, labels: Tensor | None = None) -> Tensor:
        """Logits float32 (N, K) of the code at `position`, given the codes (N, T) before it.

        Raises ValueError for inputs that do not fit, such as labels that are missing.
        """
        given = [codes, torch.tensor(position), *([] if labels is None else [labels])]
        return self.call("step", *given)

    def sample(
        self,
        n: int,
        label: int | Sequence[int] | Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n images uint8 (n, C, H, W), drawn code by code.

        Args:
            n: how many.
            label: their class, or a class for each (n,), of a class-conditional prior.
            temperature: 0 takes the most likely code.
            top_k: keeps the k most likely codes.
            top_p: keeps the likeliest codes that hold this probability.
            generator: the source of what is random.

        Raises:
            ValueError: for values out of range.
        """
        n = checked_count(n)
        sampling = Sampling.of({"temperature": temperature, "top_k": top_k, "top_p": top_p})
        sampling.check(self.codebook_size)
        labels = self._labels(n, label)
        codes = torch.zeros(n, self.length, dtype=torch.int64)
        for position in range(self.length):
            logits = self.step(codes, position, labels)
            codes[:, position] = sampling.draw(logits, generator)
        return self.decode(codes)

    def _labels(self, n: int, label: int | Sequence[int] | Tensor | None) -> Tensor | None:
        """Labels (n,) of one label for all n, or one for each. Raises ValueError."""
        if self.is_conditional != (label is not None):
            wanted = "a class, or one for each" if self.is_conditional else "none"
            raise ValueError(f"label: got {label}, wanted {wanted}")
        if label is None:
            return None
        try:
            return torch.as_tensor(label).expand(n)
        except (TypeError, ValueError, RuntimeError):
            wanted = f"one whole number, or {n}"
            raise ValueError(f"label: got {label!r}, wanted {wanted}") from None


@own_surroundings()
def open_export(folder: str | Path, trusted: bool = False) -> pl.LightningModule | Exported:
    """Opens an exported folder. The SHA-256 of each file is verified.

    Args:
        folder: a folder of any format; of `hub` a copy, such as `snapshot_download(local_dir=…)`.
        trusted: whether its maker may run code here. Opening a `.pt2` can run code.

    Returns:
        safetensors and hub: the LightningModule in evaluation mode, a prior with its tokenizer
        attached. onnx and pt2: `Exported`, of a prior `ExportedPrior`.

    Raises:
        ConfigError: a folder of another kind, a missing package, a `.pt2` that is not trusted.
        CheckpointError: a damaged folder.
    """
    folder = Path(canonical(folder, "export"))
    manifest = read_manifest(folder)
    for value, known in ((manifest.format, FORMATS), (manifest.kind, KINDS)):
        if value not in known:
            raise ConfigError(
                f"export: {folder / MANIFEST} says {value!r}, wanted one of {', '.join(known)}"
            )
    check_packages(manifest.format, writes=False)
    held = FORMATS[manifest.format].graphs
    if held is None:
        return _open_weights(manifest)
    if held.runs_code and not trusted:
        raise ConfigError(
            f"export: {folder} is of format {manifest.format}, and to open one can run code that is"
            " in it; if you trust its maker, call open_export(folder, trusted=True), or ask for"
            " safetensors or onnx"
        )
    return _open_graphs(manifest, held)


def _open_weights(manifest: Manifest) -> pl.LightningModule:
    stage = KINDS[manifest.kind].stage
    parts = ["model"] if stage == 1 else ["model", "tokenizer"]
    found = []
    for part in parts:
        if part not in manifest.weights:
            raise CheckpointError(f"export: {manifest.folder / MANIFEST} has no weights.{part}")
        name = f"{part}.safetensors"
        path = manifest.folder / name
        found.append(module_from(manifest.read(name), manifest.weights[part], path))
    if found[0].kind != manifest.kind:
        raise CheckpointError(f"export: {manifest.folder} holds a {found[0].kind}")
    if stage == 2:
        try:
            cast(Generates, found[0]).attach(Tokenizer(cast(HasLatents, found[1]).net))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"export: {manifest.folder}: {one_line(error)}") from error
    return found[0].eval()


def _open_graphs(manifest: Manifest, held: Graphs) -> Exported:
    stage = KINDS[manifest.kind].stage
    wanted = ["encoder", "decoder", *(["step"] if stage == 2 else [])]
    if sorted(manifest.graphs) != sorted(wanted):
        raise CheckpointError(
            f"export: {manifest.folder / MANIFEST} has graphs {', '.join(manifest.graphs)},"
            f" wanted {', '.join(wanted)}"
        )
    try:
        check_together(manifest.graphs, stage)
    except ValueError as error:
        raise CheckpointError(f"export: {manifest.folder / MANIFEST}: {one_line(error)}") from error
    calls = {}
    for name in wanted:
        file = f"{name}.{manifest.format}"
        data, (inputs, output) = manifest.read(file), manifest.graphs[name]
        try:
            calls[name] = held.open(data, inputs, output)
        except Exception as error:
            # torch raises errors of many types for an archive that it cannot read.
            reason = one_line(str(error).partition("\n")[0])
            raise CheckpointError(f"export: {manifest.folder / file}: {reason}") from error
    return (ExportedPrior if stage == 2 else Exported)(manifest, calls)


def check_tensor(port: Port, tensor: Tensor) -> None:
    """Raises ValueError unless a tensor has the type, the shape and the values of a port."""
    if not isinstance(tensor, Tensor):
        got = type(tensor).__name__
        raise ValueError(f"{port.name}: got {got}, wanted a torch tensor of {port.dtype}")
    sides = zip(port.shape, tensor.shape, strict=False)
    fits = len(port.shape) == tensor.dim() and all(wanted in (got, BATCH) for wanted, got in sides)
    got = str(tensor.dtype).removeprefix("torch.")
    if not fits or got != port.dtype:
        wanted = ", ".join(map(str, port.shape))
        raise ValueError(
            f"{port.name}: got {got} of shape {tuple(tensor.shape)}, wanted {port.dtype} of shape"
            f" ({wanted}): {port.meaning}"
        )
    if got == "int64" and tensor.numel():
        # A graph counts an index below 0 from the end, and one beyond the last may be any memory.
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or (port.below is not None and high >= port.below):
            raise ValueError(f"{port.name}: got {low if low < 0 else high}, wanted {port.meaning}")
