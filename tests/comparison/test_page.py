"""The comparison's page in a browser: every thing that a reader can do to it is done.

Skipped without Debian's Chromium (`apt-get install chromium`) or playwright (the extra `dev`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from run_folders import figure, page, write_run

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.pictures import grid_image
from vqvae_lightning.signals.clips import PAUSE, wav
from vqvae_lightning.signals.signal import Clip

pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra `dev`")
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"
)
EVIL = "<img src=x onerror=alert(1)>\"'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Without a sandbox, which root in a container cannot have.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of five runs: two VAEs of one budget, a shorter AE, and a VQ-VAE with its prior."""
    root = tmp_path_factory.mktemp("page")
    runs = [
        write_run(root, "ae", "trainer.steps=250", name="short-ae"),
        write_run(root, "vae", name="vae-one", psnr=21.0),
        write_run(root, "vae", name=f"vae-two {EVIL}", psnr=22.0),
        write_run(root, "vqvae", name="tok"),
        write_run(root, "prior", bits_per_code=4.0),
    ]
    for number, run in enumerate(runs):
        lines = [
            {
                "step": step,
                "train/loss": 10.0 ** (number - step / 50),
                "val/bits_per_code" if number == 4 else "val/psnr": 10.0 + step,
                f"own/{EVIL}": 1.0,
            }
            for step in range(0, 100, 10)
        ]
        run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for path in run.pictures():
            grid_image(torch.zeros(8, 1, 28, 28), 4).save(path)
            path.with_suffix(".wav").write_bytes(wav([Clip(torch.zeros(8000).numpy(), 8000)]))
    runs[1].write(generation=[figure("normal", 7.0), figure("mixture", 3.0)])
    comparison = compare(runs)
    page(comparison, root)
    return root / "report.html"


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    """The page at 1280 × 800; nothing may be fetched, refused by its policy, or raised."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    found = context.new_page()
    faults: list[str] = []
    found.on("console", lambda message: faults.append(message.text))
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("dialog", lambda dialog: faults.append(dialog.message))
    addresses: list[str] = []
    found.on("request", lambda request: addresses.append(request.url))
    found.goto(file.as_uri())
    yield found
    context.close()
    assert faults == []
    assert [url for url in addresses if not url.startswith("data:")] == [file.as_uri()]


def edge(found: Locator, name: str) -> float:
    """x, y, width or height of an element."""
    box = found.bounding_box()
    assert box is not None
    return {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}[name]


def names(opened: Page) -> list[str]:
    """Names of the runs that the table of results shows, in its order."""
    rows = opened.locator("table.sortable").first.locator("tbody tr:not([hidden])")
    return rows.locator("th .name").all_inner_texts()


def best(opened: Page) -> list[str]:
    """Values of PSNR that are marked as the best."""
    return opened.locator("table.sortable").first.locator("td:nth-child(3).best").all_inner_texts()


def switch(opened: Page, *numbers: int) -> None:
    for number in numbers:
        opened.locator(f"[data-toggle='{number}']").click()


def test_a_run_that_is_switched_off_is_gone_everywhere_and_comes_back(
    opened: Page,
) -> None:
    of_run = opened.locator("[data-run='4']")
    everywhere = of_run.count()
    assert everywhere > 6  # table, ledger, points, pictures, settings, record, …
    switch(opened, 4)
    assert opened.locator("[data-run='4']:not([hidden])").count() == 0
    assert opened.locator(".plot").first.locator("[data-line='4']").count() == 0
    assert opened.get_by_text("4 of 5 shown").is_visible()
    switch(opened, 4)
    assert opened.locator("[data-run='4']:not([hidden])").count() == everywhere
    assert opened.locator(".plot").first.locator("[data-line='4']").count() == 1


def test_a_best_value_is_named_as_soon_as_only_equal_budgets_are_shown(
    opened: Page,
) -> None:
    notice = opened.locator(".unequal")
    assert notice.is_visible()
    assert best(opened) == []
    opened.get_by_role("button", name="None", exact=True).click()
    assert names(opened) == []
    switch(opened, 2, 3)  # the two VAEs
    assert notice.is_hidden()
    assert best(opened) == ["22.00"]
    opened.get_by_role("button", name="All", exact=True).click()
    assert notice.is_visible()
    assert best(opened) == []


def test_tables_sort_both_ways_and_what_is_missing_stays_last(opened: Page) -> None:
    table = opened.locator("table.sortable").first
    button = table.get_by_role("button", name="PSNR")
    button.click()
    two = f"vae-two {EVIL}"
    assert names(opened) == ["tok", "short-ae", two, "vae-one", "prior-run"]
    button.press("Enter")
    assert names(opened) == ["vae-one", two, "short-ae", "tok", "prior-run"]
    samplers = opened.locator("table.sortable").last
    samplers.get_by_role("button", name="Fréchet").click()
    assert samplers.locator("tbody tr td:nth-child(3)").all_inner_texts() == ["7.00", "3.00"]


def test_any_logged_measure_can_be_drawn_over_steps_or_images(opened: Page) -> None:
    chart = opened.locator("figure.drawn").first
    choice = chart.get_by_label("Measure")
    logged = ["val/psnr", "val/bits_per_code", "train/loss", f"own/{EVIL}"]
    assert choice.locator("option").evaluate_all("all => all.map(o => o.value)") == logged
    choice.select_option(f"own/{EVIL}")
    assert chart.locator("code").inner_text().strip() == f"own/{EVIL}"
    assert chart.locator("polyline").count() == 5
    choice.select_option("train/loss")
    ticks = chart.locator("text.tick")
    assert "step" in ticks.all_text_contents()
    linear = chart.locator("polyline").first.get_attribute("points")
    opened.get_by_label("logarithmic").check()
    assert chart.locator("polyline").first.get_attribute("points") != linear
    opened.get_by_label("Over").select_option("images")
    assert "images seen" in ticks.all_text_contents()
    charts = opened.locator("figure.drawn").count()
    opened.get_by_role("button", name="Add a measure").click()
    assert opened.locator("figure.drawn").count() == charts + 1
    opened.get_by_role("button", name="Remove this chart").last.click()
    assert opened.locator("figure.drawn").count() == charts


def test_values_are_under_the_pointer_and_under_the_keys(opened: Page) -> None:
    chart = opened.locator("figure.drawn").first
    chart.get_by_label("Measure").select_option("train/loss")
    plot, tip = chart.locator("svg"), opened.locator(".tip")
    plot.hover(position={"x": 60, "y": 50})
    for text in ("vae-one", EVIL, "10,000", "step 0"):  # 10⁴, the prior's at step 0
        assert text in tip.inner_text()
    plot.press("ArrowRight")
    plot.press("ArrowRight")
    assert "step 10" in tip.inner_text()
    plot.press("End")
    assert "step 90" in tip.inner_text()
    plot.press("Escape")
    assert tip.is_hidden()
    opened.locator("path.dot[data-tip]").first.hover()
    assert "bits" in tip.inner_text()
    opened.locator("rect.distortion[data-tip]").first.hover()
    assert "nats/dim" in tip.inner_text()


def test_pictures_have_labelled_rows_and_are_enlarged_by_click_and_by_key(
    opened: Page,
) -> None:
    dialog = opened.get_by_role("dialog")
    small = opened.locator("figure.picture").first
    width = edge(small.locator("img"), "width")
    small.locator("img").click()
    assert edge(dialog.locator("img"), "width") > width
    assert dialog.locator(".rows li").all_inner_texts() == ["original", "reconstruction"]
    assert "short-ae" in dialog.inner_text()
    opened.keyboard.press("ArrowRight")
    assert "vae-one" in dialog.inner_text()
    opened.keyboard.press("Escape")
    assert dialog.count() == 0
    small.locator("button").press("Enter")
    assert dialog.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert dialog.count() == 0


def test_what_is_heard_can_be_played_below_its_picture(opened: Page) -> None:
    heard = opened.locator("figure.picture audio")
    assert heard.count() == opened.locator("figure.picture").count() > 5
    # It is waited for until the time goes on.
    heard.first.evaluate(
        "audio => new Promise(goes => { audio.ontimeupdate = () => goes(); audio.play(); })"
    )
    assert heard.first.evaluate("audio => audio.error") is None
    assert heard.first.evaluate("audio => audio.duration") == pytest.approx(1 + PAUSE)
    small = opened.locator("figure.picture").first
    assert edge(small.locator("img"), "y") < edge(heard.first, "y")
    assert "each recording, then its reconstruction" in small.inner_text()


def test_it_fits_screens_from_a_phone_to_a_wall_and_uses_them(opened: Page) -> None:
    widths = {}
    for width in (360, 480, 1280, 2560):
        opened.set_viewport_size({"width": width, "height": 800})
        scroll = opened.evaluate("document.documentElement.scrollWidth")
        assert scroll <= width, width
        widths[width] = edge(opened.locator("table.sortable").first, "width")
    assert widths[2560] > 2000
    assert edge(opened.locator(".runs"), "x") < 100  # beside the sections


def test_a_chart_that_is_not_yet_drawn_again_fits_a_window_that_shrank(
    browser: Browser, file: Path
) -> None:
    # Charts are drawn again a frame after the window changed. Here that frame never comes.
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(
        "ResizeObserver = class { constructor(f) { this.f = f; } observe() { this.f(); } }"
    )
    found = context.new_page()
    found.goto(file.as_uri())
    plot = found.locator(".plot svg").first
    found.set_viewport_size({"width": 360, "height": 800})
    assert int(plot.get_attribute("width") or 0) > 360
    assert found.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_without_scripts_the_page_is_whole_and_has_no_dead_controls(
    browser: Browser, file: Path
) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    found = context.new_page()
    found.goto(file.as_uri())
    assert names(found)[0] == "short-ae"
    assert found.locator(".chart polyline.line").count() > 2
    assert found.locator("figure.picture img").first.is_visible()
    assert not [box for box in found.locator("input, select").all() if box.is_visible()]
    context.close()


def test_a_script_that_is_not_the_pages_own_is_not_obeyed(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.html"
    foreign = "<script>document.title='other'</script><img src=x onerror=\"document.title='b'\">"
    other.write_text(file.read_text().replace("</main>", f"{foreign}</main>"))
    found = browser.new_page()
    found.goto(other.as_uri())
    assert found.title() == "5 runs compared"
    assert found.locator("html.js").count() == 1  # its own ran
    found.close()
