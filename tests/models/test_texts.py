"""Texts before codes: what a prior reads in the place of a label, and what depends on it."""

import itertools
from typing import Any

import pytest
import torch

from vqvae_lightning.config import ConfigError, section_config
from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.text import TextPrefix
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.settings import PriorConfig

TEXTS = ("ann: four", "ann: five", "bob: four")
K = 5


def prior(grid: tuple[int, int] = (2, 3), texts: tuple[str, ...] = TEXTS) -> CodeTransformer:
    """A prior in float64 whose weights are large enough for every character to matter."""
    torch.manual_seed(0)
    layout = CodeLayout.of_shape(list(grid), K)
    config = CodeTransformer.Config(layers=2, width=16, heads=2, dropout=0.0)
    model = CodeTransformer(layout, len(texts), config, 0.1, texts).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    return model


def prefix(model: CodeTransformer) -> TextPrefix:
    assert model.text is not None
    return model.text


def codes(model: CodeTransformer, n: int = 3) -> torch.Tensor:
    return torch.randint(K, (n, model.length), generator=torch.Generator().manual_seed(1))


def drawn(model: CodeTransformer, label: int, n: int = 50, **sampling: Any) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    labels = torch.full((n,), label)
    found: list[list[int]] = model.generate(n, labels, generator=generator, **sampling).tolist()
    return found


def test_position_by_position_it_predicts_what_the_whole_pass_predicts() -> None:
    model, labels = prior(), torch.arange(3)
    known = codes(model)
    with torch.no_grad():
        whole = model.logits(known, labels)
        cache, previous = model.new_cache(3), None
        for t in range(model.length):
            logits = model.next_logits(previous, labels, 3, cache)
            torch.testing.assert_close(logits, whole[:, t], rtol=0, atol=1e-10)
            previous = known[:, t]
    assert cache.length == model.length


def test_probabilities_given_a_text_sum_to_one() -> None:
    model = prior((1, 3))
    every = torch.tensor(list(itertools.product(range(K), repeat=3)))
    for label in range(3):
        with torch.no_grad():
            total = (-model.rate(every, torch.full((len(every),), label))).exp().sum()
        assert float(total) == pytest.approx(1, abs=1e-9)


def test_a_code_is_predicted_from_the_text_and_from_the_codes_before_it() -> None:
    model, labels = prior(), torch.zeros(3, dtype=torch.int64)
    before = model.logits(codes(model), labels)
    for t in range(model.length):
        changed = codes(model)
        changed[:, t] = (changed[:, t] + 1) % K
        after = model.logits(changed, labels)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
    other = model.logits(codes(model), labels + 1)  # one letter and more
    assert (other != before).any(-1).all()


def test_the_text_is_all_that_a_label_says() -> None:
    model = prior()
    by_label = [drawn(model, label) for label in range(3)]
    assert by_label[0] != by_label[1] != by_label[2] != by_label[0]
    for label, text in enumerate(TEXTS):
        with prefix(model).reading(text):
            assert drawn(model, 0) == drawn(model, 2) == by_label[label]
    assert [drawn(model, label) for label in range(3)] == by_label


def test_a_new_text_of_known_characters_can_be_read_and_is_forgotten_afterwards() -> None:
    model, table = prior(), prefix(prior()).table
    with prefix(model).reading("bob: five"):
        new = drawn(model, 0)
    assert new not in [drawn(model, label) for label in range(3)]
    assert torch.equal(prefix(model).table, table)
    with pytest.raises(RuntimeError), prefix(model).reading("bob: five"):
        raise RuntimeError
    assert torch.equal(prefix(model).table, table)


def test_without_guidance_by_a_text_every_text_gives_the_same() -> None:
    model = prior()
    ignored = [drawn(model, label, guidance=0.0) for label in range(3)]
    assert ignored[0] == ignored[1] == ignored[2]
    with prefix(model).reading("bob: five"):
        assert drawn(model, 0, guidance=0.0) == ignored[0]
        assert drawn(model, 0, guidance=3.0) != ignored[0]


def test_a_text_takes_as_many_positions_as_the_longest_and_a_checkpoint_holds_no_table() -> None:
    model = prior()
    assert prefix(model).length == max(map(len, TEXTS))
    assert prefix(model).characters == " :abefinoruv"
    assert not [name for name in model.state_dict() if "table" in name]
    assert len(model.start_embedding.weight) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "text: got an empty one"),
        ("ann: six", "has never read 's'; it knows ' :abefinoruv'"),
        ("ann: \x1b", r"has never read '\\x1b'"),
        ("ann: Four", "has never read 'F'"),
        ("ann: fourfour", "got 13 characters, wanted at most the 9"),
    ],
)
def test_a_text_that_cannot_be_read_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error, prefix(prior()).reading(text):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "texts", "line"),
    [
        ({"network": {"name": "pixelcnn"}}, TEXTS, "name=pixelcnn, which reads none; wanted trans"),
        ({"network": {"name": "masked"}}, TEXTS, "name=masked, which reads none"),
        ({"class_conditional": False}, TEXTS, "got text with model.class_conditional=false"),
        ({}, (), "the labels of the data have none"),
        ({}, ("", "", ""), "the labels of the data have none"),
        ({}, TEXTS[:2], "the labels of the data have none"),
    ],
)
def test_a_prior_that_can_read_no_texts_is_refused(
    settings: dict[str, Any], texts: tuple[str, ...], line: str
) -> None:
    def build() -> None:
        config = section_config(PriorConfig, {"condition": "text", **settings}, "model")
        build_prior(config, CodeLayout.of_shape([2, 3], K), 3, texts)

    with pytest.raises(ConfigError, match=line):
        build()
