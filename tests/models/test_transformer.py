"""What is the Transformer's own; what it has in common with every prior is in test_priors.py."""

import torch

from vqvae_lightning.config import PriorConfig, model_config
from vqvae_lightning.models.transformer import CodeTransformer


def test_checkpoints_of_older_versions_fit():
    """Names and shapes, in the order that an optimizer's state depends on."""
    model = CodeTransformer(5, (2, 3), 10, PriorConfig(layers=1, width=8, heads=2))
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


def test_settings_of_older_versions_mean_the_transformer():
    older = {
        "tokenizer": "runs/t",
        "class_conditional": True,
        "layers": 4,
        "width": 128,
        "heads": 4,
        "dropout": 0.1,
    }
    config = model_config(PriorConfig, older)
    assert (config.architecture, config.label_dropout) == ("transformer", 0)
    assert config == PriorConfig(**older)


def test_the_cache_has_the_dtype_of_the_weights():
    for dtype in (torch.float32, torch.float64):
        cache = (
            CodeTransformer(5, (2, 3), 0, PriorConfig(layers=1, width=8, heads=2))
            .to(dtype)
            .new_cache(3)
        )
        assert cache.keys[0].dtype == cache.values[0].dtype == dtype
