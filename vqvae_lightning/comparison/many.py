"""Many runs by one command: each in a process and a folder of its own, none done twice.

What was stopped goes on when it is called again: finished runs are skipped, others resumed from
their newest valid checkpoint. All output goes to `<root>/<name>.log`.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqvae_lightning.config import (
    ConfigError,
    EvaluateOptions,
    check_unchanged,
    options,
    plugin_arguments,
    short,
    split_overrides,
    to_dict,
)
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.evaluation.evaluate import chosen
from vqvae_lightning.evaluation.evaluators import EVALUATORS
from vqvae_lightning.evaluation.samplers import sampler_names
from vqvae_lightning.evaluation.subject import Plan
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.interrupts import Stopped, pass_on
from vqvae_lightning.kinds import Kind
from vqvae_lightning.training.build import check
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.resume import computed_otherwise
from vqvae_lightning.training.runs import Run

OWN = ("name", "runs", "resume", "tracking.group")
COMMAND = (sys.executable, "-m", "vqvae_lightning")


def train_once(root: Path, name: str, file: Path, settings: Sequence[str]) -> Run:
    """The finished run root/name of an experiment file with settings, trained now if it was not
    before.

    Raises ConfigError for a run that was trained with other settings, and, naming its log, for one
    that fails.
    """
    run = Run(root / name)
    overrides = [*settings, f"runs={root}", f"name={name}"]
    if (run.path / RECORD).is_file():
        asked = load_experiment(file, overrides)
        experiment = replace(asked, data=resolve(asked.data))
        for key, (old, new) in computed_otherwise(run, experiment).items():
            raise ConfigError(
                f"{key}: {run.path} was trained with {old}, now it is {new}; name another folder"
            )
        if run.record.status == "finished":
            return run
    _do(run, ["train", short(file), *overrides, "resume=auto"])
    return run


def evaluate_once(run: Run, settings: Sequence[str]) -> None:
    """Evaluates a finished run with these settings and draws a grid by each of its samplers, unless
    that was done.

    Settings that the run has no use for are left out. Raises ConfigError, naming the run's
    log, if it fails.
    """
    overrides = evaluation_overrides(Plan(run.path, run.experiment()), settings)
    if run.record.evaluated != to_dict(options(EvaluateOptions, overrides)):
        _do(run, ["evaluate", short(run.path), *overrides])
    others = sampler_names(run.experiment(), "all")[1:]
    if any(not (run.images / f"samples-{name}.png").is_file() for name in others):
        _do(run, ["sample", short(run.path), "sampler=all"])


def evaluation_overrides(plan: Plan, settings: Sequence[str]) -> list[str]:
    """Those of an evaluation's settings that a run has a use for."""
    others = [evaluator for evaluator in EVALUATORS.values() if not evaluator.is_for(plan)]
    return split_overrides([name for other in others for name in other.settings], settings)[1]


def refuse_own(overrides: Sequence[str], where: str, *more: str) -> None:
    """Raises ConfigError for a setting among these that the command gives each of its runs
    itself.
    """
    for override in split_overrides((*OWN, *more), overrides)[0]:
        key = override.partition("=")[0]
        raise ConfigError(f"{key}: got {override} in {where}, but each run is given its own {key}")


def check_plan(file: Path, settings: Sequence[str], evaluation: Sequence[str]) -> Kind:
    """The kind of a planned run. Raises ConfigError or ValueError, one line, for one that could not
    be trained, or that an evaluator would refuse once it is.

    Args:
        file: the experiment file.
        settings: `key=value` of the training.
        evaluation: `key=value` of the evaluation; those that the run has no use for are left out.
    """
    experiment = load_experiment(file, list(settings))
    experiment = replace(experiment, data=resolve(experiment.data))
    check(experiment)
    used = evaluation_overrides(Plan(file, experiment, experiment.data.root), evaluation)
    asked = options(EvaluateOptions, used)
    # The training will fetch into its own root what is not there yet.
    root = asked.root or experiment.data.root
    plan = Plan(file, experiment, root)
    list(chosen(plan, asked))
    return plan.kind


def _do(run: Run, arguments: Sequence[str]) -> None:
    run.path.parent.mkdir(parents=True, exist_ok=True)
    log = run.path.parent / f"{run.name}.log"
    code = launch(arguments, log)
    if code:
        lines = log.read_text(errors="replace").strip().splitlines() or [""]
        raise ConfigError(
            f"{arguments[0]}: {run.name} ended with code {code} ({lines[-1]}); see {log}"
        )


def launch(arguments: Sequence[str], log: Path) -> int:
    """Runs a command line in a process of its own, its output appended to `log`.

    Returns its exit code. A signal is passed on to that process, and raised when it has ended. The
    process is given the files of own parts that this one has executed.
    """
    check_unchanged()
    with (
        log.open("a") as output,
        subprocess.Popen(
            [*COMMAND, *arguments, *plugin_arguments()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as child,
    ):
        try:
            return child.wait()
        except Stopped as stop:
            pass_on(child, stop.number)
            raise
