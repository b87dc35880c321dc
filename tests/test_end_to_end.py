"""The whole path on a few hundred generated images: every kind trains, is found again, sampled and
evaluated.
"""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import untrained
from own_process import command, environment
from wandb_file import history, records

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.parts import PRIORS
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import write_checkpoint

EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "mnist"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Generated data in place of MNIST, and a trained run of every kind, in W&B too."""
    root = tmp_path_factory.mktemp("workplace")
    with untrained.workplace(root):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WANDB_MODE", "offline")
            for kind in small.KINDS:
                cli.main(train_words(root, kind, f"name={kind}"))
        yield root


def train_words(root: Path, kind: str, *more: str) -> list[str]:
    places = [f"data.root={root / 'data'}", f"runs={root / 'runs'}"]
    return [
        "train",
        str(EXPERIMENTS / f"{kind}.yaml"),
        *merge_overrides(small.DATA, small.TRAINER, small.KINDS[kind], places, more),
    ]


def run_of(root: Path, kind: str) -> Run:
    return Run.open(root / "runs" / kind)


@pytest.mark.parametrize("kind", small.KINDS)
def test_a_run_folder_holds_what_the_readme_says(workplace, kind):
    run = run_of(workplace, kind)
    assert run.record.status == "finished"
    assert run.record.versions["torch"] == torch.__version__
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "images", "wandb"} <= {
        p.name for p in run.path.iterdir()
    }
    second = KINDS[kind].stage == 2
    kept = ("best", "last", "first_stage") if second else ("best", "last")
    assert {p.name for p in run.best.parent.iterdir()} == {
        f"{name}.ckpt{more}" for name in kept for more in ("", ".sha256")
    }
    keys = {key for row in run.metrics() for key in row}
    shared = {"loss"} if second else {"loss", "rate", "distortion", "mse", "psnr", "ssim"}
    assert keys >= {f"{split}/{name}" for split in ("val", "test") for name in shared}
    assert keys >= {"train/loss", "train/gradient_norm", "train/images_seen"}


@pytest.mark.parametrize("kind", small.KINDS)
def test_wandb_has_gradients_captions_tables_and_histograms(workplace, kind):
    (file,) = (run_of(workplace, kind).path / "wandb").glob("offline-run-*/*.wandb")
    logged = history(file)
    assert len(logged["val/samples/captions"]) == len(logged["val/loss"])
    assert logged["test/samples/captions"][0][0]
    assert "train/gradient_norm" in logged
    images = KINDS[kind].stage == 1
    assert ("train/gradient_norm_encoder" in logged) is images
    assert ("val/reconstructions_table/path" in logged) is images
    codes = kind in ("vqvae", "prior")
    assert ("test/code_use/values" in logged) is codes
    assert not {r.WhichOneof("record_type") for r in records(file)} & {"stats", "output_raw"}


@pytest.mark.parametrize("kind", small.KINDS)
def test_last_is_the_last_step_and_checkpoints_hold_plain_types(workplace, kind):
    checkpoint = torch.load(run_of(workplace, kind).last, weights_only=True)
    assert checkpoint["global_step"] == 6

    def walk(value):
        assert isinstance(
            value, dict | list | tuple | str | int | float | bool | torch.Tensor | None
        ), type(value)
        for child in (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list | tuple)
            else ()
        ):
            walk(child)

    walk(checkpoint)


@pytest.mark.parametrize("kind", small.KINDS)
def test_evaluate_gives_what_training_logged(workplace, kind):
    run = run_of(workplace, kind)
    logged = run.record.test
    measured = cli.evaluate([str(run.path)])
    assert {name: measured[name] for name in logged} == pytest.approx(logged, rel=1e-6)
    assert run.record.test.items() >= measured.items()
    # a prior's is its first stage's, measured here
    assert measured["test/distortion"] > 0 or KINDS[kind].stage == 1
    if kind == "vae":
        rates = run.record.kl_per_dim
        assert len(rates) == 4
        assert sum(rates) == pytest.approx(measured["test/rate"], rel=1e-5)
    else:
        assert run.record.kl_per_dim == []


def test_evaluate_bounds_the_likelihood_by_importance_sampling(workplace):
    vae, vqvae = run_of(workplace, "vae"), run_of(workplace, "vqvae")
    elbo = cli.evaluate([str(vae.path)])
    one, fifty = (cli.evaluate([str(vae.path), f"iwae_samples={k}"]) for k in (1, 50))
    assert fifty["test/iwae_samples"] == 50
    assert fifty["test/iwae_nats"] < one["test/iwae_nats"]
    assert one["test/iwae_nats"] == pytest.approx(
        elbo["test/distortion"] + elbo["test/rate"], rel=0.02
    )
    assert "test/iwae_bits_per_dim" not in fifty  # of a density
    assert cli.evaluate([str(vae.path), "iwae_samples=50"]) == fifty  # seeded
    assert cli.evaluate([str(vae.path), "iwae_samples=2", "split=val"])["val/iwae_samples"] == 2
    assert vae.record.test["test/iwae_samples"] == 50
    # nothing is drawn: one sample says all
    values = cli.evaluate([str(vqvae.path), "iwae_samples=50"])
    assert values["test/iwae_samples"] == 1
    assert values["test/iwae_nats"] == pytest.approx(
        values["test/distortion"] + values["test/rate"], rel=1e-5
    )


def test_grey_levels_have_bits_in_every_kind_with_a_p_of_z(workplace):
    bits = "model.likelihood={name: discretized_logistic, scale: 0.1, learned: true}"
    of_pixels = ["model.likelihood.per_pixel=true"]
    more = {
        "vae": ["model.kl_warmup_steps=4", "model.free_bits=0.1"],
        "vqvae": of_pixels,
        "ae": of_pixels,
    }
    for kind, options in more.items():
        cli.main(train_words(workplace, kind, f"name={kind}-bits", bits, *options))
    cli.main(
        train_words(
            workplace,
            "prior",
            "name=prior-bits",
            f"model.tokenizer={workplace / 'runs' / 'vqvae-bits'}",
        )
    )
    assert "test/bits_per_dim" not in run_of(workplace, "ae-bits").record.test
    for kind in ("vae", "vqvae", "prior"):
        values = cli.evaluate([str(run_of(workplace, f"{kind}-bits").path)])
        nats = values["test/distortion"] + values["test/rate"]
        assert values["test/bits_per_dim"] == pytest.approx(nats / (784 * math.log(2)), rel=1e-5), (
            kind
        )
    tokenizer = run_of(workplace, "vqvae-bits").record.test
    assert values["test/distortion"] == pytest.approx(tokenizer["test/distortion"], rel=1e-6)
    values = cli.evaluate([str(run_of(workplace, "vae-bits").path), "iwae_samples=3"])
    assert values["test/iwae_bits_per_dim"] == pytest.approx(
        values["test/iwae_nats"] / (784 * math.log(2))
    )
    betas = [
        row["train/beta"] for row in run_of(workplace, "vae-bits").metrics() if "train/beta" in row
    ]
    assert betas == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


def test_a_vae_trains_on_the_importance_weighted_bound(workplace):
    cli.main(train_words(workplace, "vae", "name=iwae", "model.importance_samples=3"))
    test = run_of(workplace, "iwae").record.test
    assert test["test/loss"] == pytest.approx(
        (test["test/distortion"] + test["test/rate"]) / 784, rel=1e-5
    )


@pytest.mark.parametrize("kind", small.KINDS)
def test_sample_draws_the_same_picture_for_a_seed(workplace, kind, tmp_path):
    paths = [
        cli.sample(
            [
                str(run_of(workplace, kind).path),
                "n=20",
                f"seed={seed}",
                f"out={tmp_path / f'{i}.png'}",
            ]
        )
        for i, seed in enumerate((1, 1, 2))
    ]
    a, b, other = (path.read_bytes() for path in paths)
    assert a == b != other


def test_a_prior_knows_its_tokenizer_and_refuses_another(workplace):
    prior: Any = load_run(run_of(workplace, "prior"))
    assert prior.description["run"] == "vqvae"
    other: Any = load_run(run_of(workplace, "vqvae")).net
    other.bottleneck.codebook.add_(1)
    from vqvae_lightning.models.tokenizer import Tokenizer

    with pytest.raises(ValueError, match="this model was trained on the latents of"):
        prior.attach(Tokenizer(other))


@pytest.mark.parametrize("architecture", PRIORS)
def test_every_architecture_of_a_prior_trains_draws_and_completes(
    workplace, architecture, tmp_path
):
    words = [
        f"model.network.name={architecture}",
        "model.network.layers=1",
        "model.network.width=16",
        "model.network.heads=2",
    ]
    name = f"name=prior-{architecture}"
    words = train_words(workplace, "prior", *words, "model.label_dropout=0.2", name)
    if architecture == "pixelcnn":
        words.remove("model.network.heads=2")
    cli.main(words)
    run = run_of(workplace, f"prior-{architecture}")
    assert type(load_run(run).net) is PRIORS[architecture]
    assert cli.evaluate([str(run.path)])["test/rate"] == pytest.approx(
        run.record.test["test/rate"], rel=1e-6
    )
    draws = [
        "guidance=1",
        "guidance=1",
        "guidance=30",
        "show=completion",
        "show=completion guidance=30",
    ]
    if architecture == "masked":
        draws += ["steps=3 order=confidence", "show=inpainting"]
        assert run.record.test["test/bound_draws"] == 4
    pictures = [
        cli.sample(
            [str(run.path), "n=20", f"out={tmp_path / f'{i}.png'}", *words.split()]
        ).read_bytes()
        for i, words in enumerate(draws)
    ]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == len(draws) - 1


def test_bf16_computes_in_bf16_and_keeps_float32(workplace):
    """Weights, codebook, moving averages and the fused optimizer's state stay in float32."""
    cli.main(train_words(workplace, "vqvae", "name=bf16", "trainer.precision=bf16-mixed"))
    checkpoint = torch.load(run_of(workplace, "bf16").last, weights_only=True)
    moments = [
        value
        for state in checkpoint["optimizer_states"][0]["state"].values()
        for value in state.values()
    ]
    floating = [
        value
        for value in (*checkpoint["state_dict"].values(), *moments)
        if value.is_floating_point()
    ]
    assert len(floating) > 60
    assert {value.dtype for value in floating} == {torch.float32}
    losses = [
        {
            row["step"]: row["train/loss"]
            for row in run_of(workplace, name).metrics()
            if "train/loss" in row
        }
        for name in ("bf16", "vqvae")
    ]
    assert losses[0] != losses[1]  # it did compute in bf16
    assert list(losses[0].values()) == pytest.approx(list(losses[1].values()), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vqvae", "vae", "prior"])
def test_compiled_layers_learn_the_same(workplace, kind):
    """To rounding; the checkpoint has the same names, and opens without a compiler."""
    cli.main(train_words(workplace, kind, f"name={kind}-compiled", "trainer.compile=true"))
    runs = run_of(workplace, f"{kind}-compiled"), run_of(workplace, kind)
    weights = [load_run(run).state_dict() for run in runs]
    assert list(weights[0]) == list(weights[1])
    for name, value in weights[0].items():
        assert torch.allclose(value.double(), weights[1][name].double(), atol=1e-4), name
    assert runs[0].record.test == pytest.approx(runs[1].record.test, rel=1e-3)


def test_codes_are_computed_once(workplace):
    (stored,) = (workplace / "runs" / "vqvae" / "codes").glob("*.store.json")
    before = stored.stat().st_mtime_ns
    cli.main(train_words(workplace, "prior", "name=prior-again", "trainer.steps=1"))
    assert stored.stat().st_mtime_ns == before


def test_the_tokenizer_is_untouched_by_its_prior(workplace):
    run = run_of(workplace, "vqvae")
    source = run_of(workplace, "prior").record.learned_from
    assert source.fingerprint == load_tokenizer_fingerprint(run)


def load_tokenizer_fingerprint(run: Run) -> str:
    from vqvae_lightning.training.loading import load_first_stage

    return load_first_stage(run.best).fingerprint


@pytest.mark.parametrize("resume", ["auto", "RUN"])
def test_a_finished_run_is_left_alone(workplace, resume, capsys):
    """A requeued job that had ended in time must not test again, nor lose what `evaluate` added."""
    run = run_of(workplace, "vqvae")
    before = (run.path / "run.json").read_bytes(), run.last.stat().st_mtime_ns
    words = train_words(
        workplace, "vqvae", "name=vqvae", f"resume={resume.replace('RUN', str(run.path))}"
    )
    result = cli.train(words[1:])
    assert result.test == run.record.test
    assert ((run.path / "run.json").read_bytes(), run.last.stat().st_mtime_ns) == before
    assert f"{run.path} is finished: nothing to do" in capsys.readouterr().out


@pytest.mark.wandb
def test_a_resumed_run_goes_on_where_it_stopped(workplace):
    """6 steps, then 3 more, must equal 9 steps at once: same losses, same weights, bit for bit."""
    # a cosine depends on the last step
    schedule = ["optimizer.schedule=constant", "optimizer.warmup_steps=2"]
    cli.main(train_words(workplace, "vqvae", "name=whole", "trainer.steps=9", *schedule))
    cli.main(train_words(workplace, "vqvae", "name=part", *schedule))
    part = run_of(workplace, "part")
    wandb_id = part.record.wandb_id
    cli.main(["sample", str(part.path), "sampler=all", "n=4"])
    cli.main(["train", f"resume={part.path}", "trainer.steps=9"])
    whole = run_of(workplace, "whole")
    a, b = (torch.load(run.last, weights_only=True) for run in (whole, part))
    assert a["global_step"] == b["global_step"] == 9
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    losses = [
        {row["step"]: row["train/loss"] for row in run.metrics() if "train/loss" in row}
        for run in (whole, part)
    ]
    assert losses[0] == losses[1]
    assert part.record.wandb_id == wandb_id
    # others were of the older weights
    assert [path.stem for path in part.pictures()] == ["reconstructions", "samples"]
    sessions = list((part.path / "wandb").glob("offline-run-*"))
    assert len(sessions) == 2
    # of one second, the later ends in "-1"
    assert all(f"-{wandb_id}" in session.name for session in sessions)


# name → settings and M, codes per grid cell
QUANTIZERS = {
    "rotation": (["model.quantizer.name=gradient", "model.quantizer.estimator=rotation"], 1),
    "cosine": (["model.quantizer.name=cosine", "model.quantizer.lookup_dim=4"], 1),
    "simvq": (["model.quantizer.name=simvq"], 1),
    "fsq": (["model.quantizer.name=fsq", "model.quantizer.levels=[4,4]"], 1),
    "lfq": (["model.quantizer.name=lfq", "model.groups=2"], 2),
    "residual": (["model.quantizer.residual_levels=2"], 2),
    "product": (["model.groups=4"], 4),
}


def quantized_run(root: Path, name: str) -> Run:
    """The run of one of QUANTIZERS, trained by the first test that asks for it."""
    run = Run(root / "family" / name)
    if not run.path.exists():
        words = [
            f"name={name}",
            f"runs={root / 'family'}",
            "trainer.steps=2",
            "trainer.validate_every=2",
        ]
        words = train_words(root, "vqvae", *words, *QUANTIZERS[name][0])
        if name == "fsq":  # the size of its codebook follows from its levels
            words = [word for word in words if not word.startswith("model.quantizer.codebook_size")]
        cli.main(words)
    return run


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_quantizer_trains_and_is_evaluated_and_sampled(workplace, name):
    run = quantized_run(workplace, name)
    measured = cli.evaluate([str(run.path)])
    assert {key: measured[key] for key in run.record.test} == pytest.approx(
        run.record.test, rel=1e-6
    )
    assert measured["test/rate"] == pytest.approx(49 * QUANTIZERS[name][1] * math.log(16))
    assert 1 <= measured["test/perplexity"] <= 16
    assert measured["test/unigram_bits_per_code"] >= measured["test/code_entropy_bits"] - 1e-5
    cli.sample([str(run.path), "sampler=all", "n=4"])
    for picture in ("codes", "usage", "samples-uniform", "samples-unigram"):
        assert (run.images / f"{picture}.png").is_file()


@pytest.mark.parametrize(
    ("kind", "latent"),
    [(kind, latent) for kind in ("ae", "vae", "vqvae") for latent in ("vector", "grid")],
)
def test_every_kind_trains_on_the_residual_trunk(workplace, tmp_path, kind, latent):
    residual = ["model.trunk.name=residual", "model.trunk.hidden=4"]
    words = [*residual, "model.trunk.multipliers=[1,1,2]", "model.trunk.residual_blocks=1"]
    alone = [word for word in small.KINDS[kind] if not word.startswith("model.trunk")]
    cli.main(
        [
            "train",
            str(EXPERIMENTS / f"{kind}.yaml"),
            *merge_overrides(small.DATA, small.TRAINER, alone, words),
            f"data.root={workplace / 'data'}",
            *[f"model.latent={latent}", f"runs={tmp_path}", "name=residual"],
        ]
    )
    run = Run.open(tmp_path / "residual")
    net: Any = load_run(run).net
    assert net.grid == ((1, 1) if latent == "vector" else (7, 7))
    logged = run.record.test
    measured = cli.evaluate([str(run.path)])
    assert {key: measured[key] for key in logged} == pytest.approx(logged, rel=1e-6)


@pytest.mark.parametrize("name", ["fsq", "residual", "product"])
def test_a_prior_of_several_codes_per_place_reads_them_in_one_order(workplace, name):
    tokenizer, maps = quantized_run(workplace, name), QUANTIZERS[name][1]
    words = [
        f"name=prior-{name}",
        f"runs={workplace / 'family'}",
        "trainer.steps=2",
        "trainer.validate_every=2",
    ]
    cli.main(train_words(workplace, "prior", *words, f"model.tokenizer={tokenizer.path}"))
    run = Run.open(workplace / "family" / f"prior-{name}")
    assert run.record.tokenizer
    assert run.record.tokenizer.grid == ([7, 7] if maps == 1 else [7, 7, maps])
    measured = cli.evaluate([str(run.path)])
    assert measured["test/rate"] == pytest.approx(
        49 * maps * math.log(2) * measured["test/bits_per_code"], rel=1e-5
    )
    assert measured["test/saved_vs_uniform_bits"] == pytest.approx(
        4 - measured["test/bits_per_code"], abs=1e-5
    )
    for show in ("samples", "completion"):
        assert cli.sample([str(run.path), f"show={show}", "n=20"]).is_file()
    (group,) = cli.compare(
        [str(tokenizer.path), str(run.path), f"out={workplace / 'family' / name}.html"]
    ).groups
    both = {row.kind.name: row.values for row in group.rows}
    assert (
        both["prior"]["uniform_bits"] == pytest.approx(both["vqvae"]["rate_bits"]) == 49 * maps * 4
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train"], "got no file, wanted one such as"),
        (["train", "experiments/mnist/none.yaml"], "there is no file"),
        (["train", "PRIOR", "model.tokenizer=AE"], "a run of kind prior needs a vqvae run"),
        (
            ["train", "PRIOR", "data.name=fashion_mnist"],
            "vqvae train fashion_mnist/vqvae ",
        ),
        (
            ["train", "VQVAE", "data.batch_size=64", "trainer.accumulate=3"],
            "wanted a multiple of 3",
        ),
        (
            ["train", "VQVAE", "data.eval_batch_size=40", "trainer.devices=2"],
            "wanted one for each of 2 devices at least",
        ),
        (
            ["train", "PRIOR", "data.binarize=dynamic"],
            "no finished vqvae run of mnist with data.binarize=dynamic in",
        ),
        (
            ["train", "PRIOR", "data.binarize=dynamic", "model.tokenizer=TOKENIZER"],
            "trained with data.binarize=none",
        ),
        (["train", "VQVAE", "data.batch_size=4000"], "there are only 280 training images"),
        (["train", "VQVAE", "data.validation_size=4000"], "wanted 1 to 319"),
        (
            ["train", "VQVAE", "model.trunk.downsamples=3"],
            "need sides divisible by 8, got images of 28x28",
        ),
        (["train", "VQVAE", "name=ae"], "exists already"),
        (["train", "VQVAE", "resume=runs/none"], "is no run folder"),
        (["sample", "AE", "label=1"], "has no classes"),
        (["sample", "PRIOR-RUN", "label=10"], "label: got 10, wanted 0 to 9"),
        (["sample", "PRIOR-RUN", "top_k=17"], "top_k: got 17, wanted 1 to 16"),
        (["sample", "PRIOR-RUN", "guidance=2"], "trained with model.label_dropout=0"),
        (
            ["evaluate", "PRIOR-RUN", "fid_samples=9", "guidance=2"],
            "this run was trained with model.label_dropout=0",
        ),
        (["sample", "PRIOR-RUN", "temprature=1"], "did you mean temperature?"),
        (["evaluate", "/nowhere"], "is no run folder"),
        (
            ["evaluate", "AE", "iwae_samples=5"],
            "is a run of kind ae, which has no p(z) and so no likelihood",
        ),
        (
            ["evaluate", "PRIOR-RUN", "iwae_samples=5"],
            "wanted a run of kind vae, vqvae or vae_flow",
        ),
        (
            [
                "train",
                "VQVAE",
                "model.likelihood.name=discretized_logistic",
                "data.binarize=dynamic",
            ],
            "256 grey levels",
        ),
        (["compare", "runs=/nowhere"], "there are no finished runs"),
        (["compare", "AE", "out=/"], "out: / is a folder, wanted a file"),
        (["sample", "AE", "out=/dev/null/x.png"], "out: /dev/null/x.png cannot be made"),
    ],
)
def test_mistakes_end_with_one_line_code_2_and_nothing_made(
    workplace, words, line, capsys, monkeypatch
):
    for name, kind in (("=AE", "ae"), ("=TOKENIZER", "vqvae")):
        words = [word.replace(name, f"={workplace / 'runs' / kind}") for word in words]
    if words[0] == "train" and words[1:] and words[1] in ("VQVAE", "PRIOR"):
        words = train_words(workplace, words[1].lower(), *words[2:])
    named = {
        "AE": str(workplace / "runs" / "ae"),
        "PRIOR-RUN": str(workplace / "runs" / "prior"),
    }
    words = [named.get(word, word) for word in words]
    before = sorted((workplace / "runs").iterdir())
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert line in error
    assert error.startswith("vqvae: ")
    assert "\n" not in error
    assert sorted((workplace / "runs").iterdir()) == before


