"""One folder that installs and runs satdifuser on a machine that sees no network but has torch.

    pip freeze > have.txt                                                     # there
    python tools/offline_bundle.py bundle --python 3.12 --have have.txt       # here
    PYTHON=python3.12 sh bundle/install.sh env                                # there

docs/offline.md says what is in it and what is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from offline_data import write_parts
from offline_have import Target, read_have, read_pins
from offline_wheels import Wheel, failure, resolve, run_pip
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from satdifuser.errors import UserError
from satdifuser.optional import OPTIONAL

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = "bundle.json"
# pip installs the rest, also where a Python has none; the others run tools/gpu_suite.py and the tests there
BESIDES = ("pip", "pytest>=8.3", "pytest-xdist>=3.6")
COPIED = ("tools", "tests", "pyproject.toml")
MARGIN = 2**18  # bytes left for the manifest and the README when data fill the rest

INSTALL = """#!/bin/sh
# Installs this bundle: install.sh [ENV] [--project CHECKOUT] [--data FOLDER]; PYTHON says which Python (README.txt).
python=${{PYTHON:-python3}}
here=$(cd "$(dirname "$0")" && pwd)
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || {{
    echo "install.sh: $python does not run: say which Python {python} is to be used, PYTHON=/path/to/python{python}" >&2
    exit 2
}}
if [ "$found" != {python} ]; then
    echo "install.sh: $python is Python $found and the bundle is for {python}: say PYTHON=/path/to/python{python}" >&2
    exit 2
fi
exec "$python" "$here/install.py" "$@"
"""

README = """satdifuser on a machine without network
========================================
Made for Python {python} with torch {torch} on Linux {machine} (glibc 2.28 or newer). It needs that Python
with that torch, what else have.txt lists, and some {size:.0f} MB of disk. Nothing is downloaded.

    PYTHON=/path/to/python{python} sh install.sh env{project}
    env/bin/satdifuser doctor

wheels/            what is installed: requirements.txt lists it, bundle.json has the size and the SHA-256 of every file
have.txt           what is expected of the Python above, checked by install.sh{others}

The environment sees the packages of the Python that made it: do not move either. To remove it, remove the folder env.
"""

OTHERS = """
tools/, tests/     of the checkout, to be run from this folder with env/bin/python"""
DATA = """
data/              images in parts: each is a fair share of every class, any of them make a data set. install.sh
                   unpacks those that are here"""


def wanted(project: Mapping[str, Any], names: Sequence[str]) -> list[Requirement]:
    """What the bundle is to meet: the project's requirements less the optional ones, and `names` (or all)."""
    needs = {canonicalize_name(need.name): need for need in map(Requirement, project["dependencies"])}
    if "all" in names:
        names = [*(name for name in names if name != "all"), *(name for name in OPTIONAL if name in needs)]
    found = [need for name, need in needs.items() if name not in OPTIONAL]
    for name in names:
        try:
            need = Requirement(name)
        except InvalidRequirement:
            raise UserError(f"--with {name}: no package is called that: give all, or {', '.join(OPTIONAL)}") from None
        known = needs.get(canonicalize_name(need.name))
        found.append(known if known is not None and not need.specifier else need)
    return [*found, *map(Requirement, BESIDES)]


def torch_version(told: str | None, have: Mapping[str, str | None]) -> str:
    """The target's torch: as told, as listed, or that of this Python; two that differ are an error."""
    listed = have.get("torch")
    if told and listed and minor(told) != minor(listed):
        raise UserError(f"--torch is {told} and --have lists torch {listed}: leave --torch out, or correct the list")
    if listed or told:
        return listed if listed else told + ".0" * (told.count(".") == 1) if told else ""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise UserError("no torch is installed here to go by: say which one the other machine has, --torch") from None


def minor(version: str) -> str:
    """Major and minor version: `2.11` of `2.11.0+cu130`."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def check_place(out: Path, overwrite: bool) -> None:
    """An earlier bundle is replaced if one says so; anything else is left alone."""
    if not (out.exists() or out.is_symlink()):
        return
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out} is there and is no bundle: give a folder that is not there yet")
    if not overwrite:
        raise UserError(f"{out} is an earlier bundle: give another folder, or --overwrite")


def check_limit(folder: Path, limit: float) -> int:
    """The bytes of all files; more than the limit (MiB) is an error that says what is large."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > limit * 2**20:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        words = ", ".join(f"{path.name} {sizes[path] / 2**20:.1f}" for path in largest)
        raise UserError(
            f"the bundle takes {total / 2**20:.1f} MiB, over the limit of {limit:g} (largest: {words}): bring less with"
            " --with, list more of what the target has with --have, or give a larger --limit-mib"
        )
    return total


def manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle is for, and size and SHA-256 of each of its files."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"format": 1, **about, "files": files}


