"""Installs an offline bundle; `install.sh` calls it, from the bundle, with the Python whose torch is to be used.

It is copied into every bundle (as `install.py`) by `offline_bundle.py`, and needs nothing but that Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent
STAMP = "offline-bundle.json"  # in an environment: which bundle it is of
BASE = "offline-base.pth"  # in an environment: where the packages of the Python below it are
PROJECT = "offline-project.pth"


class InstallError(Exception):
    """What the user can mend, in one line."""


def check_machine(about: dict[str, Any]) -> None:
    """The Python and the processor are those that the bundle is for (install.sh has looked at the Python too)."""
    python = "{}.{}".format(*sys.version_info[:2])
    for what, found, needed in (
        ("Python", python, about["python"]),
        ("processor", platform.machine(), about["machine"]),
    ):
        if found != needed:
            raise InstallError(f"this machine's {what} is {found}, the bundle is for {needed}: make another")


def check_files(about: dict[str, Any], bundle: Path) -> None:
    """What will be installed is there and whole; parts of the data may be left behind."""
    for name, told in about["files"].items():
        path = bundle / name
        if name.startswith(("tools/", "tests/")) or (name.startswith("data/") and not path.exists()):
            continue
        if not path.is_file():
            raise InstallError(f"{path} is missing: carry the whole bundle")
        content = path.read_bytes()
        if len(content) != told["size"] or hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise InstallError(f"{path} is damaged ({len(content)} bytes of {told['size']}): carry it again")


def check_have(lines: list[str]) -> list[str]:
    """What the bundle expects of this Python is here; notes on other versions of it."""
    missing, notes = [], []
    for line in lines:
        name, _, told = line.partition("==")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if name == "torch" and found.partition("+")[0].split(".")[:2] != told.split(".")[:2]:
            raise InstallError(
                f"this Python has torch {found}, the bundle is for {told}: make one with --torch {found}"
            )
        if name != "torch" and told and found != told:
            notes.append(f"{name} is {found} here, and was {told} in the list that the bundle was made by")
    if missing:
        raise InstallError(
            f"{sys.executable} has no {', '.join(missing)}, which the bundle expects of it: say another Python"
            " (PYTHON=...), or make the bundle without it in --have"
        )
    return notes


def hidden(lines: list[str]) -> list[str]:
    """Packages of this Python that a wheel of another version hides from the rest of it."""
    found = []
    for line in lines:
        name, _, brought = line.partition("==")
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if here != brought:
            found.append(f"{name} {here} (by {brought})")
    return found


def packages_below() -> list[str]:
    """Folders from which this Python imports, less its own library and this script's."""
    own = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    own |= {os.path.join(path, "lib-dynload") for path in own} | {str(BUNDLE)}  # noqa: PTH118
    return [path for path in sys.path if path and os.path.realpath(path) not in own and Path(path).is_dir()]


def make_environment(env: Path) -> Path:
    """A virtual environment that sees the packages of the Python that runs this; its site-packages."""
    site = env / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    if env.exists() and not (site / BASE).is_file() and (not site.is_dir() or any(site.iterdir())):
        raise InstallError(f"{env} is there and was not made by install.sh for this Python: give another folder")
    if not (site / BASE).is_file():
        run([sys.executable, "-m", "venv", "--without-pip", str(env)], f"no environment could be made in {env}")
    # not --system-site-packages: this Python may be an environment itself. addsitedir reads the .pth files there, too
    lines = [f"import site; site.addsitedir({path!r})" for path in packages_below()]
    write(site / BASE, "\n".join(lines) + "\n")
    return site


def install(env: Path, site: Path, about: dict[str, Any], project: Path | None) -> bool:
    """Install what is not yet, with the bundle's pip; False if this very bundle was installed before."""
    stamp = json.dumps({"files": about["files"], "project": str(project)})
    if (site / STAMP).is_file() and (site / STAMP).read_text() == stamp:
        return False
    pip = next((BUNDLE / "wheels").glob("pip-*.whl")) / "pip"
    words = ["install", "--isolated", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    words += ["--force-reinstall", "--no-cache-dir", "--find-links", str(BUNDLE / "wheels")]
    words += ["-r", str(BUNDLE / "requirements.txt")]
    run([str(env / "bin" / "python"), str(pip), *words], "the wheels cannot be installed", PIP_CONFIG_FILE=os.devnull)
    if project is not None:
        write(site / PROJECT, f"{project}\n")
        write(env / "bin" / "satdifuser", f'#!/bin/sh\nexec "{env}/bin/python" -m satdifuser "$@"\n', 0o755)
    with tempfile.TemporaryDirectory() as elsewhere:
        run([str(env / "bin" / "satdifuser"), "doctor"], "it is installed, and satdifuser doctor fails", elsewhere)
    write(site / STAMP, stamp)  # last: it is installed when it has this
    return True


def unpack(folder: Path, about: dict[str, Any]) -> int:
    """Unpack the parts that are here; how many images are in them."""
    if not hasattr(tarfile, "data_filter"):
        raise InstallError("this Python cannot unpack safely (3.11.4 can): unpack data/part-*.tar.xz with tar")
    images = 0
    for name, count in about["data"]["parts"].items():
        part = BUNDLE / "data" / name
        if part.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(part, "r:xz") as archive:
                archive.extractall(folder, filter="data")
            images += count
    return images


def run(command: list[str], failed: str, folder: str | None = None, **environment: str) -> None:
    """Run a command without a word; its last line is in the error."""
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InstallError(f"{failed}: {last}")


def write(path: Path, text: str, mode: int = 0o644) -> None:
    aside = path.with_name(f"{path.name}.partial")
    aside.write_text(text)
    aside.chmod(mode)
    aside.replace(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="install.sh", description="Install this bundle (see README.txt).")
    parser.add_argument("env", nargs="?", default="env", help="the environment to make (default: env)")
    parser.add_argument("--project", metavar="CHECKOUT", help="use this checkout of satdifuser")
    parser.add_argument("--data", metavar="FOLDER", help="where images go (default: data/NAME beside the environment)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    env = Path(args.env).expanduser().absolute()
    project = Path(args.project).expanduser().resolve() if args.project else None
    try:
        about = json.loads((BUNDLE / "bundle.json").read_text())
        check_machine(about)
        if about["project"] and project:
            raise InstallError("this bundle brings the project: leave --project out")
        if not about["project"] and not (project and (project / "satdifuser" / "__init__.py").is_file()):
            raise InstallError("the project is not in this bundle: say where a checkout lies, --project CHECKOUT")
        if args.data and not about["data"]:
            raise InstallError("this bundle has no images: leave --data out")
        check_files(about, BUNDLE)
        requirements = (BUNDLE / "requirements.txt").read_text().split()
        for note in check_have((BUNDLE / "have.txt").read_text().split()):
            print(f"note: {note}")
        if behind := hidden(requirements):
            print(
                f"note: in the environment, wheels hide {', '.join(behind)} of this Python, which its other packages"
                " may need: if something fails, make the bundle with --have and its `pip freeze`"
            )
        new = install(env, make_environment(env), about, project)
        print(f"{'installed in' if new else 'is installed already in'} {env}; run: {env}/bin/satdifuser doctor")
        if about["data"]:
            data = Path(args.data).expanduser().absolute() if args.data else env.parent / "data" / about["data"]["name"]
            images = unpack(data, about)
            print(f"{images} images in {data}: data=image_folder data.root={data}")
    except (InstallError, OSError) as error:
        print(f"install.sh: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