def test_a_name_that_is_taken_is_seen_before_data_are_fetched_or_codes_computed(
    workplace, monkeypatch, capsys
):
    run = run_of(workplace, "vqvae")
    stored = list((run.path / "codes").iterdir())
    for kind in ("vqvae", "prior"):
        # other codes than are stored
        words = train_words(workplace, kind, "name=ae", "data.validation_size=30")
        with pytest.raises(SystemExit):
            cli.main([*words, f"model.tokenizer={run.path}"] if kind == "prior" else words)
        assert "exists already" in capsys.readouterr().err
    assert list((run.path / "codes").iterdir()) == stored


def test_a_tokenizer_that_may_still_change_is_refused(workplace, tmp_path, capsys):
    shutil.copytree(run_of(workplace, "vqvae").path, tmp_path / "still")
    Run.open(tmp_path / "still").write(status="running")
    with pytest.raises(SystemExit):
        cli.main(
            train_words(workplace, "prior", "name=early", f"model.tokenizer={tmp_path / 'still'}")
        )
    assert "still has status=running, wanted a finished run" in capsys.readouterr().err


@pytest.fixture
def moved(workplace, tmp_path):
    """Copies of a VQ-VAE and its prior in another place, where nothing is found at the old one."""
    for kind in ("ae", "vqvae", "prior"):
        shutil.copytree(run_of(workplace, kind).path, tmp_path / kind)
        shutil.rmtree(tmp_path / kind / "codes", ignore_errors=True)
        config = tmp_path / kind / "config.yaml"
        config.write_text(config.read_text().replace(str(workplace / "runs"), "/nowhere"))
    return tmp_path


