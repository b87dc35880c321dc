"""Runs that a comparison cannot trust: left out by name if they were found, refused if they were
named.
"""

import io
import json
import math
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from run_folders import check, figure, page, write_run

from vqvae_lightning import cli
from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.comparison.report.figures import Axis
from vqvae_lightning.comparison.report.pictures import open_picture
from vqvae_lightning.comparison.report.series import logged
from vqvae_lightning.comparison.study import Spread, print_spreads, spreads
from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.runs import Run

TOKENIZER = {"run": "x", "fingerprint": "f", "codebook_size": 8}
# What is changed in a good run.json (dotted keys; None: taken out), and of which kind the run is.
BAD_RECORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "no test metrics": ("vae", {"test": None}),
    "a metric of text": ("vae", {"test/psnr": "20"}),
    "a metric of long text": ("vae", {"test/psnr": "9" * 10_000}),
    "a metric that is true": ("vae", {"test/psnr": True}),
    "a metric that is null": ("vae", {"test": {"test/psnr": None}}),
    "a metric beyond floats": ("vae", {"test/psnr": 10**400}),
    "a metric beyond float32": ("vae", {"test/psnr": 1e300}),
    "test metrics as a list": ("vae", {"test": [1.0]}),
    "no rate": ("vae", {"test": {"test/distortion": 1.0}}),
    "no perplexity": ("vqvae", {"test": {"test/distortion": 1.0, "test/rate": 1.0}}),
    "parameters as text": ("ae", {"parameters": "many"}),
    "no versions": ("ae", {"versions": None}),
    "versions as a list": ("ae", {"versions": ["torch"]}),
    "a command of numbers": ("ae", {"command": [1]}),
    "an empty command": ("ae", {"command": []}),
    "no seed": ("ae", {"seed": None}),
    "a kind of another program": ("ae", {"kind": "gan"}),
    "a dataset of another program": ("ae", {"dataset": "imagenet"}),
    "a kind of another run": ("ae", {"kind": "vqvae"}),
    "no end": ("ae", {"finished": None}),
    "a prior without tokenizer": ("prior", {"tokenizer": None}),
    "a tokenizer of text": ("prior", {"tokenizer": "runs/tok"}),
    "a tokenizer without codes": (
        "prior",
        {"tokenizer": {**TOKENIZER, "codebook_size": 0, "grid": [7, 7]}},
    ),
    "a tokenizer without its grid": ("prior", {"tokenizer": TOKENIZER}),
    "a tokenizer of other images": (
        "prior",
        {"tokenizer": {**TOKENIZER, "grid": [7, 7], "dims": 768}},
    ),
    "a grid of any length": ("prior", {"tokenizer": {**TOKENIZER, "grid": [9] * 999}}),
    "a figure without its protocol": (
        "vae",
        {"generation": [{"sampler": "normal", "frechet": 1.0}]},
    ),
    "a figure that is text": ("vae", {"generation": [{**figure("normal", 1.0), "frechet": "1"}]}),
    "a protocol of a list": ("vae", {"generation": [{**figure("normal", 1.0), "network": ["a"]}]}),
    "figures as a mapping": ("vae", {"generation": {"normal": 1.0}}),
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A good run of each kind."""
    root = tmp_path_factory.mktemp("templates")
    return {kind: write_run(root, kind) for kind in ("ae", "vae", "vqvae", "prior")}


def copied(template: Run, root: Path, name: str, changed: dict[str, Any] | None = None) -> Run:
    run = Run(Path(shutil.copytree(template.path, root / name)))
    info = {**json.loads((run.path / "run.json").read_text()), "name": name}
    for key, value in (changed or {}).items():
        if key.startswith("test/"):
            info["test"] = {**info["test"], key: value}
        else:
            info[key] = value
    text = json.dumps({key: value for key, value in info.items() if value is not None})
    (run.path / "run.json").write_text(text)
    return run


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_bad_record_is_left_out_of_a_search_and_refused_by_name(
    case: str, templates: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, changed = BAD_RECORDS[case]
    good, bad = (
        copied(templates["ae"], tmp_path, "good"),
        copied(templates[kind], tmp_path, "bad", changed),
    )
    comparison = compare([bad, good], named=False)
    assert [row.name for row in comparison.rows] == ["good"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out  ")
    assert str(bad.path) in line
    assert len(line) < 2 * len(str(tmp_path)) + 200  # the folder may stand in it twice
    with pytest.raises(ConfigError) as refused:
        compare([bad, good])
    assert str(bad.path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["kind: ae\nmodel: {gone: 1}\n", "- 1\n", "{", "kind: prior\n", ""]
)
def test_settings_that_cannot_be_read_are_named_and_left_out(
    text: str, templates: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = copied(templates["vae"], tmp_path, "good"), copied(templates["ae"], tmp_path, "bad")
    (bad.path / "config.yaml").write_text(text)
    if not text:
        (bad.path / "config.yaml").unlink()
    assert len(compare([good, bad], named=False).rows) == 1
    assert "bad" in capsys.readouterr().err


def test_a_search_without_one_good_run_is_one_line(
    templates: dict[str, Run], tmp_path: Path
) -> None:
    bad = copied(templates["ae"], tmp_path, "bad", {"test": None})
    with pytest.raises(ConfigError, match="none of the 1 runs found"):
        compare([bad], named=False)


def test_the_command_leaves_out_what_it_found_and_refuses_what_was_named(
    templates: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(templates["ae"], tmp_path, "good")
    bad = copied(templates["vae"], tmp_path, "bad", {"test": None})
    cli.main(["compare", f"runs={tmp_path}"])
    assert "left out" in capsys.readouterr().err
    assert (tmp_path / "compare.html").is_file()
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(bad.path)])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_damaged_tokenizer_lends_its_prior_nothing(
    templates: dict[str, Run], tmp_path: Path
) -> None:
    prior = copied(templates["prior"], tmp_path, "prior")
    copied(templates["vqvae"], tmp_path, "tok", {"test": None})
    (row,) = compare([prior]).rows
    assert "distortion" not in row.values


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one black line."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    line = zlib.compress(bytes(width + 1))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", line) + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (60, 60), shade) for shade in (0, 255)]
    frames[0].save(buffer, "png", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def other_format(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 60)).save(buffer, name)
    return buffer.getvalue()


BAD_PICTURES = {
    "empty": b"",
    "text": b"root:x:0:0:root:/root:/bin/bash\n",
    "only its signature": b"\x89PNG\r\n\x1a\n",
    "cut off": png(60, 60)[:-30],
    "a bomb": png(50_000, 50_000),
    "a long line": png(49_000_000, 1),
    "animated": animated(),
    "a JPEG": other_format("jpeg"),
    "a GIF": other_format("gif"),
    "an EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("case", BAD_PICTURES)
@pytest.mark.parametrize("limit", [10**6, 100])
def test_a_picture_that_cannot_be_opened_is_left_out_with_a_line(
    case: str,
    limit: int,
    templates: dict[str, Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqvae_lightning.comparison.report.PICTURE_BYTES", limit)
    run = copied(templates["vae"], tmp_path, "run")
    (run.images / "samples.png").write_bytes(BAD_PICTURES[case])
    html = page(compare([run]), tmp_path)
    assert check(html).tags.count("img") == (1 if limit == 10**6 else 0)
    if limit == 10**6:
        assert f"left out  {run.images / 'samples.png'}: " in capsys.readouterr().out
    assert "pictures are left out" in html
    assert "root:x:0:0" not in html


def test_a_picture_that_can_be_opened_is(templates: dict[str, Run]) -> None:
    assert open_picture(templates["ae"].images / "samples.png")


def test_a_name_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, "vae")
    with pytest.raises(ConfigError, match=r"'\\x1b\[31mred\\x07\\u202e' holds control"):
        compare([write_run(tmp_path, "vae", name="\x1b[31mred\x07\u202e")])
    output = io.StringIO()
    console = Console(file=output, width=100)
    print_spreads(
        {("\x1b[31m[bold]",): {"\x1bvae": Spread(1.0, 0.0, 1)}}, ("test metric",), console
    )
    assert "\x1b" not in output.getvalue()
    assert "[bold]" in output.getvalue()
    compare([Run(tmp_path / "\x1b[31mgone"), run], named=False)
    assert "\x1b" not in capsys.readouterr().err


def test_values_of_a_foreign_folder_are_text_in_every_attribute(tmp_path: Path) -> None:
    evil = "\"' onload=x <script>javascript:alert(1)</script>"
    tokenizer = write_run(tmp_path, "vqvae", name="tok")
    others = [write_run(tmp_path, kind, f"optimizer.lr={lr}", name=f"{kind}{evil}") for kind, lr in
              (("ae", 0.1), ("vae", 0.2), ("prior", 0.3))]  # fmt: skip
    for run in others:
        sampler = {"ae": "normal", "vae": "normal", "prior": "prior"}[run.record.kind]
        run.write(
            generation=[figure(sampler, 1.0) | {"network": evil}],
            versions={"torch": evil, "commit": evil},
        )
    checker = check(page(compare([tokenizer, *others]), tmp_path))
    assert checker.tags.count("script") == 2
    assert "a" not in checker.tags
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_drawn_nowhere(value: float, tmp_path: Path) -> None:
    tokenizer = write_run(tmp_path, "vqvae", name="tok")
    bad = [
        write_run(tmp_path, kind, name=f"bad-{kind}") for kind in ("ae", "vae", "vqvae", "prior")
    ]
    for run in bad:
        run.write(test=dict.fromkeys(run.record.test, value))
    html = page(compare([tokenizer, *bad]), tmp_path)
    figures = html[html.index("The ledger") : html.index("Where the numbers")]
    assert not [
        part for part in figures.split("<rect") if 'width="nan' in part or 'width="inf' in part
    ]
    ledger = html[html.index('<ul class="ledger">') : html.index("Learning curves")]
    assert "bad-" not in ledger
    assert math.isnan(spreads({"vae": [bad[1]], "vqvae": [tokenizer]})[("psnr",)]["vae"].mean)
    assert str(Spread(math.nan, math.nan, 2)) == "nan ± nan"


def test_lines_of_metrics_that_are_no_numbers_are_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    wrong = ["text", None, True, [1], {"a": 1}, math.nan, math.inf, 1e300, 10**400]
    lines = [{"step": 1, "val/psnr": value} for value in wrong] + [
        {"step": value, "val/psnr": 1} for value in wrong
    ]
    run.metrics_path.write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 5, "val/psnr": 9.0}])
    )
    ((_, known),) = logged(compare([run]).rows)["val/psnr"]
    assert known == ([5], [9.0])
    check(page(compare([run]), tmp_path))


@pytest.mark.parametrize(
    "values", [[1e17], [1e38, -1e38], [1e16, 1e16 + 2], [0.0, 5e-324], [1e-300], [-1e39, 1e39]]
)
def test_axes_hold_what_floating_point_can_barely_tell_apart(values: list[float]) -> None:
    axis = Axis.of(values, 0, 100)
    assert all(-0.1 <= axis.at(value) <= 100.1 for value in values)
    assert len(axis.labels) >= 2
