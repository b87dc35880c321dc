"""Peak resident memory, each in a process of its own."""

import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator

from experiments.benchmarks.timing import Row
from vqvae_lightning.allocator import keep_freed_memory

MB = 2**20
IMPORT = "import torch, pytorch_lightning, wandb, vqvae_lightning.training.train"


def memory() -> Iterator[Row]:
    """Training on MNIST and CIFAR-10 over what its libraries and bytes need; the quantizer over its
    input.
    """
    libraries = peak("imports")
    for dataset in ("mnist", "cifar10"):
        found = peak("training", dataset)
        least = libraries["peak"] + found["data"]
        yield _row(
            f"peak memory of training a VQ-VAE on {dataset}",
            "imports and the data's bytes",
            found["peak"] / least,
            {
                "peak, MB": found["peak"],
                "imports, MB": libraries["peak"],
                "data, MB": found["data"],
            },
        )
    for n, k, d in ((8192, 512, 64), (8192, 8192, 64), (8192, 1024, 256)):
        found = peak("nearest", str(n), str(k), str(d))
        whole = n * k * 4 / MB
        yield _row(
            f"memory of the nearest code, N={n}, K={k}, D={d}",
            "N·K scores",
            found["grown"] / whole,
            {"grown, MB": found["grown"], "N·K, MB": whole},
        )


def _row(work: str, against: str, ratio: float, detail: dict[str, float]) -> Row:
    return Row(work, against, ratio, ratio, ratio, detail=detail)


def peak(*words: str) -> dict[str, float]:
    """What `measure` finds in a fresh process, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.memory", *words],
        check=True,
        capture_output=True,
        timeout=200,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def highest() -> float:
    """Peak resident MB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(what: str, *words: str) -> dict[str, float]:
    """Peak memory of one kind of work in this process."""
    exec(IMPORT, {})
    keep_freed_memory()
    if what == "imports":
        return {"peak": highest()}
    if what == "nearest":
        return nearest(*map(int, words))
    from experiments.benchmarks.training import Turns, experiment_of, fit
    from vqvae_lightning.training.build import build

    experiment = experiment_of(f"{words[0]}/vqvae.yaml")
    data, module = build(experiment)
    fit(experiment, module, data, Turns({}, rounds=1, steps=20))
    sizes = [len(rows) * math.prod(rows.shape) for rows in data.splits.values()]
    return {"peak": highest(), "data": sum(sizes) / MB}


def nearest(n: int, k: int, d: int) -> dict[str, float]:
    import torch

    from vqvae_lightning.models.quantizers.nearest import nearest_code

    rows, codebook = torch.randn(n, d), torch.randn(k, d)
    torch.mm(rows[:256], codebook[:256].T)  # what the first product loads
    before = highest()
    nearest_code(rows, codebook)
    return {"grown": highest() - before}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
