"""What a machine without network is: its Python, the packages that it has, and the versions that others are pinned to.

`offline_wheels.py` finds what it lacks. What it has is shown to pip as empty wheels (stubs) of the same version.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from satdifuser.errors import UserError

GLIBC = 28  # the newest glibc (2.x) that a wheel may ask for: torch's own wheels ask for this one
TORCH_BOUND = ("torch", "torchvision", "torchaudio", "triton", "xformers")  # one version of each fits one of torch
HAVE = "have"  # the local version of a stub

Have = Mapping[str, str | None]  # name -> version, or None where it is not known


@dataclass(frozen=True)
class Target:
    """The Python (3.12) and the machine (x86_64) that the wheels are for."""

    python: str
    machine: str

    def environment(self) -> dict[str, str]:
        """What markers are evaluated with."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def words(self) -> list[str]:
        """How pip is told; it does not conclude from one glibc to the older ones."""
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC, 16, -1)]
        names.append(f"manylinux2014_{self.machine}")
        return ["--implementation", "cp", "--python-version", self.python, *(f"--platform={name}" for name in names)]


def read_have(text: str) -> dict[str, str | None]:
    """The target's packages, from the output of `pip freeze` there; a bare name, or a path, has no version.

    >>> read_have("numpy==2.5.2\\nPyYAML\\n-e /work/mine\\ntimm @ file:///wheels/timm-1.0-py3-none-any.whl")
    {'numpy': '2.5.2', 'pyyaml': None, 'timm': '1.0'}
    """
    found: dict[str, str | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(" #")[0].strip()
        egg = re.search(r"#egg=([\w.-]+)", line)
        if egg:
            words = egg.group(1)
        if not words or words.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(words.partition(" --")[0])
        except InvalidRequirement:
            raise UserError(f"--have, line {number}: {words!r} is no package: give what `pip freeze` prints") from None
        exact = [item.version for item in requirement.specifier if item.operator in ("==", "===")]
        wheel = re.search(r"/[^/]+?-([^/-]+)-[^/]+\.whl", unquote(requirement.url or ""))
        version = exact[0] if exact and "*" not in exact[0] else wheel.group(1) if wheel else None
        found[canonicalize_name(requirement.name)] = version
    return found


def read_pins(text: str, target: Target) -> dict[str, str]:
    """Name -> version for the target's Python, from a file of constraints, less what hangs on the version of torch."""
    found = {}
    for line in text.splitlines():
        words = line.partition("#")[0].strip()
        if not words:
            continue
        requirement = Requirement(words)
        name = canonicalize_name(requirement.name)
        if name not in TORCH_BOUND and applies(requirement, target.environment()):
            found[name] = str(requirement.specifier).removeprefix("==")
    return found


def local_version(version: str) -> str:
    """A version that no index has and that does for every requirement for which `version` does.

    >>> local_version("2.11.0"), local_version("2.11.0+cu130")
    ('2.11.0+have', '2.11.0+cu130.have')
    """
    return f"{version}{'.' if '+' in version else '+'}{HAVE}"


def write_stub(folder: Path, name: str, version: str) -> Path:
    """An empty wheel."""
    stem = f"{name.replace('-', '_')}-{local_version(version)}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {local_version(version)}\n"
        archive.writestr(f"{stem}.dist-info/METADATA", about)
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def stub_versions(have: Have, pins: Mapping[str, str]) -> dict[str, str]:
    """What a stub can be made of: a package without a version is taken for the pinned one, else it is not used."""
    return {name: version for name in have if (version := have[name] or pins.get(name))}


def applies(need: Requirement, environment: Mapping[str, str], extra: str = "") -> bool:
    """Whether a requirement holds where these are the values of markers."""
    return need.marker is None or need.marker.evaluate({**environment, "extra": extra})
