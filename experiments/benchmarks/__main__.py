"""`python -m experiments.benchmarks [SUITE …]`: measures (default: every suite of the CPU), then
writes the report.

Each suite runs in a process of its own, so that one that fails, or hangs, is a line of the report
and no more.
"""

import dataclasses
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from experiments.benchmarks.report import RESULTS, write_report

SUITES = {  # name → module; each is a generator function of rows, named as the suite
    "quantizers": "quantizers",
    "gradient_quantizer": "quantizers",
    "training": "training",
    "validation": "training",
    "extraction": "training",
    "data": "data",
    "prior_training": "priors",
    "sampling": "priors",
    "ddp": "ddp",
    "startup": "startup",
    "memory": "memory",
    "scaling": "scaling",
}
GPU_SUITES = {"gpu_correctness": "gpu", "gpu_speed": "gpu", "gpu_sampling": "priors"}
# Measured only where they are named, on one thread.
LONG_SUITES = {"quality": "quality", "quality_prior": "quality_prior"}
EVERY_SUITE = {**SUITES, **GPU_SUITES, **LONG_SUITES}
LIMIT, LONG_LIMIT = 600, 7200  # seconds for a suite; `ddp`, the longest, takes 470


def main(names: list[str]) -> None:
    """Measures the suites named, keeps what was known of the others, writes results.json and
    README.md.
    """
    if names[:1] == ["gpu"]:
        names = [*GPU_SUITES, *names[1:]]
    unknown = [name for name in names if name not in EVERY_SUITE]
    if unknown:
        sys.exit(f"benchmarks: got {unknown[0]}, wanted gpu or some of {', '.join(EVERY_SUITE)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in names or SUITES:
        started = time.perf_counter()
        measured = measure(name)
        results[name] = {**measured, **where(name), "seconds": round(time.perf_counter() - started)}
        outcome = measured.get("failed") or f"{len(measured['rows'])} figures"
        print(f"{name:20s} {results[name]['seconds']:4d} s  {outcome}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        write_report(results)


def measure(name: str) -> dict[str, Any]:
    """A suite's rows, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "rows.jsonl"
        out.touch()
        limit = LONG_LIMIT if name in LONG_SUITES else LIMIT
        command = [sys.executable, "-m", "experiments.benchmarks", "--in-process", name, str(out)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, env=environment(folder)
            )
        except subprocess.TimeoutExpired:
            failed = f"no end after {limit} s"
        else:
            last = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
            failed = f"exit code {done.returncode}: {last[0][:200]}" if done.returncode else ""
        # those before a failure count
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return {"rows": rows, "failed": failed} if failed else {"rows": rows}


def environment(folder: str) -> dict[str, str]:
    """Of a suite: its runs and other files go to a folder that is removed after it, and W&B is
    silent.
    """
    return {**os.environ, "TMPDIR": folder, "WANDB_SILENT": "true"}


def where(suite: str) -> dict[str, Any]:
    """What a figure depends on beside the code."""
    from importlib.metadata import version

    import torch

    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    )
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return {"machine": f"{gpu}{os.cpu_count()} cores of {model}", "date": date.today().isoformat(),
            "torch": version("torch"), "threads": threads(suite)}  # fmt: skip


def threads(suite: str) -> int:
    """Threads of every variant of a suite: of a long one 1, else BENCH_THREADS, or two."""
    return 1 if suite in LONG_SUITES else int(os.environ.get("BENCH_THREADS", "2"))


def run_in_process(name: str, out: Path) -> None:
    """Measures a suite in this process; its rows go to `out` one by one."""
    import torch

    from vqvae_lightning.allocator import keep_freed_memory

    keep_freed_memory()  # as `vqvae` does, for every variant
    torch.set_num_threads(threads(name))
    torch.manual_seed(0)
    suite = getattr(importlib.import_module(f"experiments.benchmarks.{EVERY_SUITE[name]}"), name)
    with out.open("w") as file:
        for row in suite():
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
            file.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-process"]:
        run_in_process(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:])
