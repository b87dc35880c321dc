"""What is the Transformer's own; what it has in common with every prior is in test_priors.py."""

import itertools
from typing import Any

import pytest
import torch
from sequences import all_sequences, some_codes, some_labels

from vqvae_lightning.config import ConfigError, section_config
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.blocks import Block
from vqvae_lightning.models.priors.transformer import CodeTransformer, random_share
from vqvae_lightning.models.settings import PriorConfig

LAYOUTS = {
    "grid": CodeLayout((2, 3), 5),
    "line": CodeLayout((1, 4), 5),
    "several codes per cell": CodeLayout((2, 2), 5, 2),
    "one code": CodeLayout((1, 1), 5),
    "a cache that grows twice": CodeLayout((5, 8), 5),
}
LAYOUT = LAYOUTS["grid"]
PARTS: list[dict[str, Any]] = [
    {"positions": positions, "norm": norm, "mlp": mlp, "qk_norm": qk_norm, "order": order}
    for positions, norm, mlp, qk_norm, order in itertools.product(
        ("learned", "rotary", "both"),
        ("layer", "rms"),
        ("gelu", "swiglu"),
        (False, True),
        ("raster", "annealed"),
    )
]
ALL: dict[str, Any] = {
    "positions": "both",
    "norm": "rms",
    "mlp": "swiglu",
    "qk_norm": True,
    "order": "annealed",
}
TEXTS = ("four", "five")


def network(layout: CodeLayout = LAYOUT, texts: tuple[str, ...] = (), **fields: Any) -> Any:
    """A prior of two labels in float64, with weights so large that its predictions differ."""
    config = CodeTransformer.Config(layers=2, width=12, heads=2, dropout=0.0, **fields)
    model = CodeTransformer(layout, 2, config, texts=texts)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
        torch.nn.init.normal_(parameter, std=1.5 * fan_in**-0.5)
    return model.double().eval()


