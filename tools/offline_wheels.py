"""Which wheels a machine without network needs: pip resolves them here, for the Python that is there.

For each package that the machine has, pip is shown an empty wheel of a local version (`torch-2.11.0+have`) and held to
it, so that torch is never downloaded. pip reads the markers of requirements for the Python that runs it, so that all
needs are looked through again for the other one, and what is missing is asked for until nothing is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from offline_have import HAVE, Have, Target, applies, local_version, stub_versions, write_stub
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from satdifuser.errors import UserError

ROUNDS = 30  # each corrects one thing that pip said


@dataclass(frozen=True)
class Wheel:
    """A wheel's file and what it says of itself."""

    path: Path
    name: str
    version: str
    requires: tuple[Requirement, ...]

    @property
    def stub(self) -> bool:
        return self.version.endswith(HAVE)

    @classmethod
    def read(cls, path: Path) -> Wheel:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            about = HeaderParser().parsestr(archive.read(name).decode())
        requires = tuple(Requirement(line) for line in about.get_all("Requires-Dist", ()))
        return cls(path, canonicalize_name(about["Name"]), about["Version"], requires)


@dataclass(frozen=True)
class Closure:
    """What a list of requirements comes to: wheels and packages of the target that it reaches, and unmet needs."""

    wheels: frozenset[str]
    had: frozenset[str]
    unmet: tuple[tuple[Requirement, str], ...]  # and who needs it


def closure(
    requirements: Iterable[Requirement], wheels: Mapping[str, Wheel], have: Have, environment: Mapping[str, str]
) -> Closure:
    """Follow needs from wheel to wheel, with the markers of the target; what the target has is not looked into."""
    queue = [(need, "the project") for need in requirements if applies(need, environment)]
    reached: set[tuple[str, str]] = set()
    had: set[str] = set()
    unmet = []
    while queue:
        need, by = queue.pop()
        name = canonicalize_name(need.name)
        wheel = wheels.get(name)
        if wheel is None and name not in have:
            unmet.append((need, by))
            continue
        version = have[name] if wheel is None else wheel.version
        if version is not None and not need.specifier.contains(version, prereleases=True):
            unmet.append((need, by))
        if wheel is None:
            had.add(name)
            continue
        for extra in {"", *need.extras} - {extra for other, extra in reached if other == name}:
            reached.add((name, extra))
            queue += [(found, name) for found in wheel.requires if applies(found, environment, extra)]
    return Closure(frozenset(name for name, _ in reached), frozenset(had), tuple(unmet))


def resolve(
    requirements: Sequence[Requirement],
    have: Have,
    pins: Mapping[str, str],
    target: Target,
    work: Path,
    say: Callable[[str], None] = print,
) -> tuple[list[Wheel], dict[str, str | None]]:
    """The wheels that the target lacks, in a folder below `work`, and what they and the requirements expect of it.

    A package of the target that does not do for a requirement is replaced by a wheel; a line says so.
    """
    stubs, kept = work / "stubs", dict(have)
    stubs.mkdir(parents=True)
    files = {name: write_stub(stubs, name, version) for name, version in stub_versions(have, pins).items()}
    asked = [need for need in requirements if applies(need, target.environment())]
    for number in range(ROUNDS):
        folder = work / f"round-{number}"
        done = _download(asked, kept, pins, target, stubs, folder)
        if done.returncode:
            conflicts = set(re.findall(r"\(constraint\) ([\w.-]+)==", done.stdout))
            unfit = min(conflicts & files.keys() - {"torch"}, default=None)
            if unfit is not None:
                say(f"{unfit} of the target will not do ({'; '.join(reasons(done))}): the bundle brings it")
                files.pop(unfit).unlink()
                kept.pop(unfit)
            elif not _build_missing(done, conflicts, pins, target, stubs):
                raise UserError(f"pip finds no wheels for Python {target.python}: {failure(done)}")
            continue
        wheels = {wheel.name: wheel for wheel in map(Wheel.read, folder.glob("*.whl")) if not wheel.stub}
        found = closure(requirements, wheels, kept, target.environment())
        if not found.unmet:
            return [wheels[name] for name in sorted(found.wheels)], {name: kept[name] for name in sorted(found.had)}
        new = [need for need, _ in found.unmet if need not in asked]
        if not new:
            words = ", ".join(f"{need} (for {by})" for need, by in found.unmet)
            raise UserError(f"no wheel for Python {target.python} meets {words}: install it there (--have)")
        asked += new
    raise UserError(f"some need was left after {ROUNDS} rounds of pip: bring less with --with")


def _download(
    asked: Sequence[Requirement], have: Have, pins: Mapping[str, str], target: Target, stubs: Path, folder: Path
) -> Any:
    """Ask pip for a set of wheels, in which the stubs are where they are not left behind."""
    held = pins | {name: local_version(version) for name, version in stub_versions(have, pins).items()}
    constraints = stubs.parent / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in held.items()))
    words = ["download", "--only-binary=:all:", *target.words(), "-c", str(constraints)]
    return run_pip(*words, "--find-links", str(stubs), "-d", str(folder), *map(_plain, asked))


def _plain(need: Requirement) -> str:
    """Without its marker, which pip would read for the Python that runs it."""
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    return f"{need.name}{extras}{need.specifier}"


def _build_missing(done: Any, conflicts: Iterable[str], pins: Mapping[str, str], target: Target, folder: Path) -> bool:
    """Build what has sources on the index and no wheel for any Python; False where it is not that."""
    nowhere = re.search(r"No matching distribution found for ([\w.-]+)(\S*)", done.stdout)
    names = [f"{name}=={pins[name]}" for name in sorted(conflicts) if name in pins]
    names += ["".join(nowhere.groups())] if nowhere else []
    if unreachable(done):
        return False
    for name in names:
        aside = folder.parent / "built"
        shutil.rmtree(aside, ignore_errors=True)
        words = ("download", "--no-deps", "--only-binary=:all:", *target.words())
        if run_pip(*words, "-d", str(aside), name).returncode == 0:
            continue  # there are wheels: it is something else
        if run_pip("wheel", "--no-deps", "--no-binary", name.partition("=")[0], "-w", str(aside), name).returncode:
            continue
        (wheel,) = aside.glob("*.whl")
        if not wheel.name.endswith("-none-any.whl"):
            raise UserError(f"{name} has no wheel, and is compiled: install it on the target (--have)")
        if not (folder / wheel.name).exists():
            wheel.rename(folder / wheel.name)
            return True
    return False


def run_pip(*words: str) -> Any:
    """Run this Python's pip, its output in one text."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def reasons(done: Any) -> list[str]:
    """What pip says of who wants what."""
    found = re.findall(r"(?m)^ +(\S+ \S+ depends on .+|The user requested (?!\(constraint\)).+)$", done.stdout)
    return [line.replace("The user requested", "the project needs").strip() for line in dict.fromkeys(found)]


def unreachable(done: Any) -> bool:
    """Whether pip gave an index up after trying again and again."""
    return "Retry(total=0" in done.stdout or "Could not fetch URL" in done.stdout


def failure(done: Any) -> str:
    """The line that says why pip stopped."""
    if unreachable(done):
        return "it reaches no package index from here: run this where it does"
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR: ") and "Impossible" not in line]
    last = (errors or done.stdout.strip().splitlines() or ["it says nothing"])[-1]
    return " ".join(dict.fromkeys([last.removeprefix("ERROR: "), *reasons(done)]))
