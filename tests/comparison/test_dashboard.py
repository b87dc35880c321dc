"""The W&B workspace is built without a server, shows only what runs log, and is saved only where it
can be.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb_workspaces.workspaces as views

from vqvae_lightning.comparison import dashboard
from vqvae_lightning.comparison.dashboard import save_dashboard, workspace
from vqvae_lightning.config import ConfigError, DashboardOptions, SoundConfig
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import MEASURES, best_values, dashboard_curves
from vqvae_lightning.models.likelihoods import DiscretizedLogistic
from vqvae_lightning.models.settings import AEConfig, PriorConfig
from vqvae_lightning.training.autoencoders import AE
from vqvae_lightning.training.callbacks import Throughput
from vqvae_lightning.training.optimization import part_norms
from vqvae_lightning.training.prior import CodePrior

KEYS = [key for keys in dashboard_curves().values() for key in keys.values()]


def test_it_holds_a_panel_for_every_key_and_groups_runs_by_model():
    text = workspace("team", "project")._to_model().model_dump_json()
    assert all(
        json.dumps(key) in text
        for key in [*KEYS, "compare/results", "compare/samplers", "test/samples"]
    )
    built = workspace("team", "project")
    assert [str(group.name) for group in built.runset_settings.groupby] == ["kind"]
    assert built.settings.x_axis == "trainer/global_step"
    assert sum(len(section.panels) for section in built.sections) >= len(KEYS)


def test_its_validation_keys_are_those_whose_best_value_the_summary_keeps():
    assert {key for key in KEYS if key.startswith("val/")} == set(best_values())


def test_a_model_logs_every_key_that_it_shows():
    logged: set[str] = set()
    labels, tokenizer = torch.zeros(2, dtype=torch.long), {"codebook_size": 4, "grid": [2, 2]}
    # Each kind of stage 1 has a config and a module of these arguments.
    kinds: list[Any] = [kind for kind in KINDS.values() if kind.stage == 1]
    likelihood = DiscretizedLogistic.Config()
    modules = [kind.module(kind.config(likelihood=likelihood), (1, 28, 28)) for kind in kinds]
    window = SoundConfig().resolved(8000)
    modules.append(AE(AEConfig(), window.shape, sound=window))
    for module in [*modules, CodePrior(PriorConfig(), tokenizer, 10)]:
        module.log_dict = logged.update
        codes = torch.arange(8).view(2, 4) % 4
        x = codes if module.kind == "prior" else torch.rand(2, *module.net.image_shape)
        module.validation_step(Batch(x, labels, labels, 0), 0)
        module.on_validation_epoch_end()
    logged |= {
        f"train/{name}" for module in modules for name in module.net.bottleneck.diagnostics()
    }
    for module in modules:  # its parts, each with a gradient
        for parameter in module.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        parts = {name: getattr(module.net, name) for name in module.gradient_parts}
        logged |= {f"train/gradient_norm_{name}" for name in part_norms(parts)}
    logged.add("train/gradient_norm")  # of every kind: see test_end_to_end
    fake: Any = SimpleNamespace(log=lambda key, value: logged.add(key))
    trainer: Any = SimpleNamespace(
        global_step=25, log_every_n_steps=25, optimizers=[SimpleNamespace(param_groups=[{"lr": 1}])]
    )
    speed = Throughput(2)
    speed.on_train_start(trainer, fake)
    speed.on_train_batch_end(trainer, fake)
    assert {*KEYS, *best_values()} <= logged
    assert {key.partition("/")[2] for key in logged} <= set(MEASURES)


def test_a_dashboard_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(
        ConfigError,
        match=r"run `pip install 'vqvae_lightning\[dashboard\]'`",
    ):
        workspace("team", "project")


@pytest.fixture
def saved(monkeypatch):
    """Workspaces that would have been sent."""
    sent = []

    def save(self):
        sent.append(self)
        return type("Saved", (), {"url": "https://wandb.example/view"})

    monkeypatch.setattr(views.Workspace, "save", save)
    return sent


def test_a_dashboard_without_a_server_says_why_and_sends_nothing(monkeypatch, saved, capsys):
    monkeypatch.setattr(dashboard, "why_not_online", lambda: "there is no API key")
    assert save_dashboard(DashboardOptions()) is None
    assert saved == []
    assert "not saved, because there is no API key" in capsys.readouterr().out


def test_a_dashboard_is_saved_once_for_the_team_that_is_named(monkeypatch, saved):
    monkeypatch.setattr(dashboard, "why_not_online", lambda: None)
    assert (
        save_dashboard(DashboardOptions(project="p", entity="team")) == "https://wandb.example/view"
    )
    assert [(w.entity, w.project) for w in saved] == [("team", "p")]
