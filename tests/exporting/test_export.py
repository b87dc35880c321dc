"""`vqvae export`: folders that are opened again and compared, and those that are refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pytest
import torch
from untrained import workplace_with

import vqvae_lightning
from vqvae_lightning import VQVAE, cli, load, open_export
from vqvae_lightning.config import ConfigError, ExportOptions
from vqvae_lightning.data.images import to_float
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.exporting import formats, graphs
from vqvae_lightning.exporting.export import check_steps
from vqvae_lightning.exporting.manifest import MANIFEST, own_hash, read_manifest
from vqvae_lightning.exporting.opening import Exported, ExportedPrior
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Generates
from vqvae_lightning.verified import CheckpointError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """runs/vqvae and runs/prior, never trained, and exports of them."""
    root = tmp_path_factory.mktemp("export")
    with workplace_with(root, ("vqvae", "prior")):
        export(root, "vqvae", "onnx")
        export(root, "prior", "hub")
        yield root


def export(root: Path, kind: str, name: str, to: str = "") -> Path:
    folder = root / (to or f"{kind}-{name}")
    cli.main(["export", str(root / "runs" / kind), f"format={name}", f"to={folder}"])
    return folder


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an exported folder, to be damaged."""
    return lambda name: Path(shutil.copytree(place / name, tmp_path / name))


def refused(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of an export that is refused."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(root / "runs" / "vqvae"), *words])
    assert ended.value.code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_an_exported_autoencoder_is_opened_by_onnxruntime_and_gives_the_runs_codes(
    place: Path,
) -> None:
    opened = open_export(place / "vqvae-onnx")
    assert isinstance(opened, Exported)
    net = cast(Any, load_run(Run(place / "runs" / "vqvae"))).net
    images = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        wanted = net.encode(to_float(images)).codes
    codes = opened.encode(images)
    assert (codes != wanted).sum() <= 1
    assert opened.decode(codes).shape == images.shape
    with pytest.raises(ValueError, match="images: got float32 of shape"):
        opened.encode(images.float())


def test_an_exported_onnx_model_names_its_tensors_and_leaves_the_batch_open(place: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(place / "vqvae-onnx" / "encoder.onnx"))
    (images,), (codes,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == (
        "images", "tensor(uint8)", ["batch", 1, 28, 28],
    )  # fmt: skip
    assert (codes.name, codes.type, codes.shape) == ("codes", "tensor(int64)", ["batch", 7, 7])


def test_a_prior_from_a_folder_for_the_hub_draws_what_the_run_draws(place: Path) -> None:
    opened = cast(Generates, open_export(place / "prior-hub"))
    run = cast(Generates, load_run(Run(place / "runs" / "prior")))
    drawn = [
        each.sample(3, torch.arange(3), generator=torch.Generator().manual_seed(0))
        for each in (opened, run)
    ]
    assert torch.equal(*drawn)


def test_without_a_run_the_newest_that_the_settings_choose_is_exported(
    place: Path, tmp_path: Path
) -> None:
    to = f"to={tmp_path / 'newest'}"
    cli.main(["export", f"runs={place / 'runs'}", "dataset=mnist", "format=safetensors", to])
    assert read_manifest(tmp_path / "newest").kind == "prior"


def test_a_folder_for_the_hub_has_a_card_with_metadata_and_names_no_folder_of_this_machine(
    place: Path,
) -> None:
    from huggingface_hub import ModelCard

    folder = place / "prior-hub"
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "vqvae_lightning"
    assert "import load" in card.text
    for file in (folder / MANIFEST, folder / "README.md"):
        assert str(place) not in file.read_text()


@pytest.mark.slow
def test_an_exported_prior_samples_step_by_step(place: Path) -> None:
    for name in ("onnx", "pt2"):
        opened = open_export(export(place, "prior", name), trusted=True)
        assert isinstance(opened, ExportedPrior)
        images = opened.sample(3, [0, 1, 2], generator=torch.Generator().manual_seed(0))
        assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.uint8)


def test_load_reads_an_exported_folder_as_it_reads_a_run(place: Path) -> None:
    net = load(place / "runs" / "prior").net
    for name, tensor in load(place / "prior-hub").net.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name])
    assert isinstance(load(place / "vqvae-onnx"), Exported)
    with pytest.raises(ConfigError, match="class Exported, wanted VQVAE"):
        load(place / "vqvae-onnx", VQVAE)