@pytest.mark.parametrize("tokenizer", ["beside it", "gone", "under another name", "named"])
def test_a_prior_that_was_moved_is_sampled_evaluated_and_trained_on(moved, tokenizer, workplace):
    prior, words = Run.open(moved / "prior"), []
    if tokenizer == "gone":
        shutil.rmtree(moved / "vqvae")
    elif tokenizer == "under another name":
        (moved / "vqvae").rename(moved / "other")
    elif tokenizer == "named":
        words = [f"model.tokenizer={moved / 'vqvae'}"]
    measured = cli.evaluate([str(prior.path)])
    bits = prior.record.test["test/bits_per_code"]
    assert measured["test/bits_per_code"] == pytest.approx(bits)
    assert cli.sample([str(prior.path), "n=10"]).is_file()
    fingerprint = prior.record.learned_from.fingerprint
    cli.train([f"resume={prior.path}", "trainer.steps=9", *words])
    assert prior.record.learned_from.fingerprint == fingerprint
    assert prior.experiment().trainer.steps == 9


def test_a_prior_keeps_its_tokenizer_when_that_is_trained_on_or_anew(moved, workplace, capsys):
    prior, fingerprint = Run.open(moved / "prior"), run_of(workplace, "vqvae").record.fingerprint
    cli.train([f"resume={moved / 'vqvae'}", "trainer.steps=9"])
    assert Run.open(moved / "vqvae").record.fingerprint != fingerprint
    before = prior.record.test
    assert cli.evaluate([str(prior.path)])["test/rate"] == pytest.approx(before["test/rate"])
    shutil.copytree(moved / "vqvae", moved / "elsewhere" / "vqvae")
    with pytest.raises(ValueError, match=r"resume: model\.tokenizer was .* and is .* now"):
        cli.train([f"resume={prior.path}", f"model.tokenizer={moved / 'elsewhere' / 'vqvae'}"])
    capsys.readouterr()
    cli.train([f"resume={prior.path}", "trainer.steps=9"])
    assert f"{moved / 'vqvae'} holds other weights now" in capsys.readouterr().out
    assert prior.record.learned_from.fingerprint == fingerprint


