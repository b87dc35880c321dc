"""What a split takes as a file: the rate of the ledger, proven by bytes that decode."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vqvae_lightning.codec.coding import coded_of, compress, decompress
from vqvae_lightning.codec.container import LOSSLESS, CodecError
from vqvae_lightning.codec.pixels import has_tables
from vqvae_lightning.codec.places import Images, split_of
from vqvae_lightning.config import EvaluateOptions, member_of
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.metrics.reconstruction import psnr_of_levels
from vqvae_lightning.models.parts import LIKELIHOODS


class BytesOnDisk(Evaluator):
    """Bytes of a file of the split as it lies on disk, and what it decodes to.

    A model that codes in both ways has a lossy file and a lossless one.
    """

    settings = ("bytes",)

    def is_for(self, plan: Plan) -> bool:
        return why_not(plan) is None

    def asked(self, options: EvaluateOptions) -> bool | None:
        return options.bytes

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        return why_not(plan)

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        images = split_of(subject.images, options.split)
        modes = coded_of(subject.module).modes
        return dict(
            found for mode in modes for found in measured(subject.module, images, mode == LOSSLESS)
        )


def why_not(plan: Plan) -> str | None:
    """Why a run has no file; None if it has one."""
    kind, place = plan.kind, plan.path
    if kind.stage == 2 and not kind.has_codes:
        return f"bytes: {place} is a run of kind {kind.name}, whose p(z) no file is coded with"
    if kind.stage == 1 and plan.experiment.model.class_conditional:
        return f"bytes: the decoder of {place} is given the label, which no file holds"
    if kind.has_codes or not kind.has_density:
        return None
    if not has_tables(member_of(plan.experiment.model.likelihood, LIKELIHOODS)):
        return (
            f"bytes: {place} is a run of kind {kind.name}, whose files are lossless, and its"
            " likelihood gives no probabilities of pixel levels"
        )
    return None


def measured(model: object, images: Images, lossless: bool) -> Iterator[tuple[str, float]]:
    """The size of a file of images, and what it decodes to, by name.

    Raises CodecError if pixels of a lossless file do not come back.
    """
    with tempfile.TemporaryDirectory(prefix="vqvae-") as folder:
        file = Path(folder) / "split.vqz"
        file.write_bytes(compress(model, *images, lossless=lossless))
        size, again = file.stat().st_size, decompress(file.read_bytes(), model)
    if lossless:
        if wrong := int((again != images.pixels).flatten(1).any(1).sum()):
            raise CodecError(
                f"bytes: {wrong} of {len(again)} images of the lossless file are not what went in"
            )
        yield "disk_bits_per_dim", 8 * size / images.pixels.numel()
    else:
        yield "bytes_per_image", size / len(images.pixels)
        yield "disk_psnr", psnr_of_levels(again, images.pixels)
