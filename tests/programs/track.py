"""`track.py ROOT METRICS [TIMEOUT]`: a run ROOT/run that logs a JSON list of metrics, a step each,
to metrics.jsonl and to W&B as its variables say, and prints whether W&B is online, and its seconds.

TIMEOUT, in seconds, is W&B's at its start and its end.
"""

import json
import sys
import time
from typing import Any, cast

from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training import tracking
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.trainer import start_tracking

if __name__ == "__main__":
    started = time.monotonic()
    root, metrics, *timeout = sys.argv[1:]
    if timeout:
        tracking.START_TIMEOUT = tracking.FINISH_TIMEOUT = int(timeout[0])
    experiment = load_experiment(None, ["kind=ae", f"runs={root}", "name=run"])
    local, logger = start_tracking(experiment, Run.create(experiment))
    for step, values in enumerate(json.loads(metrics)):
        for sink in (local, logger):
            sink.log_metrics(values, step=step)
    run: Any = cast(Any, logger).experiment
    print("offline" if run.offline else "online")
    run.finish()
    print(time.monotonic() - started)
