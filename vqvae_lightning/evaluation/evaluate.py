"""`evaluate(run)`: the metrics of a run's best checkpoint over a whole split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vqvae_lightning.config import DataConfig, EvaluateOptions, Experiment, plain
from vqvae_lightning.data.sources import holds
from vqvae_lightning.evaluation.codebook import codes_picture, usage_picture
from vqvae_lightning.evaluation.fidelity import check_fidelity, feature_network, fidelity
from vqvae_lightning.evaluation.information import code_counts, encoded
from vqvae_lightning.evaluation.likelihood import check_samples, latent_rates, likelihood_metrics
from vqvae_lightning.evaluation.representation import (
    check_images,
    check_representation,
    representation,
)
from vqvae_lightning.evaluation.samplers import seconds_per_image
from vqvae_lightning.metrics.information import code_information, prior_savings
from vqvae_lightning.models.distributed import own_device
from vqvae_lightning.storage import check_writable, file_hash
from vqvae_lightning.training.build import build
from vqvae_lightning.training.callbacks import write_picture
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.trainer import quieten


def evaluate(run: Run, options: EvaluateOptions) -> dict[str, float]:
    """Metrics of the split, by name; those of the test split are kept in run.json, and so is a
    VAE's `kl_per_dim`.

    With `fid_samples`, `generation` in run.json gets a figure of each sampler, with its protocol
    (see `fidelity`). On one device, so that the figure does not depend on how samples are dealt to
    several. Raises CheckpointError for a damaged checkpoint, DataError if the images cannot be had,
    and ConfigError for `iwae_samples` of a run without p(x), `representation` of a run without
    latents of images, or of more images than there are, and a sampler or a feature network that is
    not there. Raises ValueError, before anything is computed, for a run folder that cannot be
    written.
    """
    for file in (run.path / RECORD, run.images / "codes.png"):
        check_writable(file, "run")
    check_samples(run, options.iwae_samples)
    if options.representation:
        check_representation(run)
    experiment = settings_of(run, options.root)
    samplers = check_fidelity(experiment, options)
    if samplers:
        network = feature_network(options, experiment.data.name, Path(experiment.data.root))
    quieten()
    data: Any = build(experiment, run)[0]
    checkpoint = file_hash(run.best)
    module: Any = load_run(run)
    data.prepare_data()
    data.setup()
    if options.representation:
        check_images(data, options.representation_images)
    trainer = pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    step = trainer.test if options.split == "test" else trainer.validate
    (measured,) = step(module, datamodule=data, verbose=False)
    metrics = {
        **measured,
        **likelihood_metrics(module, data, options.split, dict(measured), options.iwae_samples),
    }
    metrics |= code_metrics(run, module, data, options.split, metrics)
    if module.kind == "prior":
        metrics[f"{options.split}/seconds_per_image"] = seconds_per_image(module.to(own_device()))
    if options.representation:
        found = representation(module.net, data, options.split, options.representation_images)
        metrics |= {f"{options.split}/{name}": value for name, value in found.items()}
    if options.split == "test":
        with run.change() as record:
            record["test"] = {**record.get("test", {}), **metrics}
        rates = latent_rates(module, data, "test")
        if rates is not None:
            run.write(kl_per_dim=rates)
    if samplers:
        images = data.images if module.kind == "prior" else data
        fidelity(run, module, checkpoint, images, network, samplers, options)
    run.write(evaluated=plain(options))
    return metrics


def settings_of(run: Run, root: str | None) -> Experiment:
    """The settings of a run, with its images where they are now."""
    experiment = run.experiment()
    return replace(experiment, data=data_of(experiment.data, root))


def data_of(recorded: DataConfig, root: str | None) -> DataConfig:
    """Where the images of a run are: in `root`; without one where the run says if all files are
    there, or in `data`.

    A run may be somebody else's, so that the folder it names is only read. `root` and `data` are
    fetched into.
    """
    if root is None and holds(recorded.name, Path(recorded.root)):
        return replace(recorded, download=False)
    return replace(recorded, root=root or DataConfig().root)


def code_metrics(
    run: Run, module: Any, data: Any, split: str, measured: dict[str, float]
) -> dict[str, float]:
    """Information measures of a tokenizer or a prior, by name; {} where there are no codes.

    Of a tokenizer it also writes codes.png and usage.png, of the codes of `split`. `measured` holds
    what the codes cost under a prior.
    """
    if module.kind != "prior" and module.net.bottleneck.codebook_size is None:
        return {}
    train, held_out = (code_counts(module, data, name) for name in ("train", split))
    if module.kind == "prior":
        found = prior_savings(train, held_out, measured[f"{split}/bits_per_code"])
    else:
        found = code_information(train, held_out, split)
        write_picture(
            run.images / "codes.png",
            codes_picture(module.net, held_out, encoded(module, data, split)),
        )
        write_picture(run.images / "usage.png", usage_picture(held_out, split))
    return {f"{split}/{name}": value for name, value in found.items()}
