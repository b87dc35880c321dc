"""The commands of one run. Each prints its result and returns it."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vqvae_lightning.training.launch import is_first_process

if TYPE_CHECKING:  # imported by each command for itself, so that every one starts quickly
    from vqvae_lightning.config import Experiment
    from vqvae_lightning.config.commands import CompareOptions, RunChoice
    from vqvae_lightning.doctor import Finding
    from vqvae_lightning.evaluation.classifier import TrainedClassifier
    from vqvae_lightning.training.runs import Run
    from vqvae_lightning.training.train import TrainResult

# Options of a command about one run.
Options = TypeVar("Options", bound="RunChoice")


def train(arguments: Sequence[str]) -> "TrainResult":
    """`vqvae train FILE key=value …`; returns the TrainResult."""
    experiment = _experiment(arguments)
    from vqvae_lightning.training.train import train as run_training

    result = run_training(experiment)
    if is_first_process():
        run = result.run
        print_metrics(result.test)
        print()
        say("run", run.path)
        for picture in run.pictures():
            say("picture", picture)
        for sound in run.sounds():
            say("sound", sound)
        say("W&B", wandb_hint(run))
    return result


def config(arguments: Sequence[str]) -> str:
    """`vqvae config FILE key=value …`; prints and returns the YAML of the whole experiment.

    Raises the errors that `train` would raise before it needs the dataset and the tokenizer. Own
    images are read into their store.
    """
    from vqvae_lightning.data.own.build import resolve
    from vqvae_lightning.experiment import describe

    experiment = _experiment(arguments)
    experiment = dataclasses.replace(experiment, data=resolve(experiment.data))
    from vqvae_lightning.training.build import check
    from vqvae_lightning.training.launch import check_launch, device_count
    from vqvae_lightning.training.resume import check_settings, resumed_run
    from vqvae_lightning.training.runs import Run

    check_launch(device_count(experiment), experiment.trainer.nodes)
    check(experiment)
    if run := resumed_run(experiment):
        check_settings(run, experiment)
    else:
        Run.check_new(experiment)
    text = describe(experiment)
    print(text, end="")
    return text


def data(arguments: Sequence[str]) -> Path:
    """`vqvae data name=cifar10`; returns the folder of the verified files."""
    from vqvae_lightning.config import DataConfig, DataOptions, options, section_config, to_dict

    chosen = section_config(DataConfig, to_dict(options(DataOptions, arguments)), "data")
    if chosen.path is None:
        from vqvae_lightning.data.sources import prepare

        folder = prepare(chosen.name, Path(chosen.root), chosen.download)
    else:
        from vqvae_lightning.data.own.build import resolve
        from vqvae_lightning.data.own.store import OwnImages

        found = resolve(chosen)
        folder = Path(found.root) / found.folder
        print(OwnImages(found).describe())
    say("data", folder)
    return folder


def doctor(arguments: Sequence[str]) -> "list[Finding]":
    """`vqvae doctor`; returns its findings, and ends with exit code 1 if one is wrong."""
    from vqvae_lightning.config import DoctorOptions, options
    from vqvae_lightning.doctor import examine

    chosen = options(DoctorOptions, arguments)
    findings = examine(Path(chosen.runs), Path(chosen.root))
    for finding in findings:
        print(f"{'!!' if finding.wrong else 'ok'}  {finding.about:18s} {finding.what}")
    if any(finding.wrong for finding in findings):
        sys.exit(1)
    return findings


def evaluate(arguments: Sequence[str]) -> dict[str, float]:
    """`vqvae evaluate RUN`; returns the test metrics."""
    from vqvae_lightning.config import EvaluateOptions

    run, chosen = run_and_options(arguments, EvaluateOptions)
    from vqvae_lightning.evaluation.evaluate import evaluate as run_evaluation

    metrics = run_evaluation(run, chosen)
    print_metrics(metrics)
    if chosen.fid_samples:
        from vqvae_lightning.comparison.generation import generations_of
        from vqvae_lightning.comparison.table import print_generation

        print()
        print_generation(generations_of(run))
    print()
    say("run", run.path)
    return metrics


def classifier(arguments: Sequence[str]) -> "TrainedClassifier":
    """`vqvae classifier dataset=mnist`; returns the TrainedClassifier."""
    from vqvae_lightning.config import ClassifierOptions, options

    chosen = options(ClassifierOptions, arguments)
    from vqvae_lightning.evaluation.classifier import train_classifier

    found = train_classifier(chosen)
    print(
        f"classifier {found.path}: {100 * found.test_accuracy:.2f} % on test, SHA-256"
        f" {found.sha256}"
    )
    return found


def fid_calibrate(arguments: Sequence[str]) -> dict[str, Any]:
    """`vqvae fid-calibrate`; returns the figure with its protocol."""
    from vqvae_lightning.config import CalibrateOptions, options

    chosen = options(CalibrateOptions, arguments)
    from vqvae_lightning.evaluation.fidelity import calibrate

    figure = calibrate(Path(chosen.root), chosen.download)
    print("\n".join(f"{name:16s} {value}" for name, value in figure.items()))
    return figure


def sample(arguments: Sequence[str]) -> Path:
    """`vqvae sample RUN sampler=mixture …`; returns the path of the first picture."""
    from vqvae_lightning.config import SampleOptions

    run, chosen = run_and_options(arguments, SampleOptions)
    from vqvae_lightning.evaluation.sample import sample as draw

    paths = draw(run, chosen)
    for path in paths:
        say("sound" if path.suffix == ".wav" else "picture", path)
    return paths[0]


def export(arguments: Sequence[str]) -> Path:
    """`vqvae export RUN format=onnx to=FOLDER`; returns the folder."""
    from vqvae_lightning.config import ExportOptions

    run, chosen = run_and_options(arguments, ExportOptions)
    from vqvae_lightning.exporting.export import export as export_run

    folder = export_run(run, chosen)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        say("file", path)
    return folder


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The canonical places that are among the arguments, and the `key=value` settings."""
    from vqvae_lightning.config import ConfigError, canonical, check_text, is_setting

    for argument in arguments:
        check_text(argument, "argument")
        if not argument:
            raise ConfigError("argument: got '', wanted a file, a run folder or key=value")
    places = [canonical(argument, "argument") for argument in arguments if not is_setting(argument)]
    return places, [argument for argument in arguments if is_setting(argument)]


