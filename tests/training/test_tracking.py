"""Tracking: everything is in metrics.jsonl, W&B is offline unless it can be online, and nothing is
ever asked.
"""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from own_process import Fork, command, environment, run_fork
from PIL import Image
from untrained import TOKENIZER, record

from vqvae_lightning.config import CompareOptions, ConfigError, DashboardOptions, options
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training import tracking
from vqvae_lightning.training.artifacts import log_artifacts
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.tracking import (
    JsonLinesLogger,
    RunWandbLogger,
    choose_wandb_mode,
)
from vqvae_lightning.training.trainer import start_tracking
from vqvae_lightning.verified import write_checkpoint

pytestmark = pytest.mark.wandb

WANDB = (
    "WANDB_MODE",
    "WANDB_DATA_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_ERROR_REPORTING",
    "WANDB_BASE_URL",
    "WANDB_API_KEY",
)


ANSWERS = {
    "nothing": b"",
    "nonsense": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


class Server:
    """A W&B server on loopback that takes connections and says `answer` to each request, or nothing
    at all.
    """

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.open: list[Any] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.open.append(connection)
                if self.answer:
                    threading.Thread(target=self.reply, args=(connection,), daemon=True).start()

    def close(self) -> None:
        for open_socket in (self.socket, *self.open):
            open_socket.close()

    def reply(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(1 << 16):
                connection.sendall(self.answer)


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Fork]]:
    """Runs that wait for a server, which they do while the other tests go on.

    Each of them is waited for once. Nobody listens on port 9.
    """
    folder = tmp_path_factory.mktemp("waiting")
    metrics = json.dumps([{"val/loss": 1.0 / (step + 1)} for step in range(5)])
    with contextlib.ExitStack() as stack:
        addresses = {"nobody": "http://127.0.0.1:9"}
        for name, answer in ANSWERS.items():
            server = Server(answer)
            stack.callback(server.close)
            addresses[name] = server.url
        trackers = {}
        for name, address in addresses.items():
            home = folder / name
            home.mkdir()
            there = {"WANDB_BASE_URL": address, "HOME": str(home)}
            if name in ANSWERS:
                there["WANDB_API_KEY"] = "0" * 40
            program = command("track", home, metrics, 3)
            fork = Fork(program, environment(WANDB_MODE="online", **there), cwd=home)
            trackers[name] = stack.enter_context(fork)
        yield trackers


@pytest.fixture(autouse=True)
def wandb_variables(monkeypatch, tmp_path):
    """W&B's variables as on a fresh machine, and put back afterwards whatever the code under test
    sets.
    """
    for name in WANDB:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_lines_are_flushed_and_readable(tmp_path):
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"val/loss": 1.5}, step=3)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "val/loss": 1.5}


def test_offline_is_the_default_and_files_stay_in_the_run(tmp_path):
    assert choose_wandb_mode(tmp_path) is None
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_DATA_DIR"].startswith(str(tmp_path))


def test_a_mode_that_was_chosen_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_wandb_mode(tmp_path) is None
    assert os.environ["WANDB_MODE"] == "disabled"


