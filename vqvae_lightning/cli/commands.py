"""The table of commands: name, purpose and arguments of each. It imports none of them."""

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple


class Command(NamedTuple):
    """One command: its function, what it does, and the arguments that it takes."""

    run: Callable[[Sequence[str]], object]
    sentence: str
    arguments: str
    example: str
    settings: str = ""  # whose settings its help lists: "experiment", or a class of config.commands
    more: tuple[str, ...] = ()  # whose settings it takes besides, for its runs
    runs: bool = False  # whether it takes run folders
    files: str = ""  # the shipped files that it takes: "experiments", "sweeps" or "ablations"
    takes_long: bool = False  # the command line is printed before the imports, which take seconds


FUNCTIONS = {
    "one_run": (
        "train", "config", "data", "doctor", "evaluate", "sample", "export", "classifier",
        "fid_calibrate",
    ),
    "compression": ("compress", "decompress", "inspect"),
    "speech": ("say",),
    "many_runs": ("compare", "study", "sweep", "ablate", "dashboard"),
    "listings": ("runs", "settings", "completion"),
}  # fmt: skip


def function(name: str) -> Callable[[Sequence[str]], object]:
    """Imports the function of a command. Raises KeyError for a name that is no command."""
    modules = {f: module for module, functions in FUNCTIONS.items() for f in functions}
    found: Callable[[Sequence[str]], object] = resolve_name(
        f"vqvae_lightning.cli.{modules[name]}:{name}"
    )
    return found


def later(name: str) -> Callable[[Sequence[str]], object]:
    """A function that imports and calls the function of a command."""

    def run(arguments: Sequence[str]) -> Any:
        return function(name)(arguments)

    return run


RUN = ("RUN|key=value", "run folder (default: the newest), then settings")
COMMANDS = {
    "train": Command(
        later("train"),
        "train the experiment of FILE, or go on with resume=RUN",
        "FILE|key=value",
        "a YAML file, or the name of a shipped one such as mnist/vqvae; then settings as key=value,"
        " for example trainer.steps=500",
        "experiment",
        files="experiments",
        takes_long=True,
    ),
    "config": Command(
        later("config"),
        "print what `train` would run, and run nothing",
        "FILE|key=value",
        "as for train",
        "experiment",
        files="experiments",
    ),
    "settings": Command(
        later("settings"),
        "the settings of an experiment: type, default, range and meaning",
        "KEY",
        "a setting, a section or a part of a name, such as model.quantizer; none: all of them",
    ),
    "data": Command(
        later("data"),
        "fetch and verify a dataset",
        "key=value",
        "name=cifar10 root=data download=false",
        "DataOptions",
    ),
    "doctor": Command(
        later("doctor"),
        "versions, devices, disk, data and W&B of this machine; exit code 1 if something is wrong",
        "key=value",
        "runs=runs root=data",
        "DoctorOptions",
    ),
    "runs": Command(
        later("runs"),
        "the runs in a folder, unfinished ones too: status, kind, dataset, steps, best figures",
        "key=value",
        "runs=runs",
        "RunsOptions",
    ),
    "evaluate": Command(
        later("evaluate"),
        "test metrics of a run's best checkpoint, and what is asked for besides",
        *RUN,
        "EvaluateOptions",
        runs=True,
        takes_long=True,
    ),
    "sample": Command(
        later("sample"),
        "draw images from a run into a PNG grid",
        *RUN,
        "SampleOptions",
        runs=True,
        takes_long=True,
    ),
    "say": Command(
        later("say"),
        "a WAV file of a text, drawn from a prior that has learned texts",
        "RUN|TEXT|key=value",
        'run folder (default: the newest), the text such as "four", then settings such as'
        " speaker=george to=four.wav",
        "SayOptions",
        runs=True,
        takes_long=True,
    ),
    "export": Command(
        later("export"),
        "a run for other programs: ONNX, torch.export, safetensors or a folder for the Hub",
        RUN[0],
        "run folder (default: the newest), then settings such as format=onnx to=FOLDER",
        "ExportOptions",
        runs=True,
        takes_long=True,
    ),
    "compress": Command(
        later("compress"),
        "images as one small file, by the codes of a VQ-VAE or by a prior over them",
        "RUN|PLACE|key=value",
        "run folder (default: the newest), folders and files of images, then settings such as"
        " to=FILE.vqz; or split=test in place of images",
        "CompressOptions",
        runs=True,
        takes_long=True,
    ),
    "decompress": Command(
        later("decompress"),
        "the images of a file of `compress`, as PNG files or .npz",
        "VQZ|key=value",
        "a file of `compress`, then settings such as to=FOLDER",
        "DecompressOptions",
        takes_long=True,
    ),
    "inspect": Command(
        later("inspect"),
        "what a file of `compress` holds, of which run, and its bytes by part",
        "VQZ|key=value",
        "a file of `compress`, then settings such as runs=runs",
        "InspectOptions",
    ),
    "compare": Command(
        later("compare"),
        "several runs as a table and one HTML page",
        "RUN|key=value",
        "run folders (default: all), then settings",
        "CompareOptions",
        runs=True,
        takes_long=True,
    ),
    "study": Command(
        later("study"),
        "every kind of model with several seeds: train, evaluate, compare, mean and spread",
        "key=value",
        "dataset=mnist seeds=3, then settings of the evaluations (`vqvae evaluate --help`) and of"
        " the runs (`vqvae settings`)",
        "StudyOptions",
        more=("EvaluateOptions", "experiment"),
        takes_long=True,
    ),
    "sweep": Command(
        later("sweep"),
        "the grid of a W&B sweep file, run here without a server",
        "FILE|key=value",
        "a sweep file, then settings of the runs (`vqvae settings`)",
        "SweepOptions",
        more=("experiment",),
        files="sweeps",
        takes_long=True,
    ),
    "ablate": Command(
        later("ablate"),
        "variants of one experiment with several seeds: train, evaluate, compare, mean and spread",
        "FILE|key=value",
        "an ablation file, seeds=3, then settings of the runs (`vqvae settings`)",
        "AblateOptions",
        more=("experiment",),
        files="ablations",
        takes_long=True,
    ),
    "classifier": Command(
        later("classifier"),
        "train the classifier whose features and labels judge samples of a dataset",
        "key=value",
        "dataset=mnist, then settings",
        "ClassifierOptions",
        takes_long=True,
    ),
    "fid-calibrate": Command(
        later("fid_calibrate"),
        "check FID against the literature: CIFAR-10 train and test must be 3.15 apart",
        "key=value",
        "root=data",
        "CalibrateOptions",
        takes_long=True,
    ),
    "dashboard": Command(
        later("dashboard"),
        "build the W&B workspace of a project, and save it if there is a server and a key",
        "key=value",
        "project=vqvae_lightning entity=NAME",
        "DashboardOptions",
    ),
    "completion": Command(
        later("completion"),
        "print the script by which a shell completes commands, settings and their values",
        "SHELL",
        "bash or zsh",
    ),
}