def gather_wheels(args: argparse.Namespace, folder: Path, work: Path) -> dict[str, Any]:
    """Fill `wheels/`, `requirements.txt` and `have.txt`; what the manifest says of the target."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if not SpecifierSet(project["requires-python"]).contains(f"{args.python}.0"):
        raise UserError(f"--python {args.python}: satdifuser needs Python {project['requires-python']}")
    target = Target(args.python, args.platform)
    have = read_have(_read(args.have)) if args.have else {}
    have = {name: version for name, version in have.items() if name not in ("pip", project["name"])}
    have["torch"] = torch_version(args.torch, have)
    needs = wanted(project, args.with_ or ())
    (least,) = (need for need in needs if need.name == "torch")
    if not least.specifier.contains(have["torch"], prereleases=True):
        raise UserError(f"torch {have['torch']} is too old: satdifuser needs torch{least.specifier}")
    pins = read_pins((ROOT / "tools" / "constraints.txt").read_text(), target)
    wheels, expected = resolve(needs, have, pins, target, work)
    if not args.without_project:
        wheels.append(_own(work))
    (folder / "wheels").mkdir()
    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / "wheels" / wheel.path.name)
    expected["torch"] = minor(have["torch"])
    lines = [f"{wheel.name}=={wheel.version}" for wheel in wheels if wheel.name != "pip"]
    _write(folder / "requirements.txt", lines)
    _write(folder / "have.txt", [f"{name}=={version}" if version else name for name, version in expected.items()])
    own = None if args.without_project else wheels[-1].version
    return {"project": own, "python": args.python, "machine": args.platform, "torch": expected["torch"]}


def _own(work: Path) -> Wheel:
    done = run_pip("wheel", "--no-deps", "-w", str(work / "own"), str(ROOT))
    if done.returncode:
        raise UserError(f"no wheel can be built of {ROOT}: {failure(done)}")
    return Wheel.read(next((work / "own").glob("*.whl")))


def fill(args: argparse.Namespace, folder: Path, work: Path) -> dict[str, Any]:
    """All that is in a bundle, into an empty folder; its manifest."""
    about = gather_wheels(args, folder, work)
    (folder / "install.sh").write_text(INSTALL.format(python=args.python))
    (folder / "install.sh").chmod(0o755)
    shutil.copyfile(ROOT / "tools" / "offline_install.py", folder / "install.py")
    if not args.without_project:
        for name in COPIED:
            source = ROOT / name
            copy = shutil.copyfile if source.is_file() else shutil.copytree
            ignore = {} if source.is_file() else {"ignore": shutil.ignore_patterns("__pycache__", "*.pyc", ".*")}
            copy(source, folder / name, **ignore)
    taken = check_limit(folder, args.limit_mib)
    about["data"] = None
    if args.data:
        room = args.limit_mib * 2**20 - taken - MARGIN
        room = min(room, args.data_mib * 2**20) if args.data_mib else room
        about["data"] = write_parts(Path(args.data), folder / "data", int(room))
    others = "" if args.without_project else OTHERS
    others += DATA if args.data else ""
    words = about | {"size": 4 * taken / 1e6, "others": others}
    words["project"] = " --project /path/to/the/checkout" if args.without_project else ""
    (folder / "README.txt").write_text(README.format_map(words))
    found = manifest(folder, about)
    _write(folder / MANIFEST, [json.dumps(found, indent=1)])
    return found


def make(args: argparse.Namespace) -> str:
    """Make the bundle aside and put it in its place; a line about it."""
    out = Path(args.out)
    check_place(out, args.overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
        folder = Path(aside) / "bundle"
        folder.mkdir()
        about = fill(args, folder, Path(aside) / "work")
        total = check_limit(folder, args.limit_mib)
        if out.exists():
            out.rename(Path(aside) / "earlier")
        folder.rename(out)
    wheels = sum(name.endswith(".whl") for name in about["files"])
    project = "" if about["project"] else " --project CHECKOUT"
    return (
        f"wrote {out}: {total / 2**20:.1f} MiB, {wheels} wheels for Python {about['python']} and torch {about['torch']}"
        f"; carry it, then there: PYTHON=python{about['python']} sh {out.name}/install.sh env{project}"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"--have {path} cannot be read ({why}): give the output of `pip freeze`") from None


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("out", help="the folder to write")
    here = "{}.{}".format(*sys.version_info[:2])
    words.add_argument("--python", default=here, help=f"the Python of the other machine (default: {here})")
    words.add_argument("--platform", default="x86_64", choices=("x86_64", "aarch64"), help="its processor")
    words.add_argument("--torch", help="its torch (default: as in --have, else the one installed here)")
    words.add_argument("--have", metavar="LIST", help="what it has: a file as `pip freeze` prints it there")
    words.add_argument(
        "--with", dest="with_", nargs="+", metavar="NAME", help="bring these, too (all: all optional ones)"
    )
    words.add_argument("--without-project", action="store_true", help="a checkout of satdifuser lies there anyway")
    words.add_argument("--data", metavar="FOLDER", help="class folders of images, as many as there is room for")
    words.add_argument("--data-mib", type=float, metavar="N", help="room for the images (default: what is left)")
    words.add_argument("--limit-mib", type=float, default=60, metavar="N", help="of the whole folder (default: 60)")
    words.add_argument("--overwrite", action="store_true", help="replace an earlier bundle")
    return words


def main() -> None:
    try:
        print(make(parser().parse_args()))
    except UserError as error:
        print(f"offline_bundle: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
