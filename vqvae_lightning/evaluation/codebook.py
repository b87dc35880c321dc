"""Pictures of a codebook: what every code looks like and stands for, and how often it is used."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqvae_lightning.metrics.codebook import code_entropy
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.quantizers.quantizer import histogram
from vqvae_lightning.pictures import grid_image

COLUMNS, SHOWN = 32, 512  # codes in a row, and at most
AROUND = 3  # cells of the latent grid that a patch spans, where the grid has as many
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 460, 90, 30, 80, 70  # of the usage picture, pixels
INK, PALE, BAR, LINE = "#333333", "#dddddd", "#4269d0", "#c0392b"


@torch.inference_mode()
def codes_picture(
    net: Autoencoder, counts: Tensor, encoded: Iterable[tuple[Tensor, Tensor]]
) -> Image.Image:
    """The most used codes, two patches of 3 × 3 grid cells each: above the code, below its meaning.

    Above: the middle of the decoded image of a latent filled with this code alone. Below: the mean
    of all image patches in whose middle the encoder put this code; grey if it never did. At most
    512 codes are shown. With M codes per grid cell, the other M − 1 are the most used of their
    codebooks.

    Args:
        net: a tokenizer's autoencoder.
        counts: how often each code is used, (K,) or (M, K).
        encoded: images (N, C, H, W) in [-1, 1] with their codes (N, h, w) or (N, h, w, M).
    """
    device = next(net.parameters()).device
    maps = net.bottleneck.maps
    k = counts.numel() // maps
    order = counts.flatten().argsort(descending=True, stable=True)[
        :SHOWN
    ]  # code · of map m as m·K + code
    places = counts.view(maps, k).argmax(1).repeat(len(order), 1)  # shown,M
    places[torch.arange(len(order)), order // k] = order % k
    columns = min(COLUMNS, len(order))
    height, width = net.grid
    around = AROUND if min(net.grid) >= AROUND else 1
    shape = net.bottleneck.code_shape(net.grid)
    cell = net.image_shape[1] // height, net.image_shape[2] // width
    alone = torch.cat(
        [
            net.decode(
                net.bottleneck.lookup(codes.to(device).repeat(1, height * width).view(-1, *shape))
            ).cpu()
            for codes in places.split(columns)
        ]
    )
    top, left = (height - around) // 2 * cell[0], (width - around) // 2 * cell[1]
    alone = alone[:, :, top : top + around * cell[0], left : left + around * cell[1]]
    means = mean_patches(encoded, counts.numel(), cell, around)[order]
    blank = torch.zeros(-len(order) % columns, *means.shape[1:])  # grey: fills up the last row
    rows = zip(
        *(torch.cat([patches, blank]).split(columns) for patches in (alone, means)), strict=True
    )
    return grid_image(torch.cat([patches for row in rows for patches in row]), columns)


def mean_patches(
    encoded: Iterable[tuple[Tensor, Tensor]], k: int, cell: tuple[int, int], around: int
) -> Tensor:
    """Mean patch (k, C, around · cell) of the images around the positions of each of k codes.

    It is 0 for a code that is never used. Beyond its edge an image repeats its last pixels.

    Args:
        encoded: images (N, C, H, W) with their codes (N, h, w) or (N, h, w, M).
        k: the number of codes. With M codes per grid cell, code i of codebook m is m·(k/M) + i.
        cell: height and width of a grid cell in pixels.
        around: cells that a patch spans in each direction.
    """
    size, edge = (
        (around * cell[0], around * cell[1]),
        (around // 2 * cell[0], around // 2 * cell[1]),
    )
    sums, counts = torch.zeros(()), torch.zeros(k)
    for x, codes in encoded:
        padded = F.pad(x, (edge[1], edge[1], edge[0], edge[0]), mode="replicate")
        windows = padded.unfold(2, size[0], cell[0]).unfold(3, size[1], cell[1])  # N,C,h,w,size
        patches = windows.movedim(1, 3).flatten(3).flatten(0, 2)  # N·h·w,C·size
        by_map = codes.reshape(len(patches), -1).T  # M,N·h·w
        batch = torch.zeros(k, patches.shape[1])
        for m, numbers in enumerate(by_map):
            batch.index_add_(0, m * (k // len(by_map)) + numbers, patches)
        sums, counts = (
            sums + batch,
            counts + histogram(codes, k // len(by_map), len(by_map)).flatten(),
        )
    return (sums / counts.clamp_min(1)[:, None]).view(k, -1, *size)


def usage_picture(counts: Tensor, split: str) -> Image.Image:
    """How often each code occurs in a split, as bars on a logarithmic scale, most used first.

    `counts` are (K,) or (M, K). The perplexity is that of `CodebookUsage`: with M codes per grid
    cell, exp of their mean entropy, at most K.
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

    def level(
        count: float,
    ) -> float:  # the scale starts at half an occurrence, so that one occurrence is seen
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
