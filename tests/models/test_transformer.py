"""What is the Transformer's own; what it has in common with every prior is in test_priors.py."""

from typing import Any

import torch

from vqvae_lightning.config import section_config
from vqvae_lightning.models.build import PriorConfig
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.transformer import CodeTransformer

LAYOUT = CodeLayout((2, 3), 5)
SMALL = CodeTransformer.Config(layers=1, width=8, heads=2)


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
