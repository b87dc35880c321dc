"""Rotary positions: scores depend on where the predicted cell lies to the cell that was read."""

import pytest
import torch

from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.rotary import Rotation, cells_of, rotation_of

GRID = CodeLayout((5, 5), 7)
CHANNELS = 12


def rotation(cells: torch.Tensor, before: int = 0) -> Rotation:
    return rotation_of(cells, before, CHANNELS, torch.zeros((), dtype=torch.float64))


def scores(cells: torch.Tensor) -> torch.Tensor:
    """Scores (T, T−1) of the same query for each code, with the same key of each code before."""
    q, k = torch.randn(2, CHANNELS, dtype=torch.float64)
    turned = rotation(cells)
    # token 0 starts the sequence: it reads no code
    return turned.queries(q.expand(len(cells), -1)) @ turned.keys(k.expand(len(cells), -1))[1:].T


def test_a_layout_has_an_axis_for_each_side_that_is_longer_than_one() -> None:
    assert cells_of(CodeLayout((2, 3), 5)).tolist() == [
        [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2],
    ]  # fmt: skip
    assert cells_of(CodeLayout((1, 3), 5)).tolist() == [[0], [1], [2]]
    assert cells_of(CodeLayout((1, 1), 5)).tolist() == [[0]]
    assert cells_of(CodeLayout((1, 2), 5, 2)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert cells_of(CodeLayout((2, 2), 5, 2)).shape == (8, 3)


def test_a_score_is_a_function_of_the_displacement_on_the_grid_alone() -> None:
    """Whatever the places in the sequence: the code above is the code above in every column."""
    cells = cells_of(GRID)
    found = scores(cells)
    by_displacement: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for s, predicted in enumerate(cells):
        for t, read in enumerate(cells[:-1]):
            key = tuple((predicted - read).tolist())
            by_displacement.setdefault(key, []).append(found[s, t])
    for same in by_displacement.values():
        torch.testing.assert_close(torch.stack(same), same[0].expand(len(same)))
    different = torch.stack([same[0] for same in by_displacement.values()])
    # of 9·9, all but that from the first cell to the last one, which no token reads
    assert len(different.unique()) == len(by_displacement) == 9 * 9 - 1
    # One code back in the sequence is another displacement where a row begins.
    assert not torch.isclose(found[5, 4], found[4, 3])
    assert torch.isclose(found[5, 0], found[9, 4])  # the code above


def test_scores_of_an_order_are_those_of_the_raster_in_that_order() -> None:
    cells, order = cells_of(GRID), torch.randperm(GRID.length)
    torch.manual_seed(1)
    raster = scores(cells)
    torch.manual_seed(1)
    found = scores(cells[order])
    read = order[:-1] < GRID.length - 1  # no token of the raster reads its last code
    torch.testing.assert_close(found[:, read], raster[order][:, order[:-1][read]])


def test_what_stands_before_the_codes_leads_to_the_cell_before_the_first() -> None:
    cells, turned = cells_of(GRID), rotation(cells_of(GRID), before=3)
    assert len(turned.keys.cos) == len(turned.queries.cos) == 3 + 25
    line = torch.tensor([[-4, -4], [-3, -3], [-2, -2], [-1, -1]])
    wanted = rotation(torch.cat([line, cells]))
    # as if these were cells of codes, but for one more token, which starts that sequence
    for found, other in zip(turned, wanted, strict=True):
        torch.testing.assert_close(found.cos, other.cos[1:])
        torch.testing.assert_close(found.sin, other.sin[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_turn_keeps_lengths_and_dtypes(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, GRID.length, CHANNELS, dtype=dtype)
    turned = rotation_of(cells_of(GRID), 0, CHANNELS, x).keys(x)
    assert turned.dtype == dtype
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x)
