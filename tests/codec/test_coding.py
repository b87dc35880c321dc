"""`compress` and `decompress`: the same codes again, at the bytes that the ledger says."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from coded_models import NETWORKS, coded, images, prior, vqvae

from vqvae_lightning import CodecError, compress, decompress
from vqvae_lightning.codec import by_codes, stepping, tables
from vqvae_lightning.codec import codes as codes_module
from vqvae_lightning.codec.coding import coded_of, decoded_groups
from vqvae_lightning.codec.container import Group, pack, unpack


def decoded(data: bytes, model: Any) -> np.ndarray:
    return np.concatenate([codes for codes, _ in decoded_groups(unpack(data), coded_of(model))])


@pytest.mark.parametrize(
    "more",
    [[], ["model.quantizer.name=fsq"], ["model.quantizer.residual_levels=2"], ["model.groups=2"]],
)
def test_a_vqvae_gives_back_every_code(more: list[str]) -> None:
    model, x = vqvae(*more), images()
    data = compress(model, x, group=16)
    assert (decoded(data, model) == coded(model, x)).all()
    assert decompress(data, model).shape == x.shape


@pytest.mark.parametrize("network", NETWORKS)
def test_a_prior_gives_back_every_code(network: str) -> None:
    model, x = prior(network), images()
    data = compress(model, x, torch.arange(len(x)) % 3, group=16)
    assert (decoded(data, model) == coded(model, x)).all()


def test_what_is_decoded_is_what_the_model_reconstructs() -> None:
    model, x = vqvae(), images(5)
    found = decompress(compress(model, x), model)
    wanted = ((model(x).clamp(-1, 1) + 1) * 127.5).round()
    assert (found - wanted).abs().max() <= 1


def test_floats_and_bytes_of_the_same_images_make_the_same_file() -> None:
    model, x = vqvae(), images(5)
    assert compress(model, x) == compress(model, (x / 127.5 - 1).numpy())


@pytest.mark.parametrize("network", ["transformer", "pixelcnn", "pixelsnail"])
def test_a_file_has_the_bytes_of_the_priors_rate(network: str) -> None:
    model, x = prior(network), images(120)
    labels = torch.arange(len(x)) % 3
    container = unpack(compress(model, x, labels))
    with torch.no_grad():
        rate = model.net.rate(torch.from_numpy(coded(model, x)), labels).double().sum()
    ideal = (float(rate) + len(x) * math.log(3)) / math.log(2) / 8
    streams = sum(len(group.data) for group in container.groups)
    assert ideal < streams < 1.01 * ideal + 30


@pytest.mark.parametrize("network", ["pixelcnn", "masked"])
def test_labels_that_are_not_given_are_those_that_make_the_file_shortest(network: str) -> None:
    model, x = prior(network), images(60)
    lengths = [
        len(compress(model, x, torch.full((len(x),), label), group=200)) for label in range(3)
    ]
    chosen = compress(model, x, group=200)
    assert len(chosen) <= min(lengths) < max(lengths)
    assert compress(model, x, group=200) == chosen


def test_one_label_and_one_code_cost_nothing() -> None:
    one, x = prior("transformer", None, "model.network.dropout=0"), images(20)
    one.classes = one.net.classes = 1
    assert (decoded(compress(one, x), one) == coded(one, x)).all()
    single = vqvae("model.quantizer.codebook_size=1")
    assert (decoded(compress(single, x), single) == 0).all()
    assert not unpack(compress(single, x)).groups[0].data


def test_a_group_larger_than_a_writer_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = vqvae(), images(40)
    data = compress(model, x, group=40)
    monkeypatch.setattr(by_codes, "LARGEST_LOGITS", 39 * 49 * 16)
    with pytest.raises(CodecError, match="is damaged"):
        decompress(data, model)


def test_a_prior_without_labels_codes_none() -> None:
    model, x = prior("transformer", None, "model.class_conditional=false"), images(20)
    assert (decoded(compress(model, x), model) == coded(model, x)).all()


def disturbed(relative: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits as another build of torch would have them."""
    rng, passes = np.random.default_rng(1), stepping.passes

    def other(*given: Any) -> Iterator[stepping.Pass]:
        for positions, logits in passes(*given):
            yield positions, logits * (1 + relative * rng.normal(size=logits.shape))

    monkeypatch.setattr(codes_module, "passes", other)


