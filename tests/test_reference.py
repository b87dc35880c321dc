"""The list of settings: it is that of the code, whole, and what it says is what is read."""

import pydoc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from vqvae_lightning.cli.reference import FILE, as_json, kept, of_everything
from vqvae_lightning.config import (
    ConfigError,
    Drawing,
    EvaluateOptions,
    options,
    setting,
    to_dict,
)
from vqvae_lightning.config.listing import Row, documented, listed, merged, rows
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.parts import FLOWS, LIKELIHOODS, PRIORS, QUANTIZERS, TRUNKS
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.settings import SecondStageConfig
from vqvae_lightning.training.autoencoders import AE, VQVAE
from vqvae_lightning.training.prior import CodePrior

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
ROWS = kept("experiment")
MEMBERS: dict[str, Mapping[str, Any]] = {
    "trunk": TRUNKS,
    "likelihood": LIKELIHOODS,
    "quantizer": QUANTIZERS,
    "network": {**PRIORS, **FLOWS},
}


def networks(kind: str) -> dict[str, Any]:
    """What `model.network.name` of a kind of stage 2 may be."""
    return cast(type[SecondStageConfig], KINDS[kind].config).networks


def chosen(row: Row) -> list[str]:
    """Settings of a run that has the setting of a row."""
    owner = row.of[0] if row.of else None
    is_part = row.key.startswith("model.") and row.key.count(".") == 2
    part = row.key.split(".")[1] if is_part else ""
    if owner in KINDS:
        return [f"kind={owner}"]
    having = next(
        kind
        for kind in KINDS
        if part in ("", *vars(KINDS[kind].config()))
        and (part != "network" or not owner or owner in networks(kind))
    )
    member = [f"model.{part}.name={owner}"] if owner else []
    return [f"kind={having}", *member]


def refusal(settings: list[str]) -> str:
    """Why settings are refused; "" if they are not."""
    try:
        load_experiment(None, settings)
    except ConfigError as error:
        return str(error)
    return ""


def test_the_kept_list_is_that_of_the_code_or_make_settings_has_to_be_run() -> None:
    assert FILE.read_text("utf-8") == as_json(of_everything())


def test_the_page_has_the_list_that_the_terminal_shows() -> None:
    assert f"```text\n{listed(ROWS, 100)}```\n" in PAGE.read_text("utf-8")


def test_the_command_line_draws_by_the_settings_of_all_families_of_priors() -> None:
    priors = (network.sampling for network in PRIORS.values())
    samplings = [*priors, *(network.flow.sampling for network in FLOWS.values())]
    families = [to_dict(sampling()) for sampling in samplings]
    assert to_dict(Drawing()) == {name: value for has in families for name, value in has.items()}


def test_every_setting_of_every_kind_and_member_is_listed_with_its_meaning() -> None:
    assert all(row.meaning and row.wanted for row in ROWS)
    listed_keys = {row.key for row in ROWS}
    for kind in KINDS:
        experiment = load_experiment(None, [f"kind={kind}"])
        assert {row.key for row in rows(experiment)} <= listed_keys
    for part, table in MEMBERS.items():
        for name, member in table.items():
            of_member = {
                row.key for row in ROWS if not row.of or name in row.of or {*row.of} <= {*KINDS}
            }
            assert {row.key for row in rows(member.Config(), f"model.{part}.")} <= of_member


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.key}-{'-'.join(row.of)}")
def test_a_listed_default_is_the_one_that_a_run_has(row: Row) -> None:
    given = chosen(row)
    default = [] if row.key == "kind" else [f"{row.key}={row.default}"]
    assert load_experiment(None, [*given, *default]) == load_experiment(None, given)


@pytest.mark.parametrize("row", [row for row in ROWS if row.choices], ids=lambda row: row.key)
def test_a_value_that_no_list_names_is_refused_and_a_listed_one_is_not(row: Row) -> None:
    given = [word for word in chosen(row) if not word.startswith(f"{row.key}=")]
    refused = {choice: refusal([*given, f"{row.key}={choice}"]) for choice in row.choices}
    # A value may need another setting beside it.
    assert [text for text in refused.values() if text.startswith(f"{row.key}: got '")] == []
    text = refusal([*given, f"{row.key}=nonsense"])
    assert text.startswith(f"{row.key}: got 'nonsense', wanted ")
    assert [choice for choice in row.choices if choice not in text] == []


def test_the_options_of_a_command_are_listed_with_the_defaults_that_it_has() -> None:
    found = kept("EvaluateOptions")
    given = options(EvaluateOptions, [f"{row.key}={row.default}" for row in found])
    assert given == EvaluateOptions()


def test_what_all_members_have_alike_is_one_row_and_what_differs_names_its_owners() -> None:
    same, low, high = Row("a", "1", "n", ""), Row("b", "1", "n", ""), Row("b", "2", "n", "")
    found = merged({"x": [same, low], "y": [same, high], "z": [same, high]})
    assert [(row.key, row.default, row.of) for row in found] == [
        ("a", "1", ()),
        ("b", "1", ("x",)),
        ("b", "2", ("y", "z")),
    ]


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        (AE.Config, ["latent=vector", "trunk.name=conv", "trunk.multipliers"]),
        (VQVAE.Config, ["latent=grid", "quantizer.name=ema", "quantizer.levels=[8, 8, 8]"]),
        (CodePrior.Config, ["network.name=transformer", "label_dropout=0.0"]),
        (EMAVectorQuantizer.Config, ["codebook_size=512", "a whole number, at least 1"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_help_of_a_config_shows_its_settings_with_default_and_range(
    config: type, texts: list[str]
) -> None:
    shown = pydoc.render_doc(config, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    assert [text for text in texts if text not in shown] == []


def test_a_class_from_outside_is_documented_by_its_fields() -> None:
    @documented
    @dataclass
    class Own:
        """My settings."""

        strength: float = setting(0.5, "how much", above=0, at_most=1)

    assert Own.__doc__ is not None
    assert Own.__doc__.startswith("My settings.\n")
    assert "a number, above 0, at most 1\n    how much\n" in Own.__doc__


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_listing_fits_the_columns_that_it_is_given(width: int) -> None:
    wide = [line for line in listed(ROWS, width).splitlines() if len(line) > width]
    assert wide == []