def test_a_prior_without_any_copy_of_its_tokenizer_says_so(moved):
    shutil.rmtree(moved / "vqvae")
    Run.open(moved / "prior").first_stage.unlink()
    with pytest.raises(
        ValueError, match=r"tokenizer: neither .* nor a run beside .* holds the one"
    ):
        cli.sample([str(moved / "prior"), "n=10"])


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_over(moved):
    run = Run.open(moved / "vqvae")
    for path in run.best.parent.iterdir():
        path.unlink()
    run.write(status="running")
    assert cli.train([f"resume={run.path}"]).test
    assert run.record.status == "finished"


def test_a_checkpoint_of_a_version_with_fewer_settings_is_read(moved):
    run = Run.open(moved / "vqvae")
    checkpoint = torch.load(run.best, weights_only=True)
    del checkpoint["settings"]["model.quantizer.estimator"]
    write_checkpoint(run.best, checkpoint)
    assert cli.sample([str(run.path), "n=4"]).is_file()


def test_settings_that_were_changed_by_hand_are_refused(moved):
    run = Run.open(moved / "vqvae")
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("commitment: 0.25", "commitment: 0.5"))
    with pytest.raises(
        ValueError, match=r"trained with model\.quantizer\.commitment=0\.25, but config\.yaml"
    ):
        cli.sample([str(run.path), "n=4"])