def stepped(model: CodeTransformer, codes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits (N, T, K), a position at a time."""
    cache, previous, found = model.new_cache(len(codes)), None, []
    for t in range(model.length):
        found.append(model.next_logits(previous, labels, len(codes), cache))
        previous = codes[:, t]
    return torch.stack(found, 1)


def check_steps(model: CodeTransformer) -> None:
    """A position at a time it says what a whole pass says."""
    codes, labels = some_codes(model), some_labels(model)
    with torch.no_grad():
        whole = model.logits(codes, labels)
        torch.testing.assert_close(stepped(model, codes, labels), whole, rtol=0, atol=1e-10)


def batch(codes: torch.Tensor, seed: int) -> Batch:
    n = len(codes)
    return Batch(codes, torch.zeros(n, dtype=torch.int64), torch.arange(n), seed)


def test_checkpoints_of_older_versions_fit():
    """Names and shapes, in the order that an optimizer's state depends on."""
    model = CodeTransformer(
        CodeLayout((2, 3), 5), 10, CodeTransformer.Config(layers=1, width=8, heads=2)
    )
    block = {
        "norm1.weight": (8,), "norm1.bias": (8,), "norm2.weight": (8,), "norm2.bias": (8,),
        "qkv.weight": (24, 8), "qkv.bias": (24,), "out.weight": (8, 8), "out.bias": (8,),
        "up.weight": (32, 8), "up.bias": (32,), "down.weight": (8, 32), "down.bias": (8,),
    }  # fmt: skip
    wanted = {
        "position": (6, 8), "code_embedding.weight": (5, 8), "start_embedding.weight": (10, 8),
        **{f"blocks.0.{name}": shape for name, shape in block.items()},
        "norm.weight": (8,), "norm.bias": (8,), "head.weight": (5, 8), "head.bias": (5,),
    }  # fmt: skip
    assert [(name, tuple(value.shape)) for name, value in model.state_dict().items()] == list(
        wanted.items()
    )


def test_settings_without_a_name_mean_the_transformer():
    size: dict[str, Any] = {"layers": 3, "width": 64, "heads": 2, "dropout": 0.2}
    config = section_config(PriorConfig, {"tokenizer": "runs/t", "network": size}, "model")
    assert config == PriorConfig(tokenizer="runs/t", network=CodeTransformer.Config(**size))


def test_the_cache_has_the_dtype_of_the_weights():
    for dtype in (torch.float32, torch.float64):
        cache = (
            CodeTransformer(
                CodeLayout((2, 3), 5), 0, CodeTransformer.Config(layers=1, width=8, heads=2)
            )
            .to(dtype)
            .new_cache(3)
        )
        assert cache.keys[0].dtype == cache.values[0].dtype == dtype


@pytest.mark.parametrize("texts", [(), TEXTS], ids=["label", "text"])
@pytest.mark.parametrize("fields", PARTS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_the_cache_says_what_a_whole_pass_says(
    fields: dict[str, Any], texts: tuple[str, ...]
) -> None:
    model = network(texts=texts, **fields)
    check_steps(model)


def test_a_step_that_fails_leaves_the_cache_as_it_was() -> None:
    model = network(LAYOUTS["a cache that grows twice"])
    codes, labels = some_codes(model), some_labels(model)
    cache, previous, found = model.new_cache(len(codes)), None, []
    with torch.no_grad():
        for t in range(model.length):
            if t in (5, 16):
                with pytest.raises(RuntimeError):
                    model.next_logits(codes[:2, t - 1], labels, len(codes), cache)
            found.append(model.next_logits(previous, labels, len(codes), cache))
            previous = codes[:, t]
        whole = model.logits(codes, labels)
    torch.testing.assert_close(torch.stack(found, 1), whole, rtol=0, atol=1e-10)


def test_the_cache_grows_within_a_text() -> None:
    model = network(texts=("a text that is longer than the room of a new cache", "short"))
    check_steps(model)


def test_a_cache_that_grows_holds_under_autocast() -> None:
    model = network(LAYOUTS["a cache that grows twice"], **ALL).float()
    codes, labels = some_codes(model), some_labels(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model.logits(codes, labels)
        difference = stepped(model, codes, labels) - whole
    assert difference.abs().mean() < 0.02 * whole.abs().mean()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("positions", ["learned", "rotary", "both"])
def test_parts_fit_every_layout(layout: CodeLayout, positions: str) -> None:
    model = network(layout, **{**ALL, "positions": positions})
    check_steps(model)


@pytest.mark.parametrize("positions", ["learned", "rotary", "both"])
def test_the_same_codes_in_other_places_are_predicted_otherwise(positions: str) -> None:
    """Codes that are all alike tell nothing: what differs is where the predicted one lies."""
    model = network(positions=positions)
    logits = model.logits(torch.zeros(1, 6, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert (torch.cdist(logits[0], logits[0]) + torch.eye(6) > 1e-3).all()


def test_parts_work_under_autocast_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    model = network(**ALL).float()
    with torch.autocast("cpu", torch.bfloat16):
        model.train().nll(some_codes(model), some_labels(model)).mean().backward()
        assert model.generate(3, some_labels(model)).shape == (3, model.length)
    assert not recwarn.list


@pytest.mark.parametrize("width", [64, 96, 128, 192, 256])
def test_swiglu_has_as_many_weights_as_gelu(width: int) -> None:
    gelu, swiglu = (
        sum(p.numel() for p in Block(width, 4, 0.0, mlp=mlp).parameters())
        for mlp in ("gelu", "swiglu")
    )
    assert swiglu == pytest.approx(gelu, rel=0.02)


def test_norms_of_heads_make_scores_blind_to_the_size_of_queries_and_keys() -> None:
    for qk_norm in (False, True):
        block, x = Block(12, 2, 0.0, qk_norm=qk_norm).double(), torch.randn(2, 5, 12).double()
        before = block(x)
        with torch.no_grad():
            block.qkv.weight[:24] *= 3
            block.qkv.bias[:24] *= 3
        assert torch.allclose(block(x), before, atol=1e-4) == qk_norm


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"positions": "rotary", "heads": 32}, "got rotary with 4 channels per head"),
        ({"positions": "both", "width": 21, "heads": 3}, "got both with 7 channels per head"),
        ({"anneal_from": 0.2}, "anneal_from: got 0.2, but model.network.order=raster anneals"),
        (
            {"anneal_from": 0.8, "order": "annealed"},
            r"anneal_from: got 0.8, wanted at most model.network.anneal_to=0.7",
        ),
    ],
)
def test_parts_that_do_not_fit_are_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error:
        CodeTransformer.Config(**fields)
    assert "\n" not in str(error.value)


class TestOrders:
    """Random orders that give way to the raster."""

    @pytest.mark.parametrize("positions", ["learned", "rotary", "both"])
    def test_in_every_order_it_is_a_distribution(self, positions: str) -> None:
        model = network(CodeLayout((2, 2), 3), positions=positions, order="annealed")
        codes = all_sequences(3, 4)
        labels = torch.zeros(len(codes), dtype=torch.int64)
        found = []
        for order in (torch.arange(4), torch.tensor([2, 0, 3, 1])):
            given = codes[:, order]
            with torch.no_grad():
                logits = model.logits(given, labels, order.expand(len(codes), -1))
                found.append(-model.nll_of(logits, given).sum(1))
            assert float(found[-1].exp().sum()) == pytest.approx(1, abs=1e-9)
        torch.testing.assert_close(found[0], -model.rate(codes, labels))
        assert not torch.allclose(found[0], found[1], atol=1e-3)

    @pytest.mark.parametrize("positions", ["learned", "rotary", "both"])
    def test_a_token_is_told_which_code_it_predicts(self, positions: str) -> None:
        model, labels = network(positions=positions, order="annealed"), torch.zeros(2).long()
        codes = some_codes(model, 1).expand(2, -1)
        order = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5]])
        logits = model.logits(codes, labels, order)
        assert torch.equal(logits[0, :2], logits[1, :2])
        assert not torch.allclose(logits[0, 2], logits[1, 2], atol=1e-3)

    def test_at_the_end_of_the_anneal_the_loss_is_that_of_the_raster(self) -> None:
        model = network(order="annealed", anneal_from=0.2, anneal_to=0.6)
        codes, labels = some_codes(model, 8), some_labels(model, 8)
        raster = model.nll(codes, labels)

        def loss(progress: float) -> torch.Tensor:
            found: torch.Tensor = model.training_nll(
                codes, labels, batch(codes, 1).step_uniform, progress
            )
            return found

        assert torch.equal(loss(0.6), raster)
        assert torch.equal(loss(1.0), raster)
        same = [int((loss(at).sum(1) - raster.sum(1)).abs().lt(1e-9).sum()) for at in (0.1, 0.4)]
        assert same == [0, 4]  # of 8 sequences: each in a random order, and half of them

    def test_the_orders_follow_from_the_seed_of_the_batch(self) -> None:
        model = network(order="annealed")
        codes, labels = some_codes(model, 8), some_labels(model, 8)
        first, again, other = (
            model.training_nll(codes, labels, batch(codes, seed).step_uniform, 0.0)
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)

    def test_the_share_of_random_orders_falls_linearly(self) -> None:
        shares = [random_share(step / 8, 0.25, 0.75) for step in range(9)]
        assert shares == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]
        assert [random_share(at, 0.5, 0.5) for at in (0.4, 0.5)] == [1, 0]

    def test_a_training_without_an_end_is_refused(self) -> None:
        model = network(order="annealed")
        with pytest.raises(ValueError, match="order: got annealed"):
            model.training_nll(some_codes(model), some_labels(model), torch.rand_like, None)
