"""The command line: one verb per function, `key=value` for every setting.

Heavy imports wait until a verb needs them, so that `vqvae --help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqvae_lightning.training.launch import is_first_process

SETTINGS = "settings as key=value, for example trainer.steps=500"


def parser() -> argparse.ArgumentParser:
    """The parser of the console script `vqvae`."""
    top = argparse.ArgumentParser(prog="vqvae", description="Train, compare and sample AE, VAE and VQ-VAE.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, sentence: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=sentence, description=sentence)

    for name, sentence in (
        ("train", "train the experiment of FILE, or go on with resume=RUN"),
        ("config", "print what `train` would run, and run nothing"),
    ):
        sub = verb(name, sentence)
        sub.add_argument("words", nargs="*", metavar="FILE|key=value", help=f"a YAML file, then {SETTINGS}")
    sub = verb("data", "fetch and verify a dataset")
    sub.add_argument("words", nargs="*", metavar="key=value", help="name=cifar10 root=data download=false")
    sub = verb("evaluate", "test metrics of a run's best checkpoint")
    sub.add_argument("words", nargs="*", metavar="RUN|key=value", help="run folder (default: the newest)")
    sub = verb("sample", "draw images from a run into a PNG grid")
    sub.add_argument(
        "words", nargs="*", metavar="RUN|key=value", help="run folder (default: the newest), then settings"
    )
    sub = verb("compare", "several runs as a table and one HTML page")
    sub.add_argument("words", nargs="*", metavar="RUN|key=value", help="run folders (default: all), then settings")
    sub = verb("study", "every kind of model with several seeds: train, compare, mean and spread")
    sub.add_argument("words", nargs="*", metavar="key=value", help="dataset=mnist seeds=3, then settings of the runs")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a verb. Exit code 2 and one line for a user's mistake, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        VERBS[options.verb](options.words)
    except KeyboardInterrupt:
        sys.exit(130)
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


def evaluate(words: Sequence[str]) -> dict[str, float]:
    """`vqvae evaluate RUN`; returns the test metrics."""
    from vqvae_lightning.config import EvaluateOptions, options

    folders, settings = split_words(words)
    chosen = options(EvaluateOptions, settings)
    from vqvae_lightning.evaluation.evaluate import evaluate as run_evaluation

    run = _run(folders, chosen.runs, chosen.dataset)
    metrics = run_evaluation(run, chosen)
    print_metrics(metrics)
    print(f"\nrun       {run.path}")
    return metrics


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
    from vqvae_lightning.evaluation.compare import compare as compare_runs
    from vqvae_lightning.evaluation.report import write_report
    from vqvae_lightning.evaluation.table import print_table
    from vqvae_lightning.training.runs import Run, find_runs

    runs = [Run.open(folder) for folder in folders] or find_runs(chosen.runs, dataset=chosen.dataset)
    if not runs:
        raise ConfigError(f"compare: there are no finished runs in {chosen.runs}/; run `make train-vqvae` first")
    comparison = compare_runs(runs)
    print_table(comparison)
    page = write_report(comparison, Path(chosen.out or f"{chosen.runs}/compare.html"))
    print(f"page      {page.resolve().as_uri()}")
    return comparison


def study(words: Sequence[str]) -> Any:
    """`vqvae study dataset=mnist seeds=3`; returns the spreads of the test metrics by kind."""
    from vqvae_lightning.config import StudyOptions, options

    own = [w for w in words if w.partition("=")[0] in StudyOptions.__dataclass_fields__]
    chosen = options(StudyOptions, own)
    from vqvae_lightning.evaluation.compare import compare as compare_runs
    from vqvae_lightning.evaluation.report import write_report
    from vqvae_lightning.evaluation.study import print_spreads, spreads
    from vqvae_lightning.evaluation.study import study as run_study

    runs = run_study(chosen, [w for w in words if w not in own])
    summary = spreads(runs)
    print_spreads(summary)
    page = write_report(compare_runs(runs), runs[0].path.parent / "compare.html")
    print(f"page      {page.resolve().as_uri()}")
    return summary


VERBS = {
    "train": train,
    "config": config,
    "data": data,
    "evaluate": evaluate,
    "sample": sample,
    "compare": compare,
    "study": study,
}


def print_metrics(metrics: dict[str, float]) -> None:
    """One line per metric, by name, below an empty one."""
    print("\n" + "\n".join(f"{name:30s} {value:.4g}" for name, value in sorted(metrics.items())))


def wandb_hint(run: Any) -> str:
    """Where a run is in W&B, or the one command that brings it there."""
    if run.info.get("wandb_url"):
        return run.info["wandb_url"]
    offline = " ".join(str(folder) for folder in sorted((run.path / "wandb").glob("offline-run-*")))
    return f"{os.path.relpath(Path(sys.executable).parent / 'wandb')} sync {offline}"


def _experiment(words: Sequence[str]) -> Any:
    """The experiment of `train` and `config`: a file, or a run to resume, with settings on top."""
    from vqvae_lightning.config import ConfigError, load_experiment

    files, settings = split_words(words)
    if len(files) > 1:
        raise ConfigError(f"config: got {len(files)} files ({', '.join(files)}), wanted one")
    resume = next((s.partition("=")[2] for s in settings if s.startswith("resume=")), None)
    if not files and not resume:
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