@pytest.mark.parametrize(
    "change", [("name: mnist", "name: fashion_mnist"), ("\nseed: 0", "\nseed: 5")]
)
def test_a_config_that_is_not_its_runs_is_refused(moved, change):
    run = Run.open(moved / "vqvae")
    config = run.path / "config.yaml"
    assert change[0] in config.read_text()
    config.write_text(config.read_text().replace(*change))
    for way in (
        cli.evaluate,
        lambda words: cli.train([f"resume={words[0]}", "trainer.steps=9"]),
    ):
        with pytest.raises(ValueError, match=r"config\.yaml: .* wanted .*, as in run\.json"):
            way([str(run.path)])


def test_a_checkpoint_names_no_files_to_its_training(moved):
    """Lightning removes what a checkpoint calls the older best one."""
    run, victim = Run.open(moved / "ae"), moved / "victim.txt"
    victim.write_text("mine")
    for path in (run.best, run.last):
        checkpoint = torch.load(path, weights_only=True)
        (key,) = (key for key in checkpoint["callbacks"] if "Best" in key)
        name = str(run.best.parent / ".." / ".." / "victim.txt")
        state = {
            "best_model_path": name,
            "kth_best_model_path": name,
            "best_k_models": {name: torch.tensor(1e9)},
        }
        more = {
            "dirpath": str(run.best.parent),
            "kth_value": torch.tensor(1e9),
            "best_model_score": torch.tensor(1e9),
        }
        checkpoint["callbacks"][key] |= state | more
        write_checkpoint(path, checkpoint)
    cli.train([f"resume={run.path}", "trainer.steps=9"])
    assert victim.read_text() == "mine"


