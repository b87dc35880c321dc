"""`publish_comparison.py ROOT`: publishes the comparison of two runs to W&B, and prints where.

ROOT/others.json then holds, of a run whose sampler was measured by other settings than its picture
was drawn with, the protocol of each row and whether the row has a picture.
"""

import json
import sys
from pathlib import Path

from run_folders import figure, write_run

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.comparison.publish import _samplers, publish

if __name__ == "__main__":
    root = Path(sys.argv[1])
    runs = [write_run(root, kind) for kind in ("ae", "vae")]
    runs[1].write(generation=[figure("mixture", 8.0), figure("reconstruction", 1.0)])
    print("AT", publish(compare(runs), "project", root / "out"))
    other = write_run(root / "others", "vae")
    other.write(generation=[{**figure("normal", 5.0), "temperature": 0.5}])
    rows = _samplers(compare([other])).data
    (root / "others.json").write_text(json.dumps([[row[4], row[-1] is not None] for row in rows]))
