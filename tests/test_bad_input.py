"""Every mistake gets one line that says what, where, got and wanted, exit code 2, and leaves
nothing behind.
"""

import sys
import time
from pathlib import Path

import fake_data
import pytest
from own_process import environment, run_fork

from vqvae_lightning import cli

FILES = {
    "vqvae.yaml": "kind: vqvae\n",
    "vae.yaml": "kind: vae\n",
    "prior.yaml": "kind: prior\n",
    "twice.yaml": "kind: ae\nkind: vae\n",
    "list.yaml": "- a\n",
    "tab.yaml": "data:\n\tname: mnist\n",
    "alias.yaml": "a: &a [*a]\n",
    "nothing.yaml": "seed: ${nothing}\n",
    "secret.yaml": "name: ${oc.env:HOME}\n",
    "missing.yaml": "seed: ???\n",
    "number.yaml": "name: 0123\n",
    "list-secret.yaml": "tracking: {tags: ['${ oc.env:HOME}']}\n",
    "escape.yaml": 'tracking: {group: "\\e[31m"}\n',
}
V = "train vqvae.yaml "
CASES = {
    # settings
    V + "model.quantizer.codbook_size=512": (
        "unknown key model.quantizer.codbook_size; did you mean model.quantizer.codebook_size?"
    ),
    V + "model.codebook_size=512": (
        "unknown key model.codebook_size; it exists as model.quantizer.codebook_size"
    ),
    V + "batch_size=3": "unknown key batch_size; it exists as data.batch_size",
    V + "model.beta=2": "unknown key model.beta; it belongs to kind=vae, this is kind=vqvae",
    "train vae.yaml model.quantizer.codebook_size=3": (
        "unknown key model.quantizer; it belongs to kind=vqvae, this is kind=vae"
    ),
    V + "data.batch_size=12.5": "data.batch_size: got '12.5', wanted a whole number",
    V + "data.batch_size=true": "data.batch_size: got 'true', wanted a whole number",
    V + "optimizer.lr=fast": "optimizer.lr: got 'fast', wanted a number",
    V + "optimizer.lr=nan": "optimizer.lr: got nan, wanted a finite number",
    V + "optimizer.lr=inf": "optimizer.lr: got inf, wanted a finite number",
    V + "optimizer.lr=0": "optimizer.lr: got 0.0, wanted above 0",
    V + "data.batch_size=-1": "data.batch_size: got -1, wanted at least 1",
    V + "data.eval_batch_size=0": "data.eval_batch_size: got 0, wanted at least 1",
    V
    + "model.quantizer.codebook_size=0": "model.quantizer.codebook_size: got 0, wanted at least 1",
    V + "model.quantizer.codebook_size=1000000000000": (
        "model.quantizer.codebook_size: got 1000000000000, wanted at most 1048576"
    ),
    V + "model.quantizer.name=vq": (
        "model.quantizer.name: got 'vq', wanted one of ema, gradient, cosine, simvq, fsq, lfq"
    ),
    V + "model.quantizer.name=fsq model.quantizer.codebook_size=64": (
        "model.quantizer.codebook_size: fsq has no such setting; it has levels"
    ),
    V + "model.quantizer.name=lfq model.quantizer.residual_levels=2": (
        "model.quantizer.residual_levels: lfq has no such setting; it has codebook_size,"
    ),
    V + "model.groups=0": "model.groups: got 0, wanted at least 1",
    V + "model.quantizer.decay=1": "model.quantizer.decay: got 1.0, wanted below 1",
    V + "trainer.steps=0": "trainer.steps: got 0, wanted at least 1",
    "train prior.yaml model.network.dropout=1": "model.network.dropout: got 1.0, wanted below 1",
    "train prior.yaml model.network.heads=3": (
        "model.network.heads: 3 heads do not divide model.network.width 128"
    ),
    V + "model.likelihood.bounded=true model.likelihood.name=bernoulli": (
        "model.likelihood.bounded: bernoulli has no such setting; it has none"
    ),
    V + "model.likelihood.per_pixel=true": (
        "model.likelihood.per_pixel: gaussian has no such setting; it has scale, learned, bounded"
    ),
    V + "model.likelihood.per_pixel=true model.likelihood.name=discretized_logistic": (
        "model.likelihood.per_pixel: got true with learned=false, wanted learned=true"
    ),
    V + "trainer.precision=fp8": "trainer.precision: got 'fp8', wanted one of 32-true,",
    V + "data.name=imagenet": "data.name: got 'imagenet', wanted one of mnist,",
    V + "kind=gan": "kind: got 'gan', wanted one of ae, vae, vqvae, prior",
    V + "kind=[1]": "kind: got '[1]', wanted one of ae, vae, vqvae, prior",
    V + "optimizer.lr": "got 2 files (vqvae.yaml, optimizer.lr), wanted one",
    V + "seed=1 seed=2": "seed: got 1 and 2, wanted one value",
    "sample n=3 n=3": "n: got 3 and 3, wanted one value",
    V + "trainer.validate_every=3": "trainer.validate_every: 3 does not divide trainer.steps 1000",
    V + "seed=010": "seed: got '010', wanted a whole number; write 10",
    V + "data.flip=2": "data.flip: got '2', wanted true or false",
    V + "model.quantizer.name=fsq model.quantizer.levels.0=5": (
        "model.quantizer.levels: got model.quantizer.levels.0, wanted the whole list:"
        " model.quantizer.levels=[8,8,8]"
    ),
    V + "name=${oc.env:HOME}": "a config cannot read the environment",
    V + "tracking.group=\x1b[31m": (
        r"got 'tracking.group=\x1b[31m', wanted text without control characters"
    ),
    # files
    "train number.yaml": "name: got 0123, wanted text or null; write it in quotes: '0123'",
    "train list-secret.yaml": (
        "tracking.tags.0: got '${ oc.env:HOME}', but a config cannot read the environment"
    ),
    "train escape.yaml": r"group: got '\x1b[31m', wanted text without control characters",
    "train": "got no file, wanted one such as",
    "train none.yaml": "there is no file none.yaml; ",
    "train xyz.yaml": "there is no file xyz.yaml; known: cifar10/ae, ",
    "train mnist/vqva": "there is no file mnist/vqva; did you mean mnist/vqvae?",
    "config experiments/mnist/vqva.yaml": "did you mean mnist/vqvae?",
    "ablate ablations/quantizer": "did you mean ablations/quantizers?",
    "train .": "there is no file /",
    "train twice.yaml": "line 2, column 1",
    "train list.yaml": "list.yaml holds a list or a single value, wanted a mapping",
    "train tab.yaml": "line 2, column 1",
    "train bytes.yaml": "bytes.yaml is not UTF-8 text",
    "train alias.yaml": "recursive aliases",
    "train nothing.yaml": "seed: got '${nothing}', but there is no such setting; write the value",
    "train secret.yaml": "a config cannot read the environment",
    "train missing.yaml": "seed: got '???', wanted a whole number",
    # what does not fit together, or is not there
    V + "data.batch_size=4000": "data.batch_size: got 4000, but there are only 280 training images",
    V + "data.validation_size=320": "data.validation_size: got 320, wanted 1 to 319",
    V + "model.trunk.downsamples=3": "3 halvings need sides divisible by 8, got images of 28x28",
    V + "model.trunk.name=residual model.trunk.multipliers=[1,1,1,2]": (
        "model.trunk.multipliers: 3 halvings need sides divisible by 8, got images of 28x28"
    ),
    V + "model.trunk.name=residual model.trunk.downsamples=2": (
        "model.trunk.downsamples: residual has no such setting; it has hidden, multipliers,"
    ),
    # before a folder, which is not there, is looked for
    V
    + "data.path=photos data.size=30": "2 halvings need sides divisible by 4, got images of 30x30",
    V + "trainer.accelerator=gpu": "trainer.accelerator: got gpu, but this machine has none",
    V + "trainer.devices=two": "trainer.devices: got 'two', wanted a whole number or auto",
    V + "trainer.devices=3": "data.batch_size: got 20, wanted a multiple of 3",
    V + "data.root=/nowhere data.download=false": "/nowhere/mnist/train-images-idx3-ubyte",
    "train prior.yaml": "vqvae train mnist/vqvae` first",
    "train prior.yaml model.tokenizer=http://host/run": "http:/host/run is no run folder",
    # places
    V + "name=../../x": "name: got '../../x', wanted 1 to 100 letters, digits, '.', '_' or '-'",
    V + "name=a* resume=auto": "name: got 'a*', wanted",
    V + "name=/absolute": "name: got '/absolute', wanted",
    V + "name=" + "x" * 300: "wanted 1 to 100 letters",
    V + "runs=/proc/nowhere name=x": "runs: /proc/nowhere/x/run.json cannot be made, for",
    V + "runs=dead": "runs: dead is a link to gone, which does not exist",
    V + "runs=vqvae.yaml": "runs: vqvae.yaml is a file, wanted a folder",
    V + "runs=~nobody-at-all/x": (
        "runs: got '~nobody-at-all/x', but there is no user ~nobody-at-all"
    ),
    V + "resume=none": "none is no run folder",
    "train resume=auto": "got no file, wanted one such as",
    # other commands
    "evaluate none": "none is no run folder",
    "sample none": "none is no run folder",
    "compare none": "none is no run folder",
    "sample runs=none": "there are no finished runs in none/",
    "sample runs=none path=photos": "no finished runs of path=photos in none/; run `",
    "compare runs=none dataset=cifar10": "of dataset=cifar10 in none/; run `",
    "evaluate fid_samples=-1": "fid_samples: got -1, wanted at least 0",
    "evaluate runs/a=b": "run: runs/a=b is no run folder",
    "evaluate none dataset=mnist": "dataset: got dataset=mnist beside none, wanted one of them",
    "sample none runs=other": "runs: got runs=other beside none, wanted one of them",
    "compare none none dataset=mnist": "dataset: got dataset=mnist beside none, wanted one of them",
    "sample out=x.jpg": "out: got 'x.jpg', wanted a name that ends in .png",
    "compare out=x.txt": "out: got 'x.txt', wanted a name that ends in .html",
    "sample n=0": "n: got 0, wanted at least 1",
    "study seeds=0": "seeds: got 0, wanted at least 1",
    "sweep none.yaml": "there is no file none.yaml; ",
    "config vqvae.yaml data.validation_size=40 model.trunk.downsamples=3": (
        "3 halvings need sides divisible by 8"
    ),
    "fid-calibrate batch_size=7": "unknown key batch_size",
    "config vqvae.yaml trainer.accumulate=3": "data.batch_size: got 128, wanted a multiple of 3",
    "data flip=true": "unknown key flip",
    "data name=imagenet": "name: got 'imagenet', wanted one of mnist,",
    "classifier dataset=imagenet": "dataset: got 'imagenet', wanted one of mnist,",
    "dashboard nam=x": "unknown key nam",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    root = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "bytes.yaml").write_bytes(b"\xff\xfe\x00k")
    (root / "dead").symlink_to("gone")
    with fake_data.installed(root / "data"):
        yield root


