"""The model card of a run, as the Hugging Face Hub shows it: figures, pictures, how to load it."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vqvae_lightning.config import to_dict
from vqvae_lightning.config.plugins import plugin_file
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import MEASURES, Measure
from vqvae_lightning.storage import write_atomic
from vqvae_lightning.training.record import RunRecord
from vqvae_lightning.training.runs import Run

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TEMPLATE = Path(__file__).with_name("card.md")


def write_card(run: Run, folder: Path, dims: int) -> None:
    """Writes README.md, and copies the pictures that it shows into images/.

    `dims` is C·H·W of an image.
    """
    from huggingface_hub import ModelCard

    pictures = run.pictures()
    for picture in pictures:
        write_atomic(folder / "images" / picture.name, picture.read_bytes())
    record, experiment = run.record, run.experiment()
    model = {**to_dict(experiment.model), "tokenizer": None}
    trained = {"optimizer": to_dict(experiment.optimizer), "steps": experiment.trainer.steps}
    settings = {key: value for key, value in model.items() if value is not None}
    card = ModelCard.from_template(
        card_data=card_data(record, dims),
        template_path=str(TEMPLATE),
        record=record,
        kind=KINDS[record.kind],
        images=record.images,
        figures=[(m.title, f"{value:{m.format}}", m.unit) for m, value in figures(record, dims)],
        pictures=[picture.name for picture in pictures],
        files=own_files(record),
        settings=yaml.safe_dump({"model": settings, **trained}, sort_keys=False),
    )
    write_atomic(folder / "README.md", str(card).encode())


def card_data(record: RunRecord, dims: int) -> "ModelCardData":
    """The metadata of a card, which the Hub's search and tables read."""
    from huggingface_hub import EvalResult, ModelCardData

    images = record.images
    stage = KINDS[record.kind].stage
    results = [
        EvalResult(
            task_type="image-reconstruction" if stage == 1 else "unconditional-image-generation",
            dataset_type=record.dataset,
            dataset_name=images.title,
            dataset_split="test",
            metric_type=measure.key,
            metric_name=f"{measure.title}, {measure.unit}" if measure.unit else measure.title,
            metric_value=value,
        )
        for measure, value in figures(record, dims)
    ]
    return ModelCardData(
        model_name=record.name,
        library_name="vqvae_lightning",
        pipeline_tag="image-feature-extraction" if stage == 1 else "unconditional-image-generation",
        tags=[record.kind, "autoencoder" if stage == 1 else "autoregressive"],
        datasets=None if record.own_images else [record.dataset],
        metrics=[result.metric_type for result in results] or None,
        eval_results=results or None,
    )


def own_files(record: RunRecord) -> list[dict[str, str]]:
    """Name and SHA-256 of each plugin file. The user has to name them to open the run."""
    found = {plugin_file(part["name"]): part["sha256"] for part in record.plugins}
    return [{"name": name, "sha256": sha256} for name, sha256 in found.items()]


def figures(record: RunRecord, dims: int) -> list[tuple[Measure, float]]:
    """The test figures of a run in the units that are shown, in the order of the tables."""
    found = []
    for key, measure in MEASURES.items():
        value = record.test.get(f"test/{key}")
        if value is not None and measure.title and measure.tables:
            found.append((measure, measure.shown(value, dims)))
    return found
