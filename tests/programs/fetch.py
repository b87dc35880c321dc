"""`fetch.py URL ROOT SHA256`: fetches the dataset `tiny` of 7 and 5 images, whose hashes are a JSON
mapping, and prints its files and the sum of its training pixels.
"""

import dataclasses
import json
import sys
from pathlib import Path

from vqvae_lightning.data import fetch, sources

if __name__ == "__main__":
    url, hashes, root = sys.argv[1], sys.argv[3], Path(sys.argv[2])
    sources.DATASETS["tiny"] = dataclasses.replace(
        sources.DATASETS["mnist"],
        name="tiny",
        train_size=7,
        test_size=5,
        files=json.loads(hashes),
        sources=(fetch.Source(url),),
    )
    fetch.TIMEOUT = 20.0
    folder = sources.prepare("tiny", root)
    pixels = sources.load("tiny", root, "train")[0].sum()
    print(sorted(path.name for path in folder.iterdir()), pixels)