def full(line: str) -> list[str]:
    """The words of a line, with settings that fit the small data unless it says others."""
    words = line.split(" ")
    if words[0] != "train":
        return words
    defaults = {"data.batch_size": "20", "data.validation_size": "40", "trainer.accelerator": "cpu"}
    given = {word.partition("=")[0] for word in words}
    return [
        *words,
        *(
            f"{key}={value}"
            for key, value in defaults.items()
            if key not in given and len(words) > 1
        ),
    ]


@pytest.mark.parametrize("line", CASES, ids=lambda line: line[:60])
def test_a_mistake_is_one_line_and_leaves_nothing(workplace, line, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    before, started = sorted(workplace.rglob("*")), time.monotonic()
    with pytest.raises(SystemExit) as stop:
        cli.main(full(line))
    assert stop.value.code == 2
    assert time.monotonic() - started < 10
    error = capsys.readouterr().err.strip()
    assert error.startswith("vqvae: ")
    assert CASES[line] in error
    assert "\n" not in error
    assert sorted(workplace.rglob("*")) == before


def test_debug_shows_where_it_was_found(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    with pytest.raises(ValueError, match="unknown key"):
        cli.main(["--debug", "train", "vqvae.yaml", "model.codbook_size=512"])


@pytest.mark.dist
def test_two_ranks_say_it_once(workplace):
    words = [
        *full(V + "data.batch_size=4000 data.eval_batch_size=20"),
        "trainer.devices=2",
        "trainer.validate_every=250",
    ]
    program = [sys.executable, str(Path(__file__).parent / "launch_fake.py")]
    done = run_fork([*program, str(workplace / "data"), *words], environment(), cwd=workplace)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        "vqvae: data.batch_size: got 4000, but there are only 280 training images"
    )