def test_a_moved_run_keeps_the_best_checkpoint_that_it_has(moved):
    run = Run.open(moved / "ae")
    best = run.best.read_bytes()
    checkpoint = torch.load(run.last, weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if "Best" in key)
    checkpoint["callbacks"][key]["best_model_score"] = torch.tensor(-1e9)
    write_checkpoint(run.last, checkpoint)
    cli.train([f"resume={run.path}", "trainer.steps=9"])
    assert run.best.read_bytes() == best


def test_weights_that_are_not_finite_are_refused(moved):
    run = Run.open(moved / "ae")
    checkpoint = torch.load(run.best, weights_only=True)
    next(iter(checkpoint["state_dict"].values())).view(-1)[0] = math.nan
    write_checkpoint(run.best, checkpoint)
    with pytest.raises(ValueError, match="weights that are not finite: "):
        cli.sample([str(run.path), "n=4"])


def test_a_damaged_copy_of_a_tokenizer_is_named_and_another_taken(moved, capsys):
    prior = Run.open(moved / "prior")
    data = bytearray(prior.first_stage.read_bytes())
    data[len(data) // 2] ^= 1
    prior.first_stage.write_bytes(data)
    assert cli.sample([str(prior.path), "n=10"]).is_file()
    assert "first_stage.ckpt is damaged" in capsys.readouterr().err


def test_weights_of_another_run_are_refused_though_their_hash_fits(moved, workplace):
    run = Run.open(moved / "vqvae")
    for name in ("best.ckpt", "best.ckpt.sha256"):
        shutil.copy(run_of(workplace, "ae").best.with_name(name), run.best.with_name(name))
    for words in (["evaluate"], ["sample", "n=4"]):
        with pytest.raises(ValueError, match=r"best\.ckpt is of run .*, wanted "):
            getattr(cli, words[0])([str(run.path), *words[1:]])


def test_what_the_system_refuses_is_one_line(workplace, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr("vqvae_lightning.evaluation.sample.write_picture", full)
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(workplace / "runs" / "ae"), "n=4"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert (
        said == "vqvae: [Errno 28] No space left on device: 'x.png' (vqvae --debug shows where)\n"
    )


def test_what_answers_at_once_imports_nothing_heavy():
    result = subprocess.run(
        command("answer_at_once"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    assert result.stdout.split("\n")[-2:] == ["heavy: []", ""]