def test_export_is_a_function_that_takes_a_folder_and_settings_and_checks_both(
    place: Path, tmp_path: Path
) -> None:
    made = vqvae_lightning.export(
        str(place / "runs" / "vqvae"), format="safetensors", to=str(tmp_path / "made")
    )
    assert type(load(made)) is VQVAE
    wrong: Any = {"format": "bogus"}
    run = place / "runs" / "vqvae"
    for given, line in (
        ((run, ExportOptions(**wrong)), "format: got 'bogus', wanted"),
        ((tmp_path,), "is no run folder"),
    ):
        with pytest.raises(ConfigError, match=line):
            vqvae_lightning.export(*given)
    for more, line in (
        (wrong, "format: got 'bogus', wanted"),
        ({"n": 3}, "unknown key n"),
        ({"runs": "runs"}, "runs: got runs beside"),
    ):
        with pytest.raises(ConfigError, match=line):
            vqvae_lightning.export(run, **more)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_every_format_that_can_be_asked_for_has_a_record() -> None:
    assert get_args(get_type_hints(ExportOptions)["format"]) == (*formats.FORMATS,)


def test_a_pt2_is_opened_only_for_who_trusts_its_maker(place: Path) -> None:
    folder = export(place, "vqvae", "pt2")
    for opens in (open_export, load):
        with pytest.raises(ConfigError, match=r"call open_export\(folder, trusted=True\)"):
            opens(folder)
    assert isinstance(open_export(folder, trusted=True), Exported)


def test_a_graph_names_no_file_of_this_machine(place: Path) -> None:
    for folder in (place / "vqvae-onnx", place / "vqvae-pt2"):
        for path in folder.iterdir():
            assert str(Path(graphs.__file__).parents[1]).encode() not in path.read_bytes()


def test_a_wrong_graph_is_told_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = graphs.ImageEncoder.forward

    def wrong(self: graphs.ImageEncoder, images: torch.Tensor) -> torch.Tensor:
        codes = real(self, images)
        return (codes + 1) % 16 if torch.compiler.is_exporting() else codes

    monkeypatch.setattr(graphs.ImageEncoder, "forward", wrong)
    before = sorted(place.iterdir())
    line = refused(place, capsys, "format=pt2", f"to={place / 'wrong'}")
    assert "values of the encoder" in line
    assert sorted(place.iterdir()) == before


def test_weights_that_are_read_back_otherwise_are_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import torch as safetensors

    real = safetensors.load
    monkeypatch.setattr(
        safetensors, "load", lambda data: {name: x * 2 for name, x in real(data).items()}
    )
    line = refused(place, capsys, "format=safetensors", f"to={place / 'wrong'}")
    assert "was not read back" in line
    assert not (place / "wrong").exists()


def test_a_prior_that_has_no_step_is_refused() -> None:
    check_steps(load_experiment(None, ["kind=prior"]))
    with pytest.raises(ConfigError, match="name=masked draws many codes at a time"):
        check_steps(load_experiment(None, ["kind=prior", "model.network.name=masked"]))


def test_an_existing_folder_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine").mkdir()
    assert "exists already" in refused(place, capsys, f"to={place / 'mine'}")
    assert list((place / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "safetensors", "hub"])
