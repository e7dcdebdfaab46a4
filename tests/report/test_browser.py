"""The page in a real browser: no errors, no requests, and a table that sorts and filters."""

from __future__ import annotations

HEADS = "Array.from(document.querySelectorAll('#rows thead th'))"
COLUMN = f"""(name) => {{
  const at = {HEADS}.findIndex((head) => head.textContent.trim() === name);
  const rows = Array.from(document.querySelectorAll('#rows tbody tr')).filter((row) => !row.hidden);
  return rows.map((row) => row.cells[at].dataset.value ?? row.cells[at].textContent);
}}"""


def click(browser, name):
    browser.evaluate(f"{HEADS}.find((head) => head.textContent.trim() === '{name}').querySelector('button').click()")


def column(browser, name):
    return browser.evaluate(f"({COLUMN})('{name}')")


def sorting(browser, name):
    return browser.evaluate(f"{HEADS}.find((head) => head.textContent.trim() === '{name}').getAttribute('aria-sort')")


def type_words(browser, words):
    browser.evaluate(
        f"(() => {{ const box = document.getElementById('words'); box.value = '{words}';"
        " box.dispatchEvent(new Event('input')); })()"
    )
    return browser.evaluate("document.getElementById('count').textContent.trim()")


def test_the_page_works_in_a_browser(written, rich, open_page, tmp_path) -> None:
    browser = open_page(written / "report.html")
    total = len(rich.rows)

    for name in ("score", "trainable", "FLOPs", "budget"):
        values = sorted(float(value) for value in column(browser, name))
        click(browser, name)
        assert sorting(browser, name) == "ascending"
        assert [float(value) for value in column(browser, name)] == values
        click(browser, name)
        assert sorting(browser, name) == "descending"
        assert [float(value) for value in column(browser, name)] == values[::-1]

    click(browser, "extraction")  # None of a ViT: last in both directions
    assert column(browser, "extraction")[-1] == ""
    click(browser, "extraction")
    assert column(browser, "extraction")[-1] == ""
    assert sorting(browser, "score") is None
    click(browser, "model")
    assert column(browser, "model") == sorted(column(browser, "model"), key=lambda name: name.strip("<").lower())

    assert type_words(browser, "VIT segm") == f"3 of {total} rows"
    assert set(column(browser, "model")) == {"deflect ViT-S"}
    assert type_words(browser, "vit nothing") == f"0 of {total} rows"
    browser.evaluate("document.getElementById('clear').click()")
    assert len(column(browser, "model")) == total
    assert column(browser, "rank")[:5] == ["1", "2", "3", "4", "5"]
    for key, choice, left in (("task", "classification", 15), ("budget", "10 %", 5), ("model", "gw on diffusion", 1)):
        browser.evaluate(
            f"(() => {{ const one = document.querySelector('select[data-key={key}]');"
            f" one.value = Array.from(one.options).find((o) => o.textContent.trim() === '{choice}').value;"
            " one.dispatchEvent(new Event('change')); })()"
        )
        assert browser.evaluate("document.getElementById('count').textContent.trim()") == f"{left} of {total} rows"
    browser.evaluate("document.getElementById('clear').click()")

    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate("Array.from(document.images).every((one) => one.complete && one.naturalWidth > 0)")
    browser.call("Emulation.setDeviceMetricsOverride", width=420, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    inside = (
        "Array.from(document.querySelectorAll('#rows td.score, table.scores td')).every((one) =>"
        " { const box = one.getBoundingClientRect(); return box.width > 0 && box.left >= 0 && box.right <= 420; })"
    )
    assert browser.evaluate(inside)  # no score is behind a column or to be scrolled to
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="screen", features=dark)
    shown = "getComputedStyle(document.querySelector('.chart svg text')).fill"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    assert browser.evaluate(shown) == "rgb(230, 230, 227)"
    browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.getElementById('filters')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="screen")
    picture = browser.save("Page.captureScreenshot", tmp_path / "report.png")
    assert picture.stat().st_size > 20_000
    assert browser.save("Page.printToPDF", tmp_path / "report.pdf").stat().st_size > 50_000
    assert browser.problems == []


def test_the_browser_does_report_errors_and_requests(open_page, tmp_path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<script>missing.call()</script><img src='http://127.0.0.1:9/x.png'><p>console</p>")
    browser = open_page(bad)
    found = {method for method, _ in browser.problems}
    assert {"Runtime.exceptionThrown", "Network.requestWillBeSent"} <= found
