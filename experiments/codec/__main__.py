"""`python -m experiments.codec [NAME …] [runs=FOLDER] [root=FOLDER] [images=10000] [full]`: trains
what is missing, writes and reads the files of the runs NAME (default: all) and of general codecs,
and then the table and the picture of docs/compression.md.

What is measured already, and not named, keeps its figures. With `full`, missing lossless runs are
trained by the long recipes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.__main__ import where
from experiments.codec import ours, peers, runs
from experiments.codec.report import RESULTS, write_report
from vqvae_lightning.data.rows import Rows
from vqvae_lightning.data.sources import DATASETS, prepare

LOSSLESS = "lossless"  # all general codecs that have such files
PEERS = (*peers.LOSSY, LOSSLESS)


def main(words: list[str]) -> None:
    """Measures what is named, and writes the report."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word and word != "full"]
    unknown = [name for name in names if name not in (*runs.NAMES, *PEERS)]
    unknown += [key for key in given if key not in ("runs", "root", "images")]
    if unknown:
        wanted = ", ".join((*runs.NAMES, *PEERS, "runs=", "root=", "images=", "full"))
        sys.exit(f"codec: got {unknown[0]}, wanted some of {wanted}")
    root, count = Path(given.get("root", "data")), int(given.get("images", 10_000))
    prepare("mnist", root, download=True)
    images = DATASETS["mnist"].rows(root, "test")
    for name in names or (*runs.NAMES, *PEERS):
        started = time.perf_counter()
        run_at = (Path(given.get("runs", "runs")), root, "full" in words)
        rows = measure(name, run_at, images, count)
        keep(name, {"rows": rows, **where(name)})
        print(f"{name:22s} {time.perf_counter() - started:5.0f} s  {len(rows)} files", flush=True)


def measure(name: str, run_at: tuple[Path, Path, bool], images: Rows, count: int) -> list[Any]:
    """The rows of a run, or of general codecs."""
    if name == LOSSLESS:
        return list(peers.lossless_rows(images.first(count)))
    if name in peers.LOSSY:
        return list(peers.lossy_rows(name, images.first(count)))
    return list(ours.rows_of(name, runs.run_of(name, *run_at), images, count))


def keep(name: str, found: dict[str, Any]) -> None:
    """Adds to results.json, and writes the report of all that it holds."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results[name] = found
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    write_report(results)


if __name__ == "__main__":
    main(sys.argv[1:])
