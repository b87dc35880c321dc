"""The command line: one verb per function, `key=value` for every setting.

Heavy imports wait until a verb needs them, so that `vqvae --help` answers at once.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vqvae_lightning.allocator import keep_freed_memory
from vqvae_lightning.training.launch import is_first_process


def parser() -> argparse.ArgumentParser:
    """The parser of the console script `vqvae`."""
    top = argparse.ArgumentParser(prog="vqvae", description="Train, compare and sample AE, VAE and VQ-VAE.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.sentence, description=verb.sentence)
        sub.add_argument("words", nargs="*", metavar=verb.words, help=verb.example)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a verb. Exit code 2 and one line for a user's mistake, 1 and one line for a loss that is not finite.

    128 + the signal's number where a signal ended a training: 143 for SIGTERM, 130 for Ctrl-C.
    """
    options = parser().parse_args(arguments)
    keep_freed_memory()
    try:
        VERBS[options.verb].run(options.words)
    except KeyboardInterrupt:
        sys.exit(130)
    except ArithmeticError as error:  # each rank says what it saw
        if options.debug:
            raise
        print(f"vqvae: {error}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        if options.debug:
            raise
        if is_first_process():  # once, however many ranks find it
            print(f"vqvae: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that name files or folders, and `key=value` settings."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


def train(words: Sequence[str]) -> Any:
    """`vqvae train FILE key=value …`; returns the TrainResult."""
    experiment = _experiment(words)
    from vqvae_lightning.training.train import train as run_training

    result = run_training(experiment)
    if is_first_process():
        run = result.run
        print_metrics(result.test)
        print(f"\nrun       {run.path}")
        for picture in run.pictures():
            print(f"picture   {picture}")
        print(f"W&B       {wandb_hint(run)}", flush=True)
    return result


def config(words: Sequence[str]) -> str:
    """`vqvae config FILE key=value …`; prints and returns the YAML of the whole experiment."""
    from vqvae_lightning.config import describe

    text = describe(_experiment(words))
    print(text, end="")
    return text


def data(words: Sequence[str]) -> Path:
    """`vqvae data name=cifar10`; returns the folder of the verified files."""
    from vqvae_lightning.config import DataConfig, options
    from vqvae_lightning.data.sources import prepare

    chosen = options(DataConfig, words)
    folder = prepare(chosen.name, Path(chosen.root), chosen.download)
    print(f"data      {folder}")
    return folder


def doctor(words: Sequence[str]) -> Any:
    """`vqvae doctor`; returns its findings, and ends with exit code 1 if one is wrong."""
    from vqvae_lightning.config import DoctorOptions, options
    from vqvae_lightning.doctor import examine

    chosen = options(DoctorOptions, words)
    findings = examine(Path(chosen.runs), Path(chosen.root))
    for finding in findings:
        print(f"{'!!' if finding.wrong else 'ok'}  {finding.about:18s} {finding.what}")
    if any(finding.wrong for finding in findings):
        sys.exit(1)
    return findings


def evaluate(words: Sequence[str]) -> dict[str, float]:
    """`vqvae evaluate RUN`; returns the test metrics."""
    from vqvae_lightning.config import EvaluateOptions, options

    folders, settings = split_words(words)
    chosen = options(EvaluateOptions, settings)
    from vqvae_lightning.evaluation.evaluate import evaluate as run_evaluation

    run = _run(folders, chosen.runs, chosen.dataset)
    metrics = run_evaluation(run, chosen)
    print_metrics(metrics)
    if chosen.fid_samples:
        from vqvae_lightning.comparison.generation import generations
        from vqvae_lightning.comparison.table import print_generation

        print()
        print_generation(generations([(run, run.info)]))
    print(f"\nrun       {run.path}")
    return metrics


def classifier(words: Sequence[str]) -> dict[str, Any]:
    """`vqvae classifier dataset=mnist`; returns path, test accuracy and SHA-256 of the classifier."""
    from vqvae_lightning.config import ClassifierOptions, options

    chosen = options(ClassifierOptions, words)
    from vqvae_lightning.evaluation.classifier import train_classifier

    found = train_classifier(chosen)
    print(f"classifier {found['path']}: {100 * found['test_accuracy']:.2f} % on test, SHA-256 {found['sha256']}")
    return found


def fid_calibrate(words: Sequence[str]) -> dict[str, Any]:
    """`vqvae fid-calibrate`; returns the figure with its protocol."""
    from vqvae_lightning.config import DataConfig, options

    chosen = options(DataConfig, words)
    from vqvae_lightning.evaluation.fidelity import calibrate

    figure = calibrate(Path(chosen.root))
    print("\n".join(f"{name:16s} {value}" for name, value in figure.items()))
    return figure


def sample(words: Sequence[str]) -> Path:
    """`vqvae sample RUN sampler=mixture …`; returns the path of the picture, of several the first."""
    from vqvae_lightning.config import SampleOptions, options

    folders, settings = split_words(words)
    chosen = options(SampleOptions, settings)
    from vqvae_lightning.evaluation.sample import sample as draw

    paths = draw(_run(folders, chosen.runs, chosen.dataset), chosen)
    for path in paths:
        print(f"picture   {path}")
    return paths[0]


def compare(words: Sequence[str]) -> Any:
    """`vqvae compare RUN …`; returns the Comparison."""
    from vqvae_lightning.config import CompareOptions, ConfigError, options

    folders, settings = split_words(words)
    chosen = options(CompareOptions, settings)
    from vqvae_lightning.training.runs import Run, find_runs

    runs = [Run.open(folder) for folder in folders] or find_runs(chosen.runs, dataset=chosen.dataset)
    if not runs:
        raise ConfigError(f"compare: there are no finished runs in {chosen.runs}/; run `make train-vqvae` first")
    comparison = _show(runs, Path(chosen.out or f"{chosen.runs}/compare.html"))
    if chosen.wandb:
        from vqvae_lightning.comparison.publish import publish

        place = publish(comparison, chosen.project, Path(chosen.runs))
        print(f"W&B       {sync_command([place]) if isinstance(place, Path) else place or 'disabled'}")
    return comparison


def dashboard(words: Sequence[str]) -> str | None:
    """`vqvae dashboard project=…`; returns the address of the saved W&B workspace, None if it could not be saved."""
    from vqvae_lightning.config import DashboardOptions, options

    chosen = options(DashboardOptions, words)
    from vqvae_lightning.comparison.dashboard import save_dashboard

    address = save_dashboard(chosen)
    if address:
        print(f"W&B       {address}")
    return address


def study(words: Sequence[str]) -> Any:
    """`vqvae study dataset=mnist seeds=3`; returns the spreads of the test metrics."""
    from vqvae_lightning.config import StudyOptions

    chosen, settings = _own(StudyOptions, words)
    from vqvae_lightning.comparison.study import print_spreads, sampler_spreads, spreads
    from vqvae_lightning.comparison.study import study as run_study

    runs = run_study(chosen, settings)
    summary = spreads(runs)
    _show(runs, runs[0].path.parent / "compare.html")
    print_spreads(summary, ("test metric",))
    if samples := sampler_spreads(runs):
        print_spreads(samples, ("kind", "sampler", "by"))
    return summary


def sweep(words: Sequence[str]) -> Any:
    """`vqvae sweep FILE`; trains the grid of a W&B sweep file and returns its Comparison."""
    from vqvae_lightning.config import SweepOptions

    file, settings = _one_file("sweep", words, "experiments/sweeps/mnist_codebook.yaml")
    chosen, settings = _own(SweepOptions, settings)
    from vqvae_lightning.comparison.sweep import sweep as run_sweep

    runs = run_sweep(file, chosen, settings)
    return _show(runs, runs[0].path.parent / "compare.html")


def ablate(words: Sequence[str]) -> Any:
    """`vqvae ablate FILE seeds=3`; returns the spreads of the variants' test metrics."""
    from vqvae_lightning.config import AblateOptions

    file, settings = _one_file("ablate", words, "experiments/ablations/quantizers.yaml")
    chosen, settings = _own(AblateOptions, settings)
    from vqvae_lightning.comparison.ablate import ablate as run_ablation
    from vqvae_lightning.comparison.study import print_spreads, variant_spreads

    found = run_ablation(file, chosen, settings)
    runs = [run for of_variant in found.variants.values() for run in of_variant]
    _show(runs, runs[0].path.parent / "compare.html")
    summary = variant_spreads(found.variants, found.ablation.metrics)
    print_spreads(summary, ("variant",))
    return summary


def _own(kind: type, settings: Sequence[str]) -> tuple[Any, list[str]]:
    """The options of a verb that are among its settings, and the settings that go to its runs."""
    from vqvae_lightning.config import options, own_words

    own, others = own_words([field.name for field in dataclasses.fields(kind)], settings)
    return options(kind, own), others


def _one_file(verb: str, words: Sequence[str], example: str) -> tuple[Path, list[str]]:
    """The one file among the words of a verb, and the settings."""
    from vqvae_lightning.config import ConfigError

    files, settings = split_words(words)
    if len(files) != 1:
        raise ConfigError(f"{verb}: got {len(files)} files, wanted one such as {example}")
    return Path(files[0]), settings


def _show(runs: Any, page: Path) -> Any:
    """The comparison of runs: printed, and as a page."""
    from vqvae_lightning.comparison.compare import compare as compare_runs
    from vqvae_lightning.comparison.report import write_report
    from vqvae_lightning.comparison.table import print_table

    comparison = compare_runs(runs)
    print_table(comparison)
    print(f"page      {write_report(comparison, page).resolve().as_uri()}")
    return comparison


class Verb(NamedTuple):
    """One command: its function, what it does, and the words that it takes."""

    run: Callable[[Sequence[str]], Any]
    sentence: str
    words: str
    example: str


RUN = ("RUN|key=value", "run folder (default: the newest), then settings")
VERBS = {
    "train": Verb(
        train, "train the experiment of FILE, or go on with resume=RUN", "FILE|key=value",
        "a YAML file, then settings as key=value, for example trainer.steps=500",
    ),
    "config": Verb(config, "print what `train` would run, and run nothing", "FILE|key=value", "as for train"),
    "data": Verb(data, "fetch and verify a dataset", "key=value", "name=cifar10 root=data download=false"),
    "doctor": Verb(
        doctor, "versions, devices, disk, data and W&B of this machine; exit code 1 if something is wrong", "key=value",
        "runs=runs root=data",
    ),
    "evaluate": Verb(evaluate, "test metrics of a run's best checkpoint, and what is asked for besides", *RUN),
    "sample": Verb(sample, "draw images from a run into a PNG grid", *RUN),
    "compare": Verb(
        compare, "several runs as a table and one HTML page", "RUN|key=value",
        "run folders (default: all), then settings",
    ),
    "study": Verb(
        study, "every kind of model with several seeds: train, evaluate, compare, mean and spread", "key=value",
        "dataset=mnist seeds=3, then settings of the evaluations and of the runs",
    ),
    "sweep": Verb(
        sweep, "the grid of a W&B sweep file, run here without a server", "FILE|key=value",
        "a sweep file, then settings of the runs",
    ),
    "ablate": Verb(
        ablate, "variants of one experiment with several seeds: train, evaluate, compare, mean and spread",
        "FILE|key=value", "an ablation file, seeds=3, then settings of the runs",
    ),
    "classifier": Verb(
        classifier, "train the classifier whose features and labels judge samples of a dataset", "key=value",
        "dataset=mnist, then settings",
    ),
    "fid-calibrate": Verb(
        fid_calibrate, "check FID against the literature: CIFAR-10 train and test must be 3.15 apart", "key=value",
        "root=data",
    ),
    "dashboard": Verb(
        dashboard, "build the W&B workspace of a project, and save it if there is a server and a key", "key=value",
        "project=vqvae_lightning entity=NAME",
    ),
}  # fmt: skip


def print_metrics(metrics: dict[str, float]) -> None:
    """One line per metric, by name, below an empty one."""
    print("\n" + "\n".join(f"{name:30s} {value:.4g}" for name, value in sorted(metrics.items())))


def wandb_hint(run: Any) -> str:
    """Where a run is in W&B, or the one command that brings it there."""
    if run.info.get("wandb_url"):
        return run.info["wandb_url"]
    return sync_command(sorted((run.path / "wandb").glob("offline-run-*")))


def sync_command(folders: Sequence[Path]) -> str:
    """The command that brings offline W&B runs to a server."""
    wandb = os.path.relpath(Path(sys.executable).parent / "wandb")
    return f"{wandb} sync {' '.join(map(os.path.relpath, folders))}"


def _experiment(words: Sequence[str]) -> Any:
    """The experiment of `train` and `config`: a file, or a run to resume, with settings on top."""
    from vqvae_lightning.config import ConfigError, load_experiment

    files, settings = split_words(words)
    if len(files) > 1:
        raise ConfigError(f"config: got {len(files)} files ({', '.join(files)}), wanted one")
    resume = next((s.partition("=")[2] for s in settings if s.startswith("resume=")), None)
    if not files and resume in (None, "auto"):
        raise ConfigError("config: got no file, wanted one such as experiments/mnist/vqvae.yaml")
    return load_experiment(files[0] if files else Path(str(resume)) / "config.yaml", settings)


def _run(folders: list[str], root: str, dataset: str | None) -> Any:
    """The run that is named, or the newest finished one."""
    from vqvae_lightning.config import ConfigError
    from vqvae_lightning.training.runs import Run, find_runs

    if len(folders) > 1:
        raise ConfigError(f"run: got {len(folders)} folders ({', '.join(folders)}), wanted one")
    if folders:
        return Run.open(folders[0])
    found = find_runs(root, dataset=dataset)
    if not found:
        raise ConfigError(f"run: there are no finished runs in {root}/; run `make train-vqvae` first")
    return found[-1]
