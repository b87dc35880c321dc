"""`vqvae compress`, `decompress` and `inspect`: files of a run, and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import make_run, workplace_with

from vqvae_lightning import cli, compress, load
from vqvae_lightning.codec.coded import Coded
from vqvae_lightning.codec.coding import coded_of
from vqvae_lightning.codec.container import unpack
from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.runs import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """runs/KIND, never trained, and 6 images as PNG files and as an .npz."""
    root = tmp_path_factory.mktemp("codec")
    with workplace_with(root, ("ae", "vqvae", "prior")):
        pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
        (root / "photos").mkdir()
        for number, one in enumerate(pixels):
            Image.fromarray(one).save(root / "photos" / f"{number}.png")
        np.savez(root / "photos.npz", images=pixels)
        yield root


def made(place: Path, kind: str, to: Path, *words: str) -> Path:
    found = cli.COMMANDS["compress"].run([str(place / "runs" / kind), *words, f"to={to}"])
    assert isinstance(found, Path)
    return found


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("kind", ["vqvae", "prior", "ae"])
def test_images_go_to_a_file_and_come_back_as_pictures(
    place: Path, tmp_path: Path, kind: str
) -> None:
    step = ["step=0.01"] if kind == "ae" else []
    file = made(place, kind, tmp_path / "a.vqz", str(place / "photos"), *step)
    out = cli.COMMANDS["decompress"].run([str(file), f"runs={place / 'runs'}", f"to={tmp_path}/b"])
    assert out == tmp_path / "b"
    names = [f"{number}.png" for number in range(6)]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names
    model = load(place / "runs" / kind)
    images = torch.from_numpy(
        np.stack([np.asarray(Image.open(place / "photos" / name)) for name in names])
    )[:, None]
    decoded = (
        model.tokenizer.decode(model.tokenizer.encode(images / 127.5 - 1))
        if kind == "prior"
        else model.decode((model.encode(images) / 0.01).round() * 0.01)
        if kind == "ae"
        else model(images)
    ).clamp(-1, 1)
    found = np.stack([np.asarray(Image.open(tmp_path / "b" / name)) for name in names])
    assert np.abs(found - ((decoded[:, 0].detach().numpy() + 1) * 127.5)).max() < 1


def with_a_newer_copy(place: Path, folder: Path) -> tuple[Path, Run]:
    """A folder of the run vqvae and of a copy of it, which is tried first; and the copy."""
    runs = folder / "runs"
    shutil.copytree(place / "runs" / "vqvae", runs / "vqvae")
    copy = Run(Path(shutil.copytree(place / "runs" / "vqvae", runs / "copy")))
    copy.write(finished="2099-01-01T00:00:00+00:00")
    return runs, copy


def test_a_damaged_copy_of_the_run_is_left_out_and_the_intact_one_decodes(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(place, "vqvae", tmp_path / "a.vqz", str(place / "photos"))
    runs, copy = with_a_newer_copy(place, tmp_path)
    damaged = bytearray(copy.best.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy.best.write_bytes(damaged)
    cli.COMMANDS["decompress"].run([str(file), f"runs={runs}", f"to={tmp_path}/b"])
    assert len(list((tmp_path / "b").iterdir())) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out")
    assert "copy" in line


def test_a_run_that_claims_the_weights_of_another_but_cannot_code_is_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(place, "vqvae", tmp_path / "a.vqz", str(place / "photos"))
    runs, _ = with_a_newer_copy(place, tmp_path)

    def refusing(model: object) -> Coded:
        monkeypatch.setattr(name, coded_of)
        raise ConfigError("codec: the decoder of this model is given the label")

    name = "vqvae_lightning.codec.files.coded_of"
    monkeypatch.setattr(name, refusing)
    cli.COMMANDS["decompress"].run([str(file), f"runs={runs}", f"to={tmp_path}/b"])
    assert len(list((tmp_path / "b").iterdir())) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"left out  {runs}/copy: codec: the decoder of this model is given the label"


def test_a_folder_its_files_and_an_npz_of_the_same_images_make_the_same_file(
    place: Path, tmp_path: Path
) -> None:
    files = [str(place / "photos" / f"{number}.png") for number in range(6)]
    for name, places in (("a", [str(place / "photos")]), ("b", files), ("c", ["photos.npz"])):
        places = [str(place / each) for each in places]
        made(place, "vqvae", tmp_path / f"{name}.vqz", *places)
    a, b, c = ((tmp_path / f"{name}.vqz").read_bytes() for name in "abc")
    assert a == b == c


@pytest.mark.parametrize("kind", ["vqvae", "vae"])
def test_a_lossless_file_gives_back_the_very_images(place: Path, tmp_path: Path, kind: str) -> None:
    make_run(place, kind, f"name={kind}_bits", "model.likelihood.name=discretized_logistic")
    file = made(place, f"{kind}_bits", tmp_path / "a.vqz", str(place / "photos"), "lossless=true")
    cli.COMMANDS["decompress"].run([str(file), f"runs={place / 'runs'}", f"to={tmp_path}/b"])
    for path in (place / "photos").iterdir():
        again = np.asarray(Image.open(tmp_path / "b" / path.name))
        assert (again == np.asarray(Image.open(path))).all()


def test_a_split_goes_with_its_labels_and_comes_back_as_an_npz(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(place, "prior", tmp_path / "test.vqz", "split=test")
    count = unpack(file.read_bytes()).header.images
    cli.COMMANDS["decompress"].run(
        [str(file), f"run={place / 'runs' / 'prior'}", f"to={tmp_path}/x.npz"]
    )
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (count, 28, 28)
    capsys.readouterr()
    cli.COMMANDS["inspect"].run([str(file), f"runs={place / 'runs'}"])
    shown = capsys.readouterr().out
    assert f"images    {count} of 1×28×28, lossy, in groups of {min(count, 256)}\n" in shown
    assert f"run       {place / 'runs' / 'prior'}\n" in shown


def test_an_image_of_another_size_is_refused_or_fitted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    words = ["compress", str(place / "runs" / "vqvae"), str(tmp_path / "large.png")]
    line = refused([*words, f"to={tmp_path}/a.vqz"], capsys)
    assert "large.png has 30×40 pixels, wanted 28×28" in line
    assert not (tmp_path / "a.vqz").exists()
    cli.main([*words, f"to={tmp_path}/a.vqz", "fit=true"])
    assert unpack((tmp_path / "a.vqz").read_bytes()).header.images == 1


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["compress", "{runs}/vqvae", "to={new}"], "compress: got no images, wanted folders"),
        (["compress", "{runs}/vqvae", "{root}/photos", "split=test", "to={new}"], "beside split"),
        (["compress", "{runs}/vqvae", "{root}/none", "to={new}"], "none: cannot be read"),
        (
            ["compress", "{runs}/ae", "{root}/photos", "lossless=true", "to={new}"],
            "which has neither codes nor p(z)",
        ),
        (
            ["compress", "{runs}/vqvae", "{root}/photos", "step=0.5", "to={new}"],
            "whose z goes on no grid",
        ),
        (["compress", "{runs}/ae", "{root}/photos", "step=0", "to={new}"], "step: got 0"),
        (["compress", "{runs}/vqvae", "{root}/photos", "to={here}"], "exists already"),
        (["compress", "{runs}/vqvae", "{root}/photos", "to=a.png"], "wanted a name that ends in"),
        (["compress", "{runs}/vqvae", "{root}/broken.png", "to={new}"], "broken.png is no image"),
        (
            ["compress", "{runs}/vqvae", "split=test", "lossless=true", "to={new}"],
            "lossless: got true, but the likelihood of",
        ),
        (["compress", "{runs}/vae_bits", "split=test", "to={new}"], "lossless: got false"),
        (
            ["compress", "{runs}/typo", "split=test", "to={new}"],
            "typo does not exist, wanted a run",
        ),
        (
            ["compress", "{runs}/vae_bits", "{root}/colour.png", "lossless=true", "to={new}"],
            "colour.png is RGB, wanted one picture of 8-bit grey",
        ),
        (
            ["compress", "{runs}/vae_bits", "{root}/wide.png", "lossless=true", "to={new}"],
            "wide.png is I;16, wanted",
        ),
        (
            ["compress", "{runs}/vae_bits", "{root}/colour.npz", "lossless=true", "to={new}"],
            "is an array of 3 channels, wanted",
        ),
        (["decompress", "{here}", "only=6", "runs={runs}", "to={out}"], "images 0 to 5, not 6"),
        (["decompress", "{here}", "only=-1", "to={out}"], "only: got -1"),
        (["decompress", "{here}", "to={out}.PNG"], "out.PNG, wanted a folder for PNG files, or"),
        (["decompress", "{here}", "to={out}.NPZ"], "out.NPZ, wanted a folder for PNG files, or"),
        (["decompress"], "file: got none, wanted one file"),
        (["decompress", "{here}", "{here}"], "file: got 2"),
        (["decompress", "{root}/none", "to={out}"], "none cannot be read"),
        (["decompress", "{root}/photos", "to={out}"], "photos is no regular file"),
        (["decompress", "{root}/broken.png", "to={out}"], "holds no compressed images"),
        (["decompress", "{cut}", "to={out}"], "cut.vqz is damaged"),
        (["decompress", "{flipped}", "to={out}"], "flipped.vqz is damaged"),
        (["decompress", "{here}", "to={root}/photos"], "photos exists already"),
        (["decompress", "{here}", "runs={root}/photos", "to={out}"], "no finished run in"),
        (["decompress", "{here}", "run={runs}/other", "to={out}"], "was made by the autoencoder"),
        (["decompress", "{here}", "run={runs}/prior", "to={out}"], "was made by the prior none"),
        (["decompress", "{here}", "run={runs}/ae", "to={out}"], "was made by the autoencoder"),
        (["inspect", "{cut}"], "cut.vqz is damaged"),
        (["inspect", "{root}/broken.png"], "holds no compressed images"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    here = place / "here.vqz"
    if not here.exists():
        make_run(place, "vqvae", "name=other", "seed=1")
        if not (place / "runs" / "vae_bits").exists():
            make_run(place, "vae", "name=vae_bits", "model.likelihood.name=discretized_logistic")
        made(place, "vqvae", here, str(place / "photos"))
        Image.new("RGB", (28, 28), "red").save(place / "colour.png")
        Image.fromarray(np.full((28, 28), 300, np.uint16)).save(place / "wide.png")
        np.savez(place / "colour.npz", images=np.zeros((2, 28, 28, 3), np.uint8))
        (place / "broken.png").write_bytes(b"no image at all, however long it may be")
        data = here.read_bytes()
        (place / "cut.vqz").write_bytes(data[:-40])
        (place / "flipped.vqz").write_bytes(data[:-40] + b"\xff" + data[-39:])
    before = sorted(place.iterdir())
    names = {name: str(place / f"{name}.vqz") for name in ("here", "cut", "flipped", "new")}
    names |= {"runs": str(place / "runs"), "root": str(place), "out": str(place / "out")}
    line = refused([word.format(**names) for word in words], capsys)
    assert wanted in line
    assert sorted(place.iterdir()) == before


def test_a_file_named_after_a_picture_decodes_into_a_folder_of_that_name(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(place, "vqvae", tmp_path / "cat.png.vqz", str(place / "photos"))
    monkeypatch.chdir(tmp_path)
    cli.COMMANDS["decompress"].run(["cat.png.vqz", f"runs={place / 'runs'}"])
    assert len(list((tmp_path / "cat.png").iterdir())) == 6


def test_one_image_comes_back_under_its_number(place: Path, tmp_path: Path) -> None:
    file = made(place, "vqvae", tmp_path / "a.vqz", str(place / "photos"), "group=2")
    here = [str(file), f"runs={place / 'runs'}"]
    cli.COMMANDS["decompress"].run([*here, f"to={tmp_path}/all"])
    cli.COMMANDS["decompress"].run([*here, "only=3", f"to={tmp_path}/one"])
    (one,) = (tmp_path / "one").iterdir()
    assert one.name == "3.png"
    both = [np.asarray(Image.open(path)).astype(int) for path in (one, tmp_path / "all" / "3.png")]
    assert np.abs(both[0] - both[1]).max() <= 1


def test_a_folder_among_the_runs_is_taken_for_a_run_not_for_images(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "photos", place / "runs" / "copied", dirs_exist_ok=True)
    monkeypatch.chdir(place)
    line = refused(["compress", "runs/copied", "photos", "to=new.vqz"], capsys)
    assert "run: " in line
    assert "copied" in line


def test_a_colour_picture_becomes_grey_in_a_lossy_file(place: Path, tmp_path: Path) -> None:
    Image.new("RGB", (28, 28), "red").save(tmp_path / "red.png")
    file = made(place, "vqvae", tmp_path / "a.vqz", str(tmp_path / "red.png"))
    assert unpack(file.read_bytes()).header.images == 1


def test_a_program_makes_the_file_of_the_command(place: Path, tmp_path: Path) -> None:
    file = made(place, "vqvae", tmp_path / "a.vqz", str(place / "photos.npz"))
    with np.load(place / "photos.npz") as arrays:
        images = arrays["images"][:, None]
    assert compress(load(Run(place / "runs" / "vqvae")), images) == file.read_bytes()
