"""`evaluate(run)`: the metrics of a run's best checkpoint over a whole split."""

import pytorch_lightning as pl

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.train import build, quieten


def evaluate(run: Run, options: EvaluateOptions) -> dict[str, float]:
    """Metrics of the split, by name; those of the test split are kept in run.json.

    On one device, so that the figure does not depend on how samples are dealt to several. Raises CheckpointError for a
    damaged checkpoint and DataError if the images cannot be had.
    """
    quieten()
    data, _ = build(run.experiment())
    data.prepare_data()
    data.setup()
    module = load_run(run)
    trainer = pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    step = trainer.test if options.split == "test" else trainer.validate
    (metrics,) = step(module, datamodule=data, verbose=False)
    if options.split == "test":
        run.write(test=dict(metrics))
    return dict(metrics)