@pytest.mark.parametrize("network", ["transformer", "masked"])
def test_a_build_whose_logits_differ_by_1e_10_decodes_the_same(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = prior(network), images(100)
    data = compress(model, x)
    disturbed(1e-10, monkeypatch)
    assert (decoded(data, model) == coded(model, x)).all()


def test_a_build_whose_logits_differ_by_more_is_an_error_never_other_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = prior(), images(100)
    data = compress(model, x)
    disturbed(1e-3, monkeypatch)
    with pytest.raises(CodecError, match="images 0 to 99 are not decoded to what was coded"):
        decompress(data, model)


@pytest.mark.parametrize(
    ("margin", "longer"),
    [
        (2e-5, 1.02),  # some images are not certain on the first grid, and all are on another
        (1e-3, 2),  # some are certain on none, and go by the static table
        (1, 2),  # all are
    ],
)
def test_an_image_that_another_build_might_code_otherwise_goes_by_another_grid_or_the_table(
    margin: float, longer: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = prior(), images(60)
    certain = len(compress(model, x))
    monkeypatch.setattr(tables, "MARGIN", margin)
    data = compress(model, x)
    assert certain != len(data) < longer * certain
    # The reader has no margin: the file says which images these are.
    monkeypatch.setattr(tables, "MARGIN", 4e-9)
    assert (decoded(data, model) == coded(model, x)).all()


def test_images_that_share_an_uncertain_logit_all_go_by_the_first_grid_without_one() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 1, 16))
    found = [([0], logits)]
    for grid, shift in enumerate(tables.SHIFTS):
        assert codes_module.grids_of(found, 5).tolist() == [grid] * 5
        logits[:, 0, grid] = -(0.5 + shift) / tables.GRID  # on an edge of this grid
    assert codes_module.grids_of(found, 5).tolist() == [tables.BY_TABLE] * 5
    logits[2:, 0, -2] = 0.0
    assert codes_module.grids_of(found, 5).tolist() == [tables.BY_TABLE] * 2 + [14] * 3


def test_threads_and_the_number_of_images_beside_it_change_no_code() -> None:
    model, x, threads = prior(), images(4), torch.get_num_threads()
    data = compress(model, x, torch.zeros(4, dtype=torch.int64), group=4)
    alone = compress(model, x, torch.zeros(4, dtype=torch.int64), group=1)
    assert (decoded(alone, model) == coded(model, x)).all()
    try:
        torch.set_num_threads(2)
        assert (decoded(data, model) == coded(model, x)).all()
    finally:
        torch.set_num_threads(threads)


def test_a_group_is_decoded_alone() -> None:
    model, x = prior(), images(10)
    container = unpack(compress(model, x, group=1))
    groups = container.groups
    broken = [*groups[:7], groups[7], *(type(group)(b"", 0) for group in groups[8:])]
    found = decoded_groups(
        type(container)(container.header, container.table, broken), coded_of(model)
    )
    first = [next(found)[0] for _ in range(8)]
    assert (np.concatenate(first) == coded(model, x)[:8]).all()


@pytest.mark.parametrize("number", [0, 6, 9])
def test_one_image_is_decoded_without_the_groups_of_the_others(number: int) -> None:
    model, x = prior(), images(10)
    whole = unpack(compress(model, x, group=3))
    wanted = decompress(pack(whole), model)
    own = number // 3
    groups = [group if i == own else Group(b"", 0) for i, group in enumerate(whole.groups)]
    damaged = pack(replace(whole, groups=groups))
    found = decompress(damaged, model, only=number)
    assert (found.int() - wanted[number].int()).abs().max() <= 1
    with pytest.raises(CodecError, match="are not decoded to what was coded"):
        decompress(damaged, model, only=(number + 5) % 10)


@pytest.mark.parametrize("number", [-1, 10])
def test_an_image_that_a_file_does_not_hold_is_refused(number: int) -> None:
    model = vqvae()
    with pytest.raises(CodecError, match=f"holds images 0 to 9, not {number}"):
        decompress(compress(model, images(10)), model, only=number)


def test_numbers_of_numpy_are_numbers_and_fractions_are_none() -> None:
    model, x = vqvae(), images(10)
    data = compress(model, x, group=np.int64(3))  # type: ignore[arg-type]
    assert data == compress(model, x, group=3)
    assert torch.equal(decompress(data, model, only=np.int64(4)), decompress(data, model, only=4))  # type: ignore[arg-type]
    for only in (1.5, True, "1"):
        with pytest.raises(ValueError, match="only: got"):
            decompress(data, model, only=only)  # type: ignore[arg-type]


def test_the_default_dtype_of_a_program_changes_no_file_and_stays() -> None:
    model, x = prior(), images(10)
    wanted = compress(model, x)
    torch.set_default_dtype(torch.float64)
    try:
        assert compress(model, x) == wanted
        assert decompress(wanted, model).shape == x.shape
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_file_of_another_model_or_another_prior_is_refused() -> None:
    tokenizer, x = vqvae(), images(5)
    first, second = prior("transformer", tokenizer), prior("transformer", tokenizer)
    of_prior, of_vqvae = compress(first, x), compress(tokenizer, x)
    for data, model, what in (
        (of_prior, second, "was made by the prior"),
        (of_prior, tokenizer, "was made by the prior .* this run has none"),
        (of_vqvae, first, "was made by the prior none"),
        (of_vqvae, vqvae("model.quantizer.codebook_size=8"), "was made by the autoencoder"),
    ):
        with pytest.raises(CodecError, match=what):
            decompress(data, model)


def test_images_and_labels_that_do_not_fit_are_refused() -> None:
    model, x = prior(), images(4)
    for given, labels, group, what in (
        (x[:, :, :14], None, 256, "images: got shape"),
        (x[:0], None, 256, "got 0 images"),
        (x, None, 0, "in groups of 0"),
        (x, None, 1.5, r"in groups of 1\.5"),
        (x, None, True, "in groups of True"),
        (x, torch.tensor([0, 1, 2, 3]), 256, "labels: got 0 to 3, wanted 0 to 2"),
        (x, torch.tensor([0.0]), 256, "labels: got float32"),
    ):
        with pytest.raises(ValueError, match=what):
            compress(model, given, labels, group=group)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="decompress: the data holds no compressed images"):
        decompress(b"", model)
