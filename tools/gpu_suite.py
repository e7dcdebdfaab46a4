"""Everything that wants a GPU, in the order of its value, within so many minutes.

Each part runs as a process of its own with a time limit; what it has measured is kept at once, a part that fails is
recorded and the rest goes on, and the same command goes on with what is not done. Into --out come suite.json,
suite.md, log.txt and the checkpoint of the pretraining in files of at most 16 MB, which the same command on another
machine, with the same --out, goes on from.

    python tools/gpu_suite.py --dry-run                        # the parts, and what each needs
    python tools/gpu_suite.py --minutes 12 --out results
    python tools/gpu_suite.py --minutes 12 --out results --data EuroSAT_RGB --parts pretraining
    python tools/gpu_suite.py --minutes 2 --tiny --out tiny    # all of it on toy sizes, on a CPU too
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checkpoint_parts import INDEX, join, split, state_of
from gpu_parts import IMAGES, MINUTES, PARTS, SCENES, TINY, TINY_SCENES, Part
from measuring import as_markdown, head, machine, row, write_json

from satdifuser.engine.run import RunFolder

TOOLS = Path(__file__).resolve().parent
LEAST = 5.0  # seconds: a part is not begun with less
PACKING = 30.0  # seconds that beginning, the last look and the checkpoint's parts may take
WORKERS = 8  # processes at most that read the pretraining's images
NEAREST = 12  # tests that are listed for coming near to their tolerance
LOG_LINES = 150  # of each part, in log.txt
DONE, CUT, FAILED, NO_TIME = "done", "cut off by its time limit", "failed", "no time left"
SO_FAR = "done so far"  # of a pretraining that the same command goes on with


class Suite:
    """The parts' results in `out`, and their working files in `work`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out, self.work = args.out.resolve(), (args.work or args.out.with_name(args.out.name + "-work")).resolve()
        self.tiny, self.data, self.minutes = args.tiny, args.data and args.data.resolve(), args.minutes
        self.end = time.monotonic() + 60 * args.minutes * (2 if args.tiny else 1)
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        file = self.out / "suite.json"
        self.results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        for name in args.again:
            self.results.pop(name, None)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, part: Part) -> None:
        """Do a part that is not done, and keep what came of it."""
        if self.results.get(part.name, {}).get("status") == DONE:
            print(f"{part.name}: done before", flush=True)
            return
        limit = self.left if part.seconds is None else min(self.left, part.seconds * max(1.0, self.minutes / MINUTES))
        if self.tiny:
            limit = self.left
        if limit < LEAST:
            self.results[part.name] = {"status": NO_TIME, "tables": []}
        else:
            began = time.monotonic()
            when = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                found = self._pretrain(part, limit) if part.kind == "pretraining" else self._do(part, limit)
            except Exception as error:  # a file of its results that is not as expected, say
                found = {"status": f"{FAILED}: {type(error).__name__}: {error}".splitlines()[0], "tables": []}
            seconds = round(time.monotonic() - began, 1)
            self.results[part.name] = {**found, "seconds": seconds, "time": when, "machine": machine()}
        write_json(self.out / "suite.json", self.results)
        (self.out / "suite.md").write_text(report(self.results), encoding="utf-8")
        kept = self.results[part.name]
        print(f"{part.name}: {kept['status']} ({kept.get('seconds', 0):.0f} s)", flush=True)

    def _do(self, part: Part, limit: float, *more: str) -> dict[str, Any]:
        json_file = self.work / f"{part.name}.json"
        json_file.unlink(missing_ok=True)
        tests = self.work / "tests.xml"
        tests.unlink(missing_ok=True)
        command = [*self._command(part), *more]
        status = self._process(part.name, command, limit)
        tables: list[Any] = []
        if json_file.is_file():
            kept = json.loads(json_file.read_text())
            tables = [{**table, "about": kept["about"]} for table in kept["tables"]]
        elif part.kind == "tests" and tests.is_file():
            tables = test_tables(tests)
        return {"status": status, "command": " ".join(command[1:]), "tables": tables}

    def _command(self, part: Part) -> list[str]:
        words = TINY[part.name] if self.tiny else part.command
        places = {"python": sys.executable, "tools": TOOLS, "tests": TOOLS.parent / "tests", "work": self.work}
        return [word.format(**places, json=self.work / f"{part.name}.json") for word in words]

    def _process(self, name: str, command: list[str], limit: float) -> str:
        """Run it to its end or for so many seconds, and keep the end of what it says."""
        known = dict(os.environ)
        path = [str(TOOLS.parent), known.get("PYTHONPATH", "")]  # satdifuser from here, if it is not installed
        known["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        known.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.work / "inductor"))  # what was compiled is not again
        if name == "tests":
            known.setdefault("OMP_NUM_THREADS", "4")
        if self.tiny:
            known.setdefault("SATDIFUSER_TEST_DEVICE", "cpu")
            known.setdefault("OMP_NUM_THREADS", "1")
        log = self.work / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=self.work, env=known, start_new_session=True
            )
            try:
                code = process.wait(limit)
                status = DONE if code == 0 else f"{FAILED} with code {code}"
            except subprocess.TimeoutExpired:
                status = CUT
            finally:
                _end(process)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        with (self.out / "log.txt").open("a", encoding="utf-8") as file_out:
            file_out.write("\n".join([f"== {name}: {status}", " ".join(command), *lines, ""]) + "\n")
        return status

    def _pretrain(self, part: Part, limit: float) -> dict[str, Any]:
        """Go on with the run that is here or in `out`, for the time that there is, and leave it in `out`."""
        run = self.work / "pretrain"
        if (self.out / INDEX).is_file():
            join(self.out, run)
        before = _steps(run)
        data = IMAGES if self.data else TINY_SCENES if self.tiny else SCENES
        if self.data:
            link = self.work / "images"
            link.unlink(missing_ok=True)
            link.symlink_to(self.data)
        minutes = max(LEAST, limit - PACKING) / 60
        workers = 0 if self.tiny else min(WORKERS, os.cpu_count() or 1)
        try:
            found = self._do(part, limit, *data, f"recipe.minutes={minutes:.2f}", f"recipe.workers={workers}")
        finally:  # also if the suite is ended
            steps = _steps(run)
            if steps:
                split(run, self.out)
        wanted = next(int(word.partition("=")[2]) for word in self._command(part) if word.startswith("recipe.steps="))
        if found["status"] == DONE and steps < wanted:
            found["status"] = f"{SO_FAR}: {steps} of {wanted} steps"
        return {**found, "tables": pretraining_tables(run, before, steps, self._images())}

    def _images(self) -> str:
        if not self.data:
            return "built-in scenes"
        count = sum(1 for path in self.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"))
        return f"{count} images and built-in scenes"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and what it started; it may take some seconds to tidy up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue


def _steps(run: Path) -> int:
    last = RunFolder(run).last
    return int(state_of(last)["step"]) if last.is_file() else 0


def test_tables(path: Path) -> list[dict[str, Any]]:
    """Of a JUnit file: how many tests there were, and which failed with what."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = [(case, bad) for case in cases for kind in ("failure", "error") if (bad := case.find(kind)) is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    numbers = [len(cases), len(cases) - len(failed) - len(skipped), len(failed), len(skipped)]
    columns = dict.fromkeys(("tests", "passed", "failed", "skipped"), "d")
    tables: list[dict[str, Any]] = [{"title": "tests marked gpu", "columns": columns, "rows": [numbers]}]
    if failed:
        rows = [[case.get("name"), (bad.get("message") or "").splitlines()[0][:160]] for case, bad in failed]
        tables.append({"title": "failed", "columns": {"test": "", "why": ""}, "rows": rows})
    if near := nearest(cases):
        columns = {"test": "", "of its tolerance": ".0%", "off by": ".1e", "allowed": ".0e", "what": ""}
        tables.append({"title": "nearest to their tolerance", "columns": columns, "rows": near})
    return tables


def nearest(cases: Sequence[ElementTree.Element]) -> list[list[Any]]:
    """The tests that came nearest to their tolerance, each with its nearest value (tests/gpu/conftest.py notes it)."""
    found = []
    for case in cases:
        noted = [ast.literal_eval(p.get("value", "")) for p in case.iter("property") if p.get("name") == "agreement"]
        if noted:
            part, share, allowed, what = max(noted)
            found.append([case.get("name"), part, share, allowed, what])
    return sorted(found, key=lambda line: -line[1])[:NEAREST]


def pretraining_tables(run: Path, before: int, steps: int, images: str) -> list[dict[str, Any]]:
    """How far the run has got, and its loss on held-out images."""
    rows = RunFolder(run).rows()
    looks = [line for line in rows if any(name.startswith("val/") for name in line)]
    levels = [name for name in (looks[-1] if looks else {}) if name.startswith("val/")]
    columns = {"images": "", "steps before": "d", "steps now": "d", "training loss": ".4f"}
    loss = sum(line["loss"] for line in rows[-100:]) / max(1, len(rows[-100:]))
    numbers = [images, before, steps, loss, *(looks[-1][name] for name in levels)]
    columns |= {f"loss at {name.removeprefix('val/')}": ".4f" for name in levels}
    return [{"title": "pretraining", "columns": columns, "rows": [numbers]}]


def report(results: dict[str, Any]) -> str:
    """All of it as Markdown: the parts, then their tables."""
    lines = ["# What the GPU suite measured", "", *head(["part", "status", "seconds", "machine", "when"])]
    columns = {"part": "", "status": "", "seconds": ".0f", "machine": "", "when": ""}
    for name, part in results.items():
        lines.append(row(columns, [name, part["status"], *(part.get(key) for key in ("seconds", "machine", "time"))]))
    for name, part in results.items():
        for table in part["tables"]:
            about = table.get("about", {"machine": part["machine"]})
            named = {key: value for key, value in about.items() if key != "matmul TFLOP/s"}
            words = ", ".join(str(v) if key in ("machine", "what") else f"{key} {v}" for key, v in named.items())
            rates = ", ".join(f"{word} {rate:g}" for word, rate in about.get("matmul TFLOP/s", {}).items())
            words += f"; matrix products reach {rates} TFLOP/s" if rates else ""
            lines += ["", f"## {name}: {as_markdown(table)}", "", f"({words})"]
    return "\n".join(lines) + "\n"


def dry_run(tiny: bool, minutes: float) -> None:
    columns = {"part": "", "seconds": ".0f", "what": "", "needs": ""}
    print("What a part needs of the card is an estimate.\n\n" + "\n".join(head(columns)))
    for part in PARTS:
        limit: Any = "what is left" if part.seconds is None else part.seconds * max(1.0, minutes / MINUTES)
        print(row(columns, [part.name, limit, part.what, part.needs]))
    print()
    for part in PARTS:
        words = TINY[part.name] if tiny else part.command
        print(f"{part.name}: {' '.join(words[1:])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--out", type=Path, default=Path("gpu-suite"), help="where results are kept")
    parser.add_argument("--work", type=Path, help="for stores, runs and logs (default: beside --out, OUT-work)")
    parser.add_argument("--parts", nargs="+", default=names, choices=names, metavar="PART", help="these alone")
    parser.add_argument("--again", nargs="+", default=[], choices=names, metavar="PART", help="although they are done")
    parser.add_argument("--data", type=Path, help="images to pretrain on: a folder for each class")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try it out: may take twice --minutes")
    parser.add_argument("--dry-run", action="store_true", help="say what each part needs, and do nothing")
    args = parser.parse_args()
    if args.dry_run:
        dry_run(args.tiny, args.minutes)
        return 0
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data {args.data}: there is no such folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its parts end with it
    print(f"{machine()}: {args.minutes:g} minutes", flush=True)
    suite = Suite(args)
    chosen = [part for part in PARTS if part.name in args.parts]
    for part in chosen:
        suite.run(part)
    missed = [part.name for part in chosen if not suite.results[part.name]["status"].startswith(DONE)]
    print(f"wrote {suite.out / 'suite.md'}" + (f"; not done: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
