"""Every setting of a command other than `train`, once: name, type, default, range and meaning."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from vqvae_lightning.config.data import DatasetName, OwnImagesConfig
from vqvae_lightning.config.schema import check_project
from vqvae_lightning.config.setting import setting


def _shows() -> list[str]:
    """What `sample` may show; imported when it is read, for that table lies above settings."""
    from vqvae_lightning.evaluation.show import SHOWS

    return ["samples", *SHOWS]


@dataclass
class Drawing:
    """How a prior draws latents; nothing to a run of another kind.

    A prior has those that its `sampling` has, with the same defaults.
    """

    temperature: float = setting(
        1.0,
        "of a prior, or of the noise of a coupling flow; 0 takes the most likely code",
        at_least=0,
    )
    top_k: int | None = setting(None, "keep the k most likely codes, of a prior", at_least=1)
    top_p: float | None = setting(
        None, "keep the likeliest codes that hold this probability, of a prior", above=0, at_most=1
    )
    guidance: float = setting(
        1.0,
        "of a prior trained with model.label_dropout: above 1 exaggerates what the label says, 0"
        " ignores it",
        at_least=0,
        at_most=1000,
    )
    steps: int = setting(
        8,
        "passes through the network for an image, of a masked prior; steps of the solver, of two"
        " passes each, of a flow",
        at_least=1,
    )
    order: Literal["halton", "confidence", "random"] = setting(
        "halton",
        "which codes a masked prior draws first: far apart ones, the likeliest ones, or any",
    )
    solver: Literal["heun", "midpoint"] = setting(
        "heun", "how a flow follows the velocity from step to step"
    )


# Settings that choose among runs where none is named.
CHOOSING_RUNS = ("dataset", "path", "runs")


@dataclass
class RunChoice:
    """Which finished run, and where its images are."""

    runs: str = setting("runs", "folder that holds the runs, where none is named", place="folder")
    dataset: DatasetName | None = setting(
        None, "take the newest run of this dataset, where none is named"
    )
    path: str | None = setting(
        None,
        "folder or file of own images: take their newest run, where none is named",
        place="file",
    )
    root: str | None = setting(
        None,
        "folder that holds the datasets, and what is cached of them; empty: the run's own if it is"
        " there, or data",
        place="folder",
    )


@dataclass
class RunOptions(RunChoice, Drawing):
    """Which finished run, where its images are, how it draws if it is a prior, and what makes its
    sounds if it is of recordings.
    """

    vocoder: str | None = setting(
        None,
        "run folder of a vocoder that recordings are heard through; empty: Griffin-Lim",
        place="folder",
    )


@dataclass
class EvaluateOptions(RunOptions):
    """Settings of `vqvae evaluate`."""

    split: Literal["val", "test"] = setting("test", "split to evaluate")
    iwae_samples: int = setting(
        0,
        "draws of z per image for the importance-weighted bound on log p(x), of an autoencoder"
        " that has a p(z); 0: none",
        at_least=0,
    )
    representation: bool = setting(
        False, "accuracies of classifiers on the latents, of an autoencoder"
    )
    representation_images: int | None = setting(
        None,
        "train images that those classifiers see; figures compare only where it is the same; empty:"
        " 10,000, or all if there are fewer",
        at_least=10,
    )
    bytes: bool = setting(
        False,
        "what the split takes as a file of `vqvae compress`, lossy and lossless where the run has"
        " both; it is written, decoded and removed",
    )
    hearing: bool = setting(
        False,
        "STOI and PESQ of reconstructed recordings (needs the extra speech: `pip install"
        " 'vqvae_lightning[speech]'`)",
    )
    recognition: bool = setting(
        False,
        "share of reconstructions, of a prior samples, that the dataset's own classifier (`vqvae"
        " classifier`) takes for their class; of recordings also after the vocoder",
    )
    fid_samples: int = setting(
        0,
        "images drawn from each sampler for Fréchet and kernel distance, precision and recall; 0:"
        " none",
        at_least=0,
    )
    fid_network: Literal["inception", "classifier"] = setting(
        "inception",
        "whose features: the literature's Inception, or the dataset's own classifier (`vqvae"
        " classifier`)",
    )
    fid_reference: Literal["train", "test"] = setting(
        "test", "real images that samples are compared with: all of a file"
    )
    sampler: str | None = setting(
        None,
        "the one to measure (see `sample`), or reconstruction: test images after a round trip;"
        " empty: all",
    )
    seed: int = setting(0, "seed of those samples", at_least=0, at_most=2**32 - 1)


@dataclass
class DataOptions(OwnImagesConfig):
    """Settings of `vqvae data`."""

    name: DatasetName = setting("mnist", "dataset")
    root: str = setting("data", "folder that holds the datasets", place="folder")
    download: bool = setting(True, "fetch what is missing; false: fail instead")


@dataclass
class CalibrateOptions:
    """Settings of `vqvae fid-calibrate`."""

    root: str = setting("data", "folder that holds the datasets", place="folder")
    download: bool = setting(True, "fetch what is missing; false: fail instead")


@dataclass
class DoctorOptions:
    """Settings of `vqvae doctor`."""

    runs: str = setting("runs", "folder of runs, whose disk is looked at", place="folder")
    root: str = setting("data", "folder that holds the datasets", place="folder")


@dataclass
class RunsOptions:
    """Settings of `vqvae runs`."""

    runs: str = setting("runs", "folder that holds the runs", place="folder")
    dataset: DatasetName | None = setting(None, "list only runs of this dataset; empty: all")
    path: str | None = setting(
        None, "folder or file of own images: list only their runs; empty: all", place="file"
    )


@dataclass
class ClassifierOptions(OwnImagesConfig):
    """Settings of `vqvae classifier`."""

    dataset: DatasetName = setting("mnist", "dataset")
    root: str = setting(
        "data",
        "folder that holds the datasets, and the classifiers in classifiers/",
        place="folder",
    )
    label: str | None = setting(
        None, "which labels it tells apart, of a dataset with several; empty: its first"
    )
    steps: int = setting(1500, "optimizer steps", at_least=1)
    seed: int = setting(0, "seed of weights, order and shifts", at_least=0, at_most=2**32 - 1)


@dataclass
class SampleOptions(RunOptions):
    """Settings of `vqvae sample`."""

    show: Annotated[str, _shows] = setting(
        "samples",
        "new images, or what lies between test images (of an autoencoder without codes), or test"
        " images as each class (conversion, of a class-conditional decoder), with a new lower half"
        " (of a prior) or with holes filled (of a masked prior)",
    )
    sampler: str | None = setting(
        None,
        "the way to draw (one that the run has not is refused, naming those that it has); all: each"
        " of them; empty: the first",
    )
    n: int = setting(100, "images", at_least=1, at_most=10_000)
    columns: int = setting(
        10, "images in a row of the grid; grids of test images: n/columns rows", at_least=1
    )
    label: int | None = setting(
        None, "class to draw, for a class-conditional prior; empty: a row per class"
    )
    decoded_as: int | None = setting(
        None,
        "class that a class-conditional decoder is given; empty: that of a prior's label, where"
        " both are of one sort, and else drawn",
        at_least=0,
    )
    seed: int = setting(0, "seed of the draws", at_least=0, at_most=2**32 - 1)
    out: str | None = setting(None, "PNG file to write; empty: in the run's images/", place=".png")


@dataclass
class SayOptions(RunOptions):
    """Settings of `vqvae say`."""

    to: str | None = setting(
        None, "WAV file to make; empty: the words of the text, such as four.wav", place=".wav"
    )
    speaker: str | None = setting(None, "who says it, of a prior that has read of several")
    decoded_as: int | None = setting(
        None,
        "class that a class-conditional decoder is given; empty: that of the text, where both are"
        " of one sort, and else drawn",
        at_least=0,
    )
    n: int = setting(1, "how often it is said, each time by another draw", at_least=1, at_most=100)
    seed: int = setting(0, "seed of the draws", at_least=0, at_most=2**32 - 1)


@dataclass
class ExportOptions(RunChoice):
    """Settings of `vqvae export`."""

    format: Literal["onnx", "pt2", "safetensors", "hub"] = setting(
        "onnx",
        "onnx or pt2 (torch.export): encoder, decoder and a prior's step as graphs; safetensors:"
        " the weights; hub: the weights and a model card",
    )
    to: str | None = setting(None, "folder to make; empty: exports/<run>-<format>", place="folder")


@dataclass
class CompressOptions(RunChoice):
    """Settings of `vqvae compress`."""

    to: str | None = setting(None, "VQZ file to make; empty: <run>.vqz", place=".vqz")
    split: Literal["train", "val", "test"] | None = setting(
        None, "images of the run's own dataset, where no places of images are named"
    )
    lossless: bool = setting(
        False,
        "the images come back as they are; of a run whose likelihood is of pixel levels:"
        " discretized_logistic, logistic_mixture or bernoulli",
    )
    fit: bool = setting(
        False,
        "crop and resize images of another size than the model's, as training did; false: refuse"
        " them",
    )
    group: int | None = setting(
        None,
        "images that share a stream and a checksum; 1: each is decoded alone, and takes about 10"
        " bytes more; empty: 256, of a VAE 4096",
        at_least=1,
        at_most=4096,
    )
    step: float | None = setting(
        None,
        "of the grid that z of an AE goes on, in units of z: a smaller one makes better images and"
        " more bytes; empty: a fifth of the standard deviation of z",
        above=0,
        at_most=1e6,
    )


@dataclass
class DecompressOptions:
    """Settings of `vqvae decompress`."""

    to: str | None = setting(
        None,
        "folder of PNG files to make, or a file that ends in .npz; empty: a folder named as the"
        " file",
        place="file",
    )
    run: str | None = setting(
        None, "folder of the run that made the file; empty: looked up in runs", place="folder"
    )
    only: int | None = setting(
        None, "the number of one image, from 0; its group alone is decoded", at_least=0
    )
    runs: str = setting("runs", "folder that holds the runs", place="folder")


@dataclass
class InspectOptions:
    """Settings of `vqvae inspect`."""

    runs: str = setting(
        "runs", "folder that holds the runs, to name that of the file", place="folder"
    )


@dataclass
class StudyOptions:
    """Settings of `vqvae study`; all others go to its runs."""

    dataset: str = setting("mnist", "which experiment files: a folder in `experiments`")
    seeds: int = setting(3, "seeds, from 0", at_least=1)
    runs: str | None = setting(
        None, "folder of the study's runs; empty: runs/study-<dataset>", place="folder"
    )
    experiments: str = setting("experiments", "folder of the experiment files", place="folder")
    recipes: list[str] = field(
        default_factory=list,
        metadata={
            "meaning": "which of that folder, by name, such as [vqvae,prior]; empty: that of each"
            " kind, and prior_masked"
        },
    )


@dataclass
class Ablation:
    """What an ablation file holds: one experiment, and what is changed in it."""

    experiment: str = setting(
        "experiments/mnist/vqvae.yaml", "experiment file of all variants", place="file"
    )
    first_stage: str | None = setting(
        None,
        "experiment file of the autoencoder whose latents the variants, of stage 2, learn from",
        place="file",
    )
    settings: list[str] = field(
        default_factory=list, metadata={"meaning": "key=value of all variants"}
    )
    variants: dict[str, list[str]] = field(
        default_factory=dict, metadata={"meaning": "name → key=value of that one"}
    )
    evaluation: list[str] = field(
        default_factory=list, metadata={"meaning": "key=value of `evaluate`"}
    )
    metrics: list[str] = field(
        default_factory=lambda: ["psnr", "ssim", "perplexity", "codes_used"],
        metadata={"meaning": "test metrics to show"},
    )


@dataclass
class AblateOptions:
    """Settings of `vqvae ablate`; all others go to its runs."""

    seeds: int = setting(3, "seeds, from 0", at_least=1)
    runs: str | None = setting(
        None, "folder of the ablation's runs; empty: runs/ablation-<file>", place="folder"
    )


@dataclass
class SweepOptions:
    """Settings of `vqvae sweep`; all others go to its runs."""

    runs: str | None = setting(
        None, "folder of the sweep's runs; empty: runs/sweep-<file>", place="folder"
    )


@dataclass
class CompareOptions:
    """Settings of `vqvae compare`."""

    runs: str = setting("runs", "folder that holds the runs, where none is named", place="folder")
    dataset: DatasetName | None = setting(
        None, "take only runs of this dataset, where none is named"
    )
    path: str | None = setting(
        None,
        "folder or file of own images: take only their runs, where none is named",
        place="file",
    )
    out: str | None = setting(
        None, "HTML file to write; empty: compare.html in the folder of runs", place=".html"
    )
    wandb: bool = setting(
        False, "log the comparison as a W&B run too, offline unless WANDB_MODE=online"
    )
    project: str | None = setting(
        None, "W&B project of that run; empty: WANDB_PROJECT, or vqvae_lightning"
    )

    def __post_init__(self) -> None:
        if self.project is not None:
            check_project(self.project, "project")


@dataclass
class DashboardOptions:
    """Settings of `vqvae dashboard`."""

    project: str | None = setting(None, "W&B project; empty: WANDB_PROJECT, or vqvae_lightning")
    entity: str | None = setting(None, "W&B user or team; empty: that of the key")

    def __post_init__(self) -> None:
        if self.project is not None:
            check_project(self.project, "project")


COMMAND_OPTIONS = (
    AblateOptions,
    CalibrateOptions,
    ClassifierOptions,
    CompareOptions,
    CompressOptions,
    DashboardOptions,
    DataOptions,
    DecompressOptions,
    DoctorOptions,
    EvaluateOptions,
    ExportOptions,
    InspectOptions,
    RunsOptions,
    SampleOptions,
    SayOptions,
    StudyOptions,
    SweepOptions,
)
