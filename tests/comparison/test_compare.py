"""Comparing runs: the arithmetic, what is not ranked, and a page that is whole, small and
harmless.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import check, figure, page, terminal, write_run

from vqvae_lightning.comparison.columns import MISSING
from vqvae_lightning.comparison.compare import Comparison, compare
from vqvae_lightning.comparison.report import pictures, write_report
from vqvae_lightning.comparison.report.figures import Axis
from vqvae_lightning.comparison.report.pictures import encode_pictures
from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.runs import Run


def values(comparison: Comparison, name: str) -> dict[str, float]:
    (row,) = [row for row in comparison.rows if row.name == name]
    return row.values


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """The whole story: a prior (given first) on a VQ-VAE, beside a VAE and an AE."""
    root = tmp_path_factory.mktemp("four")
    tokenizer = write_run(root, "vqvae", name="tok")
    runs = [write_run(root, kind) for kind in ("prior", "vae", "ae")]
    for run, sampler, frechet in zip(
        runs, ("prior", "mixture", "normal"), (3.0, 8.0, 90.0), strict=True
    ):
        run.write(generation=[figure(sampler, frechet)])
    tokenizer.write(generation=[figure("reconstruction", 1.0)])
    return compare([*runs, tokenizer])


def test_no_runs_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        compare([])
    run = write_run(tmp_path, "ae")
    run.write(status="failed")
    with pytest.raises(ValueError, match="status=failed"):
        compare([run])


def test_settings_of_another_version_name_their_file(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    (run.path / "config.yaml").write_text("kind: ae\nmodel: {gone: 1}\n")
    with pytest.raises(ConfigError, match=r"ae_run/config\.yaml: unknown key model\.gone"):
        compare([run])


def test_units(four: Comparison) -> None:
    vae = values(four, "vae-run")
    assert vae["distortion"] == pytest.approx(200 / 784)
    assert vae["rate"] == pytest.approx(20 / 784)
    assert vae["total"] == pytest.approx(220 / 784)
    assert vae["rate_bits"] == pytest.approx(20 / math.log(2))
    assert values(four, "tok")["rate_bits"] == pytest.approx(49 * 9)
    assert "7 / 16" in terminal(four)


def test_what_a_prior_saved(four: Comparison) -> None:
    prior = values(four, "prior-run")
    assert prior["saved_vs_uniform_bits"] == pytest.approx(9 - 4)
    assert prior["uniform_bits"] - prior["rate_bits"] == pytest.approx(49 * (9 - 4))
    assert prior["uniform"] == pytest.approx(values(four, "tok")["rate"])
    assert prior["distortion"] == values(four, "tok")["distortion"]  # pixels are its tokenizer's
    assert prior["total"] == pytest.approx((90 + 49 * 4 * math.log(2)) / 784)


def test_a_prior_worse_than_uniform_is_shown_as_a_loss(tmp_path: Path) -> None:
    tokenizer = write_run(tmp_path, "vqvae", name="tok")
    prior = write_run(tmp_path, "prior", bits_per_code=10.0, rate=490 * math.log(2))
    comparison = compare([tokenizer, prior])
    assert values(comparison, "prior-run")["saved_vs_uniform_bits"] == pytest.approx(-1)
    assert "lost 49 of 441 bits/image" in page(comparison, tmp_path)


def test_a_tokenizer_that_is_gone_or_another_lends_no_distortion(tmp_path: Path) -> None:
    prior = write_run(tmp_path, "prior")
    assert "distortion" not in values(compare([prior]), "prior-run")
    tokenizer = write_run(tmp_path, "vqvae", name="tok")
    assert "distortion" in values(compare([prior]), "prior-run")  # it need not be among the runs
    tokenizer.write(fingerprint="e" * 64)
    comparison = compare([prior])
    assert "distortion" not in values(comparison, "prior-run")
    assert "trained again since" in page(comparison, tmp_path)


def test_an_ae_has_no_rate(four: Comparison, tmp_path: Path) -> None:
    assert {"rate", "total", "bits_per_dim"} & set(values(four, "ae-run")) == set()
    line = next(line for line in terminal(four).splitlines() if line.startswith("ae-run"))
    assert MISSING in line
    assert "An AE has no p(z), so nothing can be charged." in page(four, tmp_path)


def test_samplers_stand_on_the_page_with_their_protocol(four: Comparison, tmp_path: Path) -> None:
    text = page(four, tmp_path)
    (table,) = four.groups[0].generation
    assert [row.sampler for row in table.rows] == ["normal", "mixture", "reconstruction", "prior"]
    assert table.protocol in text
    assert "7ff47ff47ff4" in table.protocol
    assert "10,000 samples against the 10,000 test images" in table.protocol
    # The prior was trained after its tokenizer, so it had more than the others.
    assert table.best["frechet"] == set()


def test_runs_are_ordered_from_ae_to_prior(four: Comparison) -> None:
    assert [(row.number, row.kind.name) for row in four.rows] == [
        (1, "ae"),
        (2, "vae"),
        (3, "vqvae"),
        (4, "prior"),
    ]


def test_only_comparable_values_are_ranked(tmp_path: Path) -> None:
    one = write_run(tmp_path, "vae", name="one")
    two = write_run(tmp_path, "vae", name="two", distortion=50.0, psnr=19.0)
    three = write_run(tmp_path, "vae", "model.likelihood.scale=0.1", name="three", psnr=30.0)
    (same,) = compare([one, two]).groups
    assert (same.best["psnr"], same.best["distortion"], same.best["rate"]) == ({1}, {2}, set())
    (other,) = compare([one, two, three]).groups
    assert (other.best["psnr"], other.best["distortion"], other.best["total"]) == (
        {3},
        set(),
        set(),
    )
    assert compare([one]).groups[0].best["psnr"] == set()  # nothing to be better than


def test_values_that_are_shown_alike_are_both_best(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "ae", name=name, psnr=psnr)
        for name, psnr in (("a", 24.001), ("b", 24.0), ("c", 20))
    ]
    assert compare(runs).groups[0].best["psnr"] == {1, 2}


def test_a_diverged_run_is_shown_and_never_best(tmp_path: Path) -> None:
    good, bad = write_run(tmp_path, "ae", name="good"), write_run(tmp_path, "ae", name="bad")
    worst = write_run(tmp_path, "ae", name="worst", psnr=5.0)
    bad.write(test=dict.fromkeys(bad.record.test, math.nan))
    comparison = compare([good, bad, worst])
    assert comparison.groups[0].best["psnr"] == {1}
    assert "nan" in terminal(comparison)
    assert ">nan<" in page(comparison, tmp_path)


def test_datasets_and_binarizations_are_never_mixed(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "vae", name="grey"),
        write_run(tmp_path, "vqvae", name="colour", dataset="cifar10", psnr=99.0),
        write_run(
            tmp_path,
            "vae",
            "data.binarize=static",
            "model.likelihood.name=bernoulli",
            name="binary",
        ),
    ]
    comparison = compare(runs)
    assert [group.title for group in comparison.groups] == [
        "MNIST",
        "CIFAR-10",
        "MNIST, static binarization",
    ]
    assert [row.number for row in comparison.rows] == [1, 2, 3]
    assert values(comparison, "colour")["distortion"] == pytest.approx(90 / 3072)
    html = page(comparison, tmp_path)
    assert html.count('class="sortable"') == 3
    assert html.count('class="dataset"') == 3


def test_only_settings_that_differ_are_listed(tmp_path: Path) -> None:
    one = write_run(tmp_path, "vae", "optimizer.lr=0.001", "runs=here", name="one")
    two = write_run(
        tmp_path,
        "vae",
        "optimizer.lr=0.002",
        "runs=there",
        "model.likelihood.learned=true",
        name="two",
    )
    (settings,) = compare([one, two]).groups[0].settings
    assert settings.values == {
        "model.likelihood.learned": ("false", "true"),
        "optimizer.lr": ("0.001", "0.002"),
    }
    assert "optimizer.<wbr>lr" in page(compare([one, two]), tmp_path)
    assert compare([one]).groups[0].settings == ()


def test_settings_that_one_kind_lacks(four: Comparison) -> None:
    # of the autoencoders; a single prior differs from nothing
    (settings,) = four.groups[0].settings
    assert settings.values["model.quantizer.codebook_size"] == (MISSING, MISSING, "512")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_cuts_no_number_off(four: Comparison, width: int) -> None:
    text = terminal(four, width)
    assert all(len(line) <= width for line in text.splitlines())
    for number in ("25.00*", "0.920*", "0.2551", "441.0", "500 / 512", "1,234,567"):
        assert number in text


def test_the_page_is_whole_and_fetches_nothing(four: Comparison, tmp_path: Path) -> None:
    html = page(four, tmp_path)
    checker = check(html)
    assert checker.sources
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)
    assert not re.search(r"https?:|//cdn|@import|url\(", html)
    assert html.lstrip().startswith("<!DOCTYPE html>")
    for text in (
        "saved 245 of 441 bits/image",
        "Learning curves",
        "Rate and distortion",
        "Codebook health",
        "abc123",
    ):
        assert text in html


@pytest.mark.parametrize("kind", ["ae", "vae", "vqvae", "prior"])
def test_a_page_of_one_run(tmp_path: Path, kind: str) -> None:
    check(page(compare([write_run(tmp_path, kind)]), tmp_path))


def test_a_run_without_curves_and_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path, "vqvae")
    run.metrics_path.unlink()
    for picture in run.pictures():
        picture.unlink()
    html = page(compare([run]), tmp_path)
    check(html)
    assert "Learning curves" not in html
    assert "<img" not in html


def test_names_and_tags_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    other = write_run(tmp_path, "vqvae", name="plain")
    run = write_run(tmp_path, "vqvae", "tracking.tags=['<img src=x onerror=alert(2)>']", name=evil)
    run.write(command=["vqvae", "</code><script>alert(3)</script>"])
    comparison = compare([other, run])
    html = page(comparison, tmp_path)
    checker = check(html)
    assert checker.tags.count("script") == 2  # the page's own, and its data
    assert "x" not in checker.sources
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;img src=x" in html
    # nor is it markup
    assert "[bold]" in terminal(compare([write_run(tmp_path, "ae", name="[bold]x[/bold]")]))


def test_pictures_are_kept_as_they_are_or_shrunk_without_loss(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    original = (run.images / "samples.png").read_bytes()
    found = encode_pictures(compare([run]).rows, limit=2 * len(original))
    assert all(picture.source and "image/png" in picture.source for picture in found.values())
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 255, (40, 40), dtype=np.uint8), np.ones((2, 2), dtype=np.uint8))
    for name in ("samples", "reconstructions"):
        Image.fromarray(noise).save(run.images / f"{name}.png")
    found = encode_pictures(compare([run]).rows, limit=4200)
    sources = [picture.source for picture in found.values()]
    assert all(source and source.startswith("data:image/webp") for source in sources)
    assert {(picture.width, picture.height) for picture in found.values()} == {(80, 80)}


def noisy_run(root: Path, pictures: int) -> Run:
    """A run with pictures of so much noise that the page has them only as WebP."""
    run, rng = write_run(root, "vae"), np.random.default_rng(0)
    for number in range(pictures):
        noise = rng.integers(0, 255, (40, 40), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
        Image.fromarray(noise).save(run.images / f"picture-{number}.png")
    return run


@pytest.mark.parametrize(
    ("limit", "passes"), [(1_000_000, ["lossless"]), (190_000, [75]), (50_000, [40])]
)
def test_all_pictures_are_compressed_only_as_far_as_is_likely_to_be_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, passes: list[object]
) -> None:
    """Compressing all of them at each quality would be most of a comparison's time."""
    run = noisy_run(tmp_path, 100)
    files = {(1, path.stem): path for path in run.pictures()}
    del files[1, "samples"], files[1, "reconstructions"]
    whole = []
    fitting = pictures._fitting

    def counted(files, limit, settings):
        if len(files) > pictures.PROBES:
            whole.append(settings.get("quality", "lossless"))
        return fitting(files, limit, settings)

    monkeypatch.setattr(pictures, "_in_order", lambda rows: files.items())
    monkeypatch.setattr(pictures, "_fitting", counted)
    size = sum(path.stat().st_size + pictures.MARKUP for path in files.values())
    found = encode_pictures([], min(limit, size - 1))
    assert whole == passes
    assert (len(found) == 100) is (limit > 50_000)