def test_a_missing_package_is_named_with_its_extra_before_anything_is_made(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda package: None)
    line = refused(place, capsys, f"format={name}", f"to={place / 'missing'}")
    assert "which is not installed" in line
    assert "vqvae_lightning[export]" in line
    assert not (place / "missing").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.safetensors", "config.json"])
def test_a_damaged_truncated_or_missing_file_is_one_line(
    copied: Callable[[str], Path], file: str
) -> None:
    path = copied("prior-hub") / file
    data = path.read_bytes()
    middle = len(data) // 2
    for damaged in (data[:middle], data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            open_export(path.parent)
    path.unlink()
    with pytest.raises((CheckpointError, ConfigError), match=r"no file|no exported folder"):
        open_export(path.parent)
    path.symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="is a link"):
        open_export(path.parent)


def rewrite(folder: Path, **changes: Any) -> None:
    """Changes config.json as somebody would who knows how it is verified."""
    values = {**json.loads((folder / MANIFEST).read_text()), **changes}
    (folder / MANIFEST).write_text(json.dumps({**values, "sha256": own_hash(values)}))


def test_a_foreign_folder_is_one_line(copied: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no exported folder"):
        open_export(tmp_path)
    folder = copied("prior-hub")
    for changes, message in (
        ({"library_name": "diffusers"}, "of another library"),
        ({"format": "pickle"}, "wanted one of onnx, pt2"),
        ({"kind": "gan"}, "wanted one of ae, vae"),
        ({"files": {}}, "names no model.safetensors"),
        ({"weights": {"model": {"kind": "vqvae"}}}, "can be read here"),
        ({"weights": []}, "wanted a mapping"),
    ):
        shutil.rmtree(folder)
        folder = copied("prior-hub")
        rewrite(folder, **changes)
        with pytest.raises((CheckpointError, ConfigError), match=message) as error:
            open_export(folder)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("graph", "change", "line"),
    [
        ("encoder", {"name": "pixels"}, "encoder.onnx: it has tensors"),
        ("encoder", {"shape": ["batch", 3, 28, 28]}, "do not fit together"),
        ("encoder", {"dtype": "float32"}, "do not fit together"),
        ("decoder", {"shape": ["batch", 49]}, "do not fit together"),
    ],
)
def test_a_manifest_that_describes_other_tensors_than_its_graphs_have_is_refused(
    copied: Callable[[str], Path], graph: str, change: dict[str, Any], line: str
) -> None:
    folder = copied("vqvae-onnx")
    described = json.loads((folder / MANIFEST).read_text())["graphs"]
    described[graph]["inputs"][0] |= change
    rewrite(folder, graphs=described)
    with pytest.raises(CheckpointError, match=line) as error:
        open_export(folder)
    assert "\n" not in str(error.value)


def test_a_manifest_whose_codes_are_longer_than_those_of_its_graphs_is_refused(
    copied: Callable[[str], Path],
) -> None:
    folder = copied("vqvae-onnx")
    described = json.loads((folder / MANIFEST).read_text())["graphs"]
    for port in (described["encoder"]["output"], described["decoder"]["inputs"][0]):
        port["shape"][1] = 2**30  # in agreement with itself
    rewrite(folder, graphs=described)
    with pytest.raises(CheckpointError, match="as config"):
        open_export(folder)


def test_a_manifest_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(2**42)  # more than any memory, and a hole on disk
    with pytest.raises(CheckpointError, match="has more than 16,777,216 bytes"):
        open_export(tmp_path)


def test_an_onnx_model_that_names_other_files_is_refused(copied: Callable[[str], Path]) -> None:
    import hashlib

    import onnx

    folder = copied("vqvae-onnx")
    model = onnx.load(folder / "encoder.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    data = model.SerializeToString()
    (folder / "encoder.onnx").write_bytes(data)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    rewrite(folder, files={**files, "encoder.onnx": hashlib.sha256(data).hexdigest()})
    with pytest.raises(CheckpointError, match="in other files"):
        open_export(folder)
