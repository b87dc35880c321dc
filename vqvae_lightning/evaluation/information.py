"""How often each code occurs in a whole split."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.codebook import (
    cells_of,
    codes_picture,
    mean_patches,
    usage_picture,
)
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.metrics.information import code_information, prior_savings
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.pictures import write_picture


def code_counts(net: Autoencoder, images: ImageDataModule, split: str) -> Tensor:
    """How often a tokenizer uses each code on a whole split, unaugmented; (M, K) int64 on the CPU.

    `CodeDataModule.code_counts` counts stored codes.
    """
    layout = net.layout
    assert layout is not None, type(net.bottleneck)
    counts = torch.zeros(layout.num_codebooks, layout.codebook_size, dtype=torch.int64)
    for _, codes in encoded(net, images, split):
        counts += layout.histogram(codes)
    return counts


@torch.inference_mode()
def encoded(
    net: Autoencoder, images: ImageDataModule, split: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images x (N, C, H, W) in [-1, 1] of a whole split and their codes, on the CPU."""
    device = own_device()
    net = net.eval().to(device)
    for batch in images.batches(split, device):
        codes = net.encode(batch.x).codes
        assert codes is not None, type(net.bottleneck)
        yield batch.x.cpu(), codes.cpu()


def train_counts(subject: Subject) -> Tensor:
    """`code_counts` of the training split of a tokenizer's run, of the codes that a prior stored
    there if it did.
    """
    net, images = subject.net, subject.images
    stored = CodeDataModule(images, Tokenizer(net), subject.run.path)
    # Stored codes of a flipped split are of mirror images, too.
    if not images.config.flip and stored.open_stored():
        return stored.code_counts("train")
    return code_counts(net, images, "train")


class Codes(Evaluator):
    """How a tokenizer uses its codes, in bits, and two pictures of it: codes.png and usage.png."""

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        return None if plan.kind.is_tokenizer else "it makes no codes"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        net, images, split = subject.net, subject.images, options.split
        assert net.layout is not None  # of a tokenizer
        means, held_out = mean_patches(encoded(net, images, split), net.layout, *cells_of(net))
        train, folder = train_counts(subject), subject.run.images
        write_picture(folder / "codes.png", codes_picture(net, held_out, means))
        write_picture(folder / "usage.png", usage_picture(held_out, split))
        return code_information(train, held_out, split)


class PriorSavings(Evaluator):
    """What the order of the codes is worth to a prior, in bits per code."""

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        of_codes = plan.kind.stage == 2 and plan.kind.has_codes
        return None if of_codes else "it is no prior of codes"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        train, held_out = (subject.codes.code_counts(name) for name in ("train", options.split))
        return prior_savings(train, held_out, known["bits_per_code"])