def test_a_picture_that_cannot_be_opened_is_named_once_and_the_others_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = noisy_run(tmp_path, 20)
    (run.images / "picture-0.png").write_bytes(b"\x89PNG" + bytes(100))
    files = {(1, path.stem): path for path in run.pictures() if "picture" in path.stem}
    monkeypatch.setattr(pictures, "_in_order", lambda rows: files.items())
    limit = sum(path.stat().st_size + pictures.MARKUP for path in files.values()) - 1
    assert set(encode_pictures([], limit)) == {*files} - {(1, "picture-0")}
    assert capsys.readouterr().out.count("left out") == 1


def test_the_page_stays_below_two_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (400, 544, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    runs = []
    for i in range(8):
        runs.append(write_run(tmp_path, "vqvae", name=f"noise{i}", dataset="cifar10"))
        lines = [{"step": step, "val/psnr": 20 + rng.random()} for step in range(2000)]
        runs[-1].metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=1)
    for run in runs:
        for name in ("samples", "reconstructions"):
            (run.images / f"{name}.png").write_bytes((tmp_path / "noise.png").read_bytes())
    path = write_report(compare(runs), tmp_path / "report.html")
    assert path.stat().st_size <= 2_000_000
    assert "of 16 pictures are left out to keep this page small" in path.read_text()


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [0.1, 0.9], [-3.0, 1e6], [1e-9, 2e-9], [24.87, 25.31]]
)
def test_axes_hold_their_values(values: list[float]) -> None:
    axis = Axis.of(values, 0, 100)
    assert all(-0.01 <= axis.at(value) <= 100.01 for value in values)
    labels = [text for _, text in axis.labels]
    assert 2 <= len(labels) <= 9
    assert len(set(labels)) == len(labels)
