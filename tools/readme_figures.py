"""The README's pictures of the demo's report: its first page, and the test scenes of its first task.

    make demo && python tools/readme_figures.py

Needs Chromium or Chrome on the path; writes docs/figures/report.png and docs/figures/segmentation.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# the ranking at all labels, the curves, and the first task's costs
SHORT = """(() => {
    const budget = document.querySelector('select[data-key=budget]');
    budget.value = Array.from(budget.options).at(-1).value;
    budget.dispatchEvent(new Event('change'));
    document.getElementById('ranks').style.display = 'none';
})()"""
TOP = """({
    x: 0, y: 0, width: innerWidth,
    height: document.querySelector('#costs figcaption').getBoundingClientRect().bottom + scrollY + 10,
})"""
SCENES = """(() => {
    const shots = document.querySelector('#predictions figure');
    const table = shots.querySelector('table').getBoundingClientRect();
    const end = shots.querySelector('.legend').getBoundingClientRect().bottom;
    return {x: table.left - 8, y: table.top + scrollY, width: table.width + 16, height: end - table.top};
})()"""


def devtools() -> Any:
    """The tests' client of Chromium."""
    spec = importlib.util.spec_from_file_location("browser", ROOT / "tests" / "report" / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", default="demo-output", help="the folder that the demo wrote")
    parser.add_argument("--output", default=str(ROOT / "docs" / "figures"))
    args = parser.parse_args()
    tools = devtools()
    binary = tools.find()
    if binary is None:
        raise SystemExit(f"no browser: install one of {', '.join(tools.NAMES)}")
    with tempfile.TemporaryDirectory() as profile:
        browser = tools.Browser(binary, Path(profile), 1240, 900)
        try:
            browser.open((Path(args.demo) / "report.html").resolve())
            browser.call("Emulation.setScrollbarsHidden", hidden=True)
            browser.evaluate(SHORT)
            for name, area in (("report", TOP), ("segmentation", SCENES)):
                clip = {**browser.evaluate(area), "scale": 1}
                path = Path(args.output) / f"{name}.png"
                browser.save("Page.captureScreenshot", path, clip=clip, captureBeyondViewport=True)
                print(f"wrote {path}")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
