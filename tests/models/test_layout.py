"""The layout of codes: one order for grids, sequences, histograms and the rows of an image."""

import itertools

import pytest
import torch

from vqvae_lightning.models.layout import CodeLayout, histogram

K = 5
LAYOUTS = [CodeLayout((2, 3), K), CodeLayout((3, 2), K, 4), CodeLayout((1, 1), K, 2)]


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return request.param


@pytest.fixture
def codes(layout):
    return torch.randint(K, (7, *layout.shape))


def test_a_code_is_at_its_position_and_in_its_cell(layout, codes):
    (height, width), m = layout.grid, layout.num_codebooks
    sequence, cells = layout.flatten(codes), codes.view(7, height, width, m)
    assert sequence.shape == (7, layout.length)
    for r, c, i in itertools.product(range(height), range(width), range(m)):
        assert torch.equal(sequence[:, (r * width + c) * m + i], cells[:, r, c, i])
    assert torch.equal(layout.unflatten(sequence), codes)


def test_the_sequence_is_in_raster_order_of_its_own_grid(layout, codes):
    height, width = layout.sequence_grid
    assert height * width == layout.length
    assert torch.equal(layout.flatten(codes).view(7, height, width).flatten(1), codes.flatten(1))


def test_the_positions_of_cells_are_those_of_all_their_codes(layout, codes):
    cells = torch.rand(7, *layout.grid) < 0.5
    found = layout.unflatten(layout.positions(cells)).view(7, *layout.grid, layout.num_codebooks)
    assert torch.equal(found, cells[..., None].expand_as(found))


def test_codes_of_cells_are_put_on_their_grid(layout, codes):
    rows = layout.flatten(codes).view(-1, layout.num_codebooks)
    assert len(rows) == 7 * layout.cells
    assert torch.equal(layout.from_cells(rows), codes)
    filled = layout.filled(rows[:2]).view(2, layout.cells, layout.num_codebooks)
    assert (filled == rows[:2, None]).all()


def test_histograms_of_grids_and_of_sequences_are_the_same(layout, codes):
    counts = layout.histogram(codes)
    assert counts.shape == (layout.num_codebooks, K)
    assert counts.sum() == codes.numel()
    assert torch.equal(layout.histogram(layout.flatten(codes).int()), counts)
    assert torch.equal(histogram(codes, K, layout.num_codebooks), counts)


def test_a_record_of_its_shape_gives_the_layout_back(layout):
    assert CodeLayout.of_shape(list(layout.shape), K) == layout
