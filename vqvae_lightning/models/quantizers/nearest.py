"""The nearest code of each row, and k-means: how codebooks are searched and initialized.

R: rows, one per grid cell of each image. K, D: codes and their dimensions.
"""

import torch
from torch import Tensor

from vqvae_lightning.models.tracing import is_traced

KMEANS_ITERATIONS = 10
LANES = 64  # codes whose scores are compared side by side: four registers of 16 floats
CENTRED = 256  # codes whose median is taken as the middle of all: more cost time, fewer may miss it
LEAST_ROWS = 256  # rows of a chunk: a matrix product of fewer is slow
# Scores of a chunk of more rows: 4 MB stay in a CPU's cache, 512 MB keep a GPU busy.
CPU_SCORES, GPU_SCORES = 2**20, 2**27


@torch.no_grad()
def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the Euclidean-nearest row of codebook (K, D) for each row of z (R, D), int64 (R,).

    Both are float32 or float64. ‖z‖² is the same for every code, so it is left out; of equal scores
    the lowest index wins. Another code than in exact arithmetic is found only where two squared
    distances differ by less than the rounding of ‖z − m‖² + ‖e‖², where m is the median of the
    codes in each dimension and e a code less m. A common offset therefore costs no precision, and
    neither do outliers: up to half of the codes do not move a median far.

    Rows are scored in chunks that stay in cache: never R·K numbers at once. An argmin over K goes
    number by number, a minimum is vectorized, so codes are laid out as G x LANES, column (g, lane)
    for code lane·G + g, and the lane is found first, then g: the order of indices is kept, so ties
    are too.
    """
    k, d = codebook.shape
    groups = -(-k // LANES)  # G
    centre = median(codebook[:: -(-k // CENTRED)])  # of evenly spaced codes, at most CENTRED
    codes = codebook - centre
    # the last code repeated, to a multiple of LANES
    codes = torch.cat([codes, codes[-1:].expand(groups * LANES - k, d)])
    codes = codes.view(LANES, groups, d).transpose(0, 1).reshape(-1, d)  # G·LANES,D
    norms, weight = codes.square().sum(1), codes.T * -2
    if is_traced():
        # One chunk: a loop, or a buffer, would have the number of rows of the recorded batch.
        nearest = least(torch.addmm(norms, z - centre, weight), groups)
    else:
        size = max(LEAST_ROWS, (CPU_SCORES if z.device.type == "cpu" else GPU_SCORES) // len(codes))
        buffer = z.new_empty(min(size, z.shape[0]), len(codes))
        chunks = [
            least(torch.addmm(norms, rows - centre, weight, out=buffer[: len(rows)]), groups)
            for rows in z.split(size)
        ]
        nearest = torch.cat(chunks)
    return nearest.clamp_max(k - 1)  # a copy of the last code is the last code


def median(codes: Tensor) -> Tensor:
    """The median of codes (K, D) in each dimension, (D,): the lower one of two."""
    if is_traced() or torch.are_deterministic_algorithms_enabled():
        # ONNX has no median, a GPU none that is deterministic. Sorting takes more than twice as
        # long.
        return codes.sort(0).values[(codes.shape[0] - 1) // 2]
    return codes.median(0).values


def least(scores: Tensor, groups: int) -> Tensor:
    """The code of least score, (m,), of scores (m, G·LANES) whose column (g, lane) is code
    lane·G + g.
    """
    scores = scores.unflatten(1, (groups, LANES))  # m,G,LANES
    lane = scores.amin(1).argmin(1)  # m
    of_lane = scores.gather(2, lane[:, None, None].expand(-1, groups, 1)).squeeze(2)  # m,G
    return torch.add(of_lane.argmin(1), lane, alpha=groups)


def kmeans(rows: Tensor, k: int, iterations: int = KMEANS_ITERATIONS) -> Tensor:
    """k centres (k, D) of rows (R, D) by Lloyd's algorithm, initialized at k random rows (drawn
    with repeats if k > R).

    A centre that loses all its rows stays where it is.
    """
    count, device = rows.shape[0], rows.device
    if count >= k:
        start = torch.randperm(count, device=device)[:k]
    else:
        start = torch.randint(count, (k,), device=device)
    centres = rows[start].clone()
    for _ in range(iterations):
        counts, sums = code_sums(rows, nearest_code(rows, centres), k)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return centres


def code_sums(rows: Tensor, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """How many rows (R, D) chose each of k codes, (k,), and their sum, (k, D), in the dtype of
    rows.
    """
    counts = torch.bincount(codes, minlength=k).to(rows.dtype)
    sums = rows.new_zeros(k, rows.shape[1]).index_add_(0, codes, rows)
    return counts, sums
