"""Pictures of a codebook: what every code looks like and what it stands for, and how often each is
used.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqvae_lightning.evaluation.samplers import decode
from vqvae_lightning.metrics.codebook import code_entropy
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.pictures import grid_image

COLUMNS, SHOWN = 32, 512  # codes in a row, and at most
AROUND = 3  # cells of the latent grid that a patch spans, where the grid has as many
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 460, 90, 30, 80, 70  # of the usage picture, pixels
INK, PALE, BAR, LINE = "#333333", "#dddddd", "#4269d0", "#c0392b"


@torch.inference_mode()
def codes_picture(net: Autoencoder, counts: Tensor, means: Tensor) -> Image.Image:
    """The codes from the most used on, two patches each, of 3 × 3 cells: above, the code; below,
    what it stands for.

    Above: the middle of the image that the decoder makes of a latent filled with this code alone.
    Below: its mean patch; grey where it never occurs. `counts` (M, K) sort the codes, and `means`
    (M·K, C, height, width) are those of `mean_patches`. With M codes per cell, the other M − 1 are
    those most used of their codebooks. At most 512 codes are shown. A class-conditional decoder is
    given its first class.
    """
    device, layout = next(net.parameters()).device, net.layout
    assert layout is not None  # asked for only where there are codes
    k = layout.codebook_size
    # code i of codebook m is number m·K + i
    order = counts.flatten().argsort(descending=True, stable=True)[:SHOWN]
    chosen = counts.argmax(1).repeat(len(order), 1)  # shown,M
    chosen[torch.arange(len(order)), order // k] = order % k
    columns = min(COLUMNS, len(order))
    alone = torch.cat(
        [
            decode(net, net.bottleneck.codes_to_latents(layout.filled(codes.to(device))), 0).cpu()
            for codes in chosen.split(columns)
        ]
    )
    (cell_height, cell_width), around = cells_of(net)
    top, left = (net.grid[0] - around) // 2 * cell_height, (net.grid[1] - around) // 2 * cell_width
    alone = alone[:, :, top:, left:][:, :, : around * cell_height, : around * cell_width]
    blank = torch.zeros(-len(order) % columns, *means.shape[1:])  # grey: fills up the last row
    rows = zip(
        *(torch.cat([patches, blank]).split(columns) for patches in (alone, means[order])),
        strict=True,
    )
    return grid_image(torch.cat([patches for row in rows for patches in row]), columns)


def cells_of(net: Autoencoder) -> tuple[tuple[int, int], int]:
    """Height and width in pixels of a cell of the latent grid, and how many cells a patch spans."""
    (height, width), (_, *pixels) = net.grid, net.image_shape
    return (pixels[0] // height, pixels[1] // width), AROUND if min(net.grid) >= AROUND else 1


def mean_patches(
    encoded: Iterable[tuple[Tensor, Tensor]],
    layout: CodeLayout,
    cell: tuple[int, int],
    around: int,
) -> tuple[Tensor, Tensor]:
    """What each code stands for, and how often it occurs.

    Args:
        encoded: images (N, C, H, W) in [-1, 1] with their codes (N, h, w) or (N, h, w, M).
        layout: how codes lie on the grid, with M codebooks of K codes.
        cell: height and width in pixels of a cell of the latent grid.
        around: how many cells a patch spans. Beyond its edge an image repeats its last pixels.

    Returns:
        The mean (M·K, C, around · cell) of the patches of the images around the cells of each code,
        0 for a code without any; and how often it occurs, (M, K) int64. Code i of codebook m is
        number m·K + i.
    """
    size, edge = (
        (around * cell[0], around * cell[1]),
        (around // 2 * cell[0], around // 2 * cell[1]),
    )
    k, total = layout.codebook_size, layout.num_codebooks * layout.codebook_size
    sums, counts = torch.zeros(()), torch.zeros(layout.num_codebooks, k, dtype=torch.int64)
    for x, codes in encoded:
        padded = F.pad(x, (edge[1], edge[1], edge[0], edge[0]), mode="replicate")
        windows = padded.unfold(2, size[0], cell[0]).unfold(3, size[1], cell[1])  # N,C,h,w,size
        patches = windows.movedim(1, 3).flatten(3).flatten(0, 2)  # N·h·w,C·size
        by_codebook = codes.reshape(len(patches), -1).T  # M,N·h·w
        batch = torch.zeros(total, patches.shape[1])
        for m, numbers in enumerate(by_codebook):
            batch.index_add_(0, m * k + numbers, patches)
        counts += layout.histogram(codes)
        sums = sums + batch
    means = sums / counts.view(-1, 1).clamp_min(1)
    return means.view(total, -1, *size), counts


def usage_picture(counts: Tensor, split: str) -> Image.Image:
    """How often each code occurs in a split, as bars on a logarithmic scale, most used first;
    counts (K,) or (M, K).

    The perplexity is that of `CodebookUsage`: with M codes per cell, exp of their mean entropy, at
    most K.
    """
    perplexity = code_entropy(counts).exp().item()
    counts = counts.flatten()
    sorted_counts, k, total = (
        counts.sort(descending=True).values.tolist(),
        counts.numel(),
        int(counts.sum()),
    )
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    right, floor, plot = WIDTH - RIGHT, HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT
    decades = max(1, math.ceil(math.log10(max(2, sorted_counts[0]))))

    # the scale starts at half an occurrence, so that one occurrence is seen
    def level(count: float) -> float:
        return floor - math.log10(2 * count) / math.log10(2 * 10**decades) * (floor - TOP)

    for power in range(decades + 1):
        y = level(10**power)
        draw.line((LEFT, y, right, y), fill=PALE)
        draw.text((LEFT - 10, y), f"{10**power:,}", fill=INK, font=font, anchor="rm")
    gap = 1 if plot >= 4 * k else 0
    for x in range(plot):  # by pixel, so that any number of codes fits
        rank = x * k // plot
        if sorted_counts[rank] and not (gap and (x + 1) * k // plot > rank):
            draw.line((LEFT + x, level(sorted_counts[rank]), LEFT + x, floor), fill=BAR)
    draw.line((LEFT, floor, right, floor), fill=INK)
    for quarter in range(5):
        tick = LEFT + plot * quarter / 4
        draw.line((tick, floor, tick, floor + 6), fill=INK)
        draw.text((tick, floor + 10), f"{k * quarter / 4:,.0f}", fill=INK, font=font, anchor="ma")
    draw.text(
        (LEFT + plot / 2, HEIGHT - 12), "codes, most used first", fill=INK, font=font, anchor="mb"
    )
    draw.text((12, 12), f"times used in the {split} split (log scale)", fill=INK, font=font)
    summary = f"{(counts > 0).sum():,} of {k:,} codes used, perplexity {perplexity:.1f}"
    draw.text((right, 12), summary, fill=INK, font=font, anchor="ra")
    y = level(max(total / k, 0.5))
    for x in range(LEFT, right, 12):
        draw.line((x, y, x + 6, y), fill=LINE, width=2)
    draw.text(
        (right, 40), f"dashes: all alike, {total / k:,.4g} times", fill=LINE, font=font, anchor="ra"
    )
    return canvas