def refuse_beside_runs(folders: Sequence[str], settings: Sequence[str]) -> None:
    """Raises ConfigError for a setting that chooses among runs if runs are named, too."""
    from vqvae_lightning.config import CHOOSING_RUNS, ConfigError, split_overrides

    choosing, _ = split_overrides(CHOOSING_RUNS, settings)
    if folders and choosing:
        raise ConfigError(
            f"{choosing[0].partition('=')[0]}: got {choosing[0]} beside {folders[0]}, wanted one of"
            " them"
        )


def say(label: str, text: object) -> None:
    """Prints a line of a result. Control characters, as in the name of a folder, are escaped."""
    from vqvae_lightning.config import one_line

    print(f"{label:9s} {one_line(text)}", flush=True)


def print_metrics(metrics: dict[str, float]) -> None:
    """Prints an empty line, then a line for each metric, by name."""
    from vqvae_lightning.metrics.measures import sign

    keys = {name: name.rpartition("/")[2] for name in metrics}
    print()
    for name, value in sorted(metrics.items()):
        print(f"{name:30s} {sign(keys[name], keys.values())}{value:.4g}")


def wandb_hint(run: "Run") -> str:
    """The address of a run in W&B, or the command that uploads it."""
    if run.record.wandb_url:
        return run.record.wandb_url
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    return sync_command(folders) if folders else "disabled"


def sync_command(folders: Sequence[Path]) -> str:
    """The command that brings offline W&B runs to a server."""
    from vqvae_lightning.config import command_line

    wandb = os.path.relpath(Path(sys.executable).parent / "wandb")
    return command_line(wandb, "sync", *map(os.path.relpath, folders))


def _experiment(arguments: Sequence[str]) -> "Experiment":
    """The experiment of `train` and `config`: a file, or a run to resume, with settings on top."""
    from vqvae_lightning.config import ConfigError, canonical, existing_file, own_command
    from vqvae_lightning.experiment import load_experiment
    from vqvae_lightning.training.runs import Run

    files, settings = split_arguments(arguments)
    if len(files) > 1:
        raise ConfigError(f"config: got {len(files)} files ({', '.join(files)}), wanted one")
    resume = next((s.partition("=")[2] for s in settings if s.startswith("resume=")), None)
    if files and Path(files[0], "run.json").is_file():
        again = own_command("train", f"resume={files[0]}")
        raise ConfigError(
            f"config: {files[0]} is a run folder, wanted a file; to go on with it: {again}"
        )
    if files:
        return load_experiment(existing_file(files[0]), settings)
    if resume in (None, "", "null", "auto"):
        raise ConfigError("config: got no file, wanted one such as mnist/vqvae")
    run = Run.open(canonical(str(resume), "resume"))
    return load_experiment(run.path / "config.yaml", settings)


def run_and_options(arguments: Sequence[str], cls: type[Options]) -> "tuple[Run, Options]":
    """The run of a command, and its options without those that chose the run.

    The run is the named one, or else the newest finished one that the settings choose.
    """
    from vqvae_lightning.config import CHOOSING_RUNS, ConfigError, options
    from vqvae_lightning.kinds import KINDS
    from vqvae_lightning.training.runs import Run
    from vqvae_lightning.training.search import find_runs

    folders, settings = split_arguments(arguments)
    chosen = options(cls, settings)
    refuse_beside_runs(folders, settings)
    if len(folders) > 1:
        raise ConfigError(f"run: got {len(folders)} folders ({', '.join(folders)}), wanted one")
    if folders:
        return Run.open(folders[0]), chosen
    found = find_runs(chosen.runs, dataset=chosen.dataset, path=chosen.path)
    # A vocoder is part of a command about another run. It is evaluated where it is named.
    found = [run for run in found if not KINDS[run.record.kind].is_vocoder]
    if not found:
        raise no_runs("run", chosen)
    usual = {name: getattr(cls(), name) for name in CHOOSING_RUNS}
    return found[-1], dataclasses.replace(chosen, **usual)


def no_runs(command: str, chosen: "RunChoice | CompareOptions") -> ValueError:
    """The error of a command that finds no such finished run, with the command to run first."""
    from vqvae_lightning.config import ConfigError, DataConfig, training_command

    such = " and ".join(
        f"{name}={value}"
        for name, value in (("dataset", chosen.dataset), ("path", chosen.path))
        if value is not None
    )
    data = DataConfig(path=chosen.path, name=chosen.dataset or DataConfig.name)
    first = training_command("vqvae", data, chosen.runs)
    of = f" of {such}" if such else ""
    return ConfigError(
        f"{command}: there are no finished runs{of} in {chosen.runs}/; run `{first}` first"
    )
