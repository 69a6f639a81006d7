"""The page in a browser: it sorts and filters, by keyboard too, fits phones and paper, and asks no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Browser
from PIL import Image
from reporting_fakes import details_of, experiment

from pipeline.reporting.page import Findings, page
from pipeline.reporting.summary import summarise

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed: apt-get install chromium"),
]
WIDTHS = (390, 820, 1440)
COLUMN = "[...document.querySelectorAll('#table tbody:last-of-type tr')].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A usual report, one of a hundred students and a thousand classes, and one of which nearly all is missing."""
    folder = tmp_path_factory.mktemp("pages")
    usual, curves = experiment(["resnet20", "resnet8x4", "tiny"], ["hard", "kd", "lfcc"])
    names = [f"student-{i:03}" for i in range(100)]
    many, others = experiment(names, ["hard", "kd"], 2, epochs=5)
    few, _ = experiment(["a"], ["kd"], 1, teacher=False)
    made = {
        "usual": Findings(usual, curves, "a: 1\n", details=details_of(usual)),
        "many": Findings(many, others, "a: 1\n", details=details_of(many, 1_000, 50_000)),
        "few": Findings(few, [], ""),
    }
    for name, findings in made.items():
        (folder / f"{name}.html").write_text(page(findings), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["usual", "many", "few"])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_every_width_and_complain_of_nothing(
    browser: Browser, files: dict[str, Path], tmp_path: Path, name: str, dark: bool
) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    for width in WIDTHS:
        browser.show(files[name], width, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        red, green, blue = map(int, browser.value("getComputedStyle(document.body).backgroundColor")[4:-1].split(", "))
        assert (red + green + blue < 200) == dark
        browser.picture(tmp_path / "page.png", most=4_000)
        with Image.open(tmp_path / "page.png") as picture:
            assert picture.width == width
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50
    assert browser.complaints == []
    assert {request.partition(":")[0] for request in browser.requests} <= {"file", "data"}


def test_a_heading_sorts_by_mouse_and_by_keyboard(browser: Browser, files: dict[str, Path]) -> None:
    rows = summarise(experiment(["resnet20", "resnet8x4", "tiny"], ["hard", "kd", "lfcc"])[0])
    browser.show(files["usual"])
    heads = browser.value("[...document.querySelectorAll('#table thead th')].map(head => head.innerText.trim())")
    place = next(i for i, head in enumerate(heads) if head.startswith("top-1"))
    button = f"document.querySelectorAll('#table thead th')[{place}].querySelector('button')"
    shown = f"{COLUMN}.map(row => Number(row.cells[{place}].dataset.value))"
    ordered = sorted((row.score.mean for row in rows), reverse=True)
    browser.value(f"{button}.click()")
    assert browser.value(shown) == pytest.approx(ordered)
    assert browser.value(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"
    browser.value(f"{button}.focus()")
    browser.press("Enter", "\r")
    assert browser.value(shown) == pytest.approx(ordered[::-1])
    assert browser.value("document.querySelectorAll('#table [aria-sort]').length") == 1
    # The next stop of the keyboard is the next heading; what is not known comes last, whichever way.
    browser.press("Tab")
    assert browser.value("document.activeElement.innerText").startswith("gain over hard")
    gains = f"{COLUMN}.map(row => row.cells[{place + 1}].dataset.value)"
    for _ in range(2):
        browser.press("Enter", "\r")
        assert browser.value(gains)[-3:] == ["", "", ""]


def test_rows_are_filtered_by_words(browser: Browser, files: dict[str, Path]) -> None:
    browser.show(files["many"])
    write = "input => {input.value = 'kd 042'; input.dispatchEvent(new Event('input'))}"
    browser.value(f"({write})(document.querySelector('#students ~ .bar input'))")
    assert browser.value(f"{COLUMN}.map(row => row.cells[0].innerText.trim().slice(-11))") == ["student-042"]
    assert browser.value("document.querySelector('#students ~ .bar [role=status]').innerText").strip() == "1 of 200"


def test_paper_has_what_is_folded_and_no_buttons(browser: Browser, files: dict[str, Path]) -> None:
    browser.show(files["usual"], media="print")
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.show(files["usual"])
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 50_000
    assert browser.value("document.querySelectorAll('details[open]').length") < browser.value(
        "document.querySelectorAll('details').length"
    )  # folded again