@pytest.mark.parametrize(
    ("given", "mode", "says"),
    [("", "offline", None), ("  ", "offline", None), ("Offline", "offline", None),
    ("DISABLED ", "disabled", None),
     ("dryrun", "offline", None), ("onlin", "offline", "WANDB_MODE is 'onlin'"),
     ("off\x1b", "offline", r"off\x1b")],
)  # fmt: skip
def test_a_mode_is_read_whatever_its_spelling_and_the_empty_one_is_none(
    given, mode, says, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", given)
    said = choose_wandb_mode(tmp_path)
    assert os.environ["WANDB_MODE"] == mode
    assert said is None if says is None else says in (said or "")


@pytest.mark.parametrize(
    "name", ["WANDB_TAGS", "WANDB_SWEEP_ID", "WANDB_SILENT", "WANDB_RUN_ID", "WANDB_API_KEY"]
)
def test_an_empty_variable_counts_as_unset(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "")
    choose_wandb_mode(tmp_path)
    assert name not in os.environ


REFUSED = {
    "a project of a team": "tracking.project=team/proj",
    "a project with a colon": "tracking.project=a:b",
    "a long project": f"tracking.project={'p' * 129}",
    "a long tag": f"tracking.tags=[ok,{'t' * 70}]",
    "a tag of 65": f"tracking.tags=[{'t' * 65}]",
    "an empty tag": "tracking.tags=['']",
    "a long group": f"tracking.group={'g' * 129}",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_wandb_refuses_is_refused_with_the_settings(case):
    key = REFUSED[case].partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}.*got") as refused:
        load_experiment(None, ["kind=ae", REFUSED[case]])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options_of", [CompareOptions, DashboardOptions])
def test_a_project_of_a_comparison_and_of_a_dashboard_is_checked_too(options_of):
    with pytest.raises(ConfigError, match="project: got 'team/proj'"):
        options(options_of, ["project=team/proj"])


def test_what_is_just_within_the_limits_is_taken_by_wandb_too():
    settings = [
        f"tracking.project={'p' * 128}",
        f"tracking.tags=[{'t' * 64}]",
        f"tracking.group={'g' * 128}",
    ]
    chosen = load_experiment(None, ["kind=ae", *settings]).tracking
    wandb.Settings(project=chosen.project, run_tags=tuple(chosen.tags), run_group=chosen.group)


def unreadable_variable() -> Exception:
    """What W&B raises for a variable that it cannot read, in the type of pydantic."""
    mode: Any = "nonsense"
    with pytest.raises(ValueError, match="mode") as raised:
        wandb.Settings(mode=mode)
    return raised.value


STARTS = {
    "a variable": unreadable_variable,
    "usage": lambda: wandb.errors.UsageError("Run ID cannot\ncontain"),
    "communication": lambda: wandb.errors.CommError("no answer"),
    "its folder": lambda: PermissionError(13, "Permission denied", "/wandb"),
    "its service": lambda: TimeoutError("service did not start"),
    "its binary": lambda: FileNotFoundError("wandb-core"),
    "a bug": lambda: AttributeError("x"),
}


@pytest.mark.parametrize("where", ["init", "Settings"])
@pytest.mark.parametrize("case", STARTS)
def test_whatever_wandb_raises_at_its_start_the_run_goes_on_and_says_so_once(
    case, where, tmp_path, monkeypatch, capsys
):
    error = STARTS[case]()

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(wandb, where, refuse)
    monkeypatch.setattr(wandb, "teardown", lambda *_, **__: None)
    experiment = load_experiment(None, ["kind=ae", f"runs={tmp_path}", "name=run"])
    run = Run.create(experiment)
    local, logger = start_tracking(experiment, run)
    assert isinstance(logger, RunWandbLogger)
    for step in range(3):
        for sink in (local, logger):
            sink.log_metrics({"val/loss": 1.0}, step=step)
    logger.log_image("val/samples", [Image.new("L", (4, 4))], step=3)
    logger.complete(run, None)
    logger.close(1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("W&B: not used, because it did not start (")
    assert len(run.metrics()) == 3


def test_a_run_that_does_not_start_online_starts_offline(tmp_path, monkeypatch, capsys):
    started = SimpleNamespace(define_metric=lambda *_, **__: None)

    def init(settings, **_):
        if settings.mode == "online":
            raise wandb.errors.CommError("timed out")
        return started

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda *_, **__: None)
    monkeypatch.setattr(tracking, "why_not_online", lambda: None)
    monkeypatch.setenv("WANDB_MODE", "Online")
    experiment = load_experiment(None, ["kind=ae", f"runs={tmp_path}", "name=run"])
    _, logger = start_tracking(experiment, Run.create(experiment))
    assert isinstance(logger, RunWandbLogger)
    assert logger.experiment is started
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("W&B: offline, because its server did not start the run")


def test_online_without_a_server_says_so_and_goes_on_offline(waiting):
    done = waiting["nobody"].wait()
    assert done.returncode == 0, done.stderr
    assert (
        "W&B: offline although WANDB_MODE=online, because its server does not answer" in done.stdout
    )
    assert done.stdout.splitlines()[-2] == "offline"


class Recorder:
    """Stands for a W&B run; online, it answers what a server would."""

    def __init__(self, offline: bool, known: bool = True) -> None:
        self.offline, self.known = offline, known
        self.logged: list[Any] = []
        self.used: list[Any] = []
        self.disabled = False

    def log_artifact(self, artifact, aliases=None):
        self.logged.append((artifact, aliases))
        return SimpleNamespace(wait=lambda: artifact)

    def use_artifact(self, artifact):
        if isinstance(artifact, str) and not self.known:
            raise wandb.errors.CommError("no such artifact\nmore")
        self.used.append(artifact)


@pytest.fixture
def prior(tmp_path):
    """A finished run of a prior, and the codes that it learned from."""
    run = record(tmp_path / "prior-run", kind="prior", test={"test/rate": 1.0}, tokenizer=TOKENIZER)
    write_checkpoint(run.best, {"weights": {}})
    codes = tmp_path / "codes.npz"
    codes.write_bytes(b"codes")
    return run, codes


def test_a_tokenizer_becomes_an_artifact_with_its_hash(tmp_path, prior):
    run, _ = prior
    run.write(kind="vqvae", tokenizer=None)
    recorder: Any = Recorder(offline=True)
    log_artifacts(recorder, run, None)
    ((artifact, aliases),) = recorder.logged
    assert (artifact.name, artifact.type, aliases) == ("prior-run", "tokenizer", ["best"])
    assert artifact.metadata["sha256"] == hashlib.sha256(run.best.read_bytes()).hexdigest()
    assert [entry.path for entry in artifact.manifest.entries.values()] == ["best.ckpt"]


def test_offline_a_prior_says_what_it_was_made_of_in_its_artifacts(prior):
    run, codes = prior
    recorder: Any = Recorder(offline=True)
    log_artifacts(recorder, run, codes)
    (stored, _), (model, _) = recorder.logged
    assert (stored.name, stored.type, stored.metadata["fingerprint"]) == (
        "tok-codes",
        "codes",
        "f" * 64,
    )
    assert [entry.ref for entry in stored.manifest.entries.values()] == [codes.as_uri()]
    assert (model.type, model.metadata["first_stage"]["run"]) == ("prior", "tok")
    assert recorder.used == []


def test_online_the_lineage_runs_from_tokenizer_to_codes_to_prior(prior):
    recorder: Any = Recorder(offline=False)
    log_artifacts(recorder, *prior)
    (stored, _), _ = recorder.logged
    assert recorder.used == ["tok:latest", stored]


def test_a_tokenizer_that_the_server_does_not_know_is_one_line(prior, capsys):
    recorder: Any = Recorder(offline=False, known=False)
    log_artifacts(recorder, *prior)
    assert capsys.readouterr().out == "W&B: no lineage to the first stage tok: no such artifact\n"
    assert len(recorder.logged) == 2


def test_the_summary_keeps_the_best_and_the_last_value_and_no_secret_of_the_environment(tmp_path):
    secret = "canary-of-a-token"
    metrics = [{"val/loss": loss, "val/psnr": psnr} for loss, psnr in ((3, 10), (1, 30), (2, 20))]
    variables = {"MY_API_TOKEN": secret, "WANDB_API_KEY": secret.ljust(40, "0")}
    program = command("track", tmp_path, json.dumps(metrics))
    assert run_fork(program, environment(WANDB_MODE="offline", **variables)).returncode == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    shown = subprocess.run(
        [
            str(Path(sys.executable).parent / "wandb"),
            "leet",
            "inspect",
            "--summary",
            "--json",
            str(folder),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(WANDB_MODE="offline", WANDB_ERROR_REPORTING="false"),
    )
    summary = json.loads(shown.stdout)["summary"]
    assert summary["val/loss"] == {"min": 1, "last": 2}
    assert summary["val/psnr"] == {"max": 30, "last": 20}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_server_that_answers_nothing_or_nonsense_costs_seconds_and_no_metric(waiting, answer):
    done = waiting[answer].wait()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 60
    assert done.stdout.count("W&B: offline") == 1
    run = waiting[answer].cwd / "run"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize(
    ("name", "taken"),
    [("ab-1_C", True), ("a\x1b[31m", False), ("a/b", False), ("", False), ("x" * 65, False)],
)
def test_an_agents_run_id_is_taken_if_wandb_would_take_it(tmp_path, monkeypatch, name, taken):
    monkeypatch.setenv("WANDB_RUN_ID", name)
    monkeypatch.setattr(tracking, "start_wandb", lambda *_: None, raising=False)
    experiment = load_experiment(None, [f"runs={tmp_path}", "name=r"])
    run = Run.create(experiment)
    start_tracking(experiment, run)
    assert (run.record.wandb_id == name) is taken
    assert (Run.open(run.path).record.wandb_id or "").isalnum() is not taken
