"""The wheels of an offline bundle: what the other machine has is left out, and nothing that it lacks is."""

from __future__ import annotations

import doctest
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / "tools"
BACKEND = """
import zipfile
def build_wheel(folder, settings=None, metadata=None):
    name = "{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        archive.writestr("{name}-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr("{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        archive.writestr("{name}-1.0.dist-info/RECORD", "")
    return name
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
ABOUT = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


@pytest.fixture
def have(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("offline_have")


@pytest.fixture
def wheels(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("offline_wheels")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder which is all that pip sees."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(folder: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = ()) -> None:
    stem = f"{name}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        about = "".join(f"Requires-Dist: {need}\n" for need in requires)
        archive.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{about}"
        )
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def put_sources(folder: Path, name: str, tag: str) -> None:
    """Sources that build a wheel of this tag, with nothing but the standard library."""
    texts = {
        "backend.py": BACKEND.format(name=name, tag=tag),
        "pyproject.toml": BUILD,
        "PKG-INFO": ABOUT.format(name=name),
    }
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for file, text in texts.items():
            member = tarfile.TarInfo(f"{name}-1.0/{file}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def resolved(have: ModuleType, wheels: ModuleType, index: Path, tmp_path: Path) -> Callable:
    """Resolve for a Python that is not there yet, with pip itself; wheels, expectations, and what was said."""

    def resolve(
        *needs: str, had: dict[str, str | None] | None = None, pins: dict[str, str] | None = None
    ) -> tuple[list[str], dict[str, str | None], list[str]]:
        said: list[str] = []
        target, work = have.Target("3.99", "x86_64"), tmp_path / "work"
        found, expected = wheels.resolve(
            list(map(Requirement, needs)), had or {}, pins or {}, target, work, said.append
        )
        return [f"{wheel.name} {wheel.version}" for wheel in found], expected, said

    return resolve


def test_the_examples_in_the_tools_hold(tool: Callable[[str], ModuleType]) -> None:
    for name in ("offline_have", "offline_data"):
        found = doctest.testmod(tool(name))
        assert (found.failed, found.attempted > 0) == (0, True), name


def test_a_list_of_what_a_machine_has_is_read_as_pip_and_conda_print_it(have: ModuleType) -> None:
    text = """
        # a comment
        Jinja2==3.1.6
        typing_extensions==4.16.0  # why
        numpy @ file:///croot/numpy_and_numpy_base/work/dist
        torch @ file:///tmp/torch-2.11.0a0%2Bebedce2-cp312-cp312-linux_x86_64.whl
        -e git+ssh://somewhere/mine.git@0123#egg=mine
        -e /work/other
        PyYAML
    """
    assert have.read_have(text) == {
        "jinja2": "3.1.6",
        "typing-extensions": "4.16.0",
        "numpy": None,
        "torch": "2.11.0a0+ebedce2",
        "mine": None,
        "pyyaml": None,
    }
    with pytest.raises(UserError, match=r"line 2: 'numpy 2\.5 py312' is no package"):
        have.read_have("torch==2.11.0\nnumpy 2.5 py312\n")


def test_a_stub_does_for_what_the_package_does_for_and_is_no_version_of_an_index(have: ModuleType) -> None:
    for version in ("2.11.0", "2.11.0+cu130"):
        stub = have.local_version(version)
        for words in ("==2.11.0", "==2.11.*", ">=2.10", "~=2.11", "!=2.12", ">=2.11,<3"):
            assert SpecifierSet(words).contains(stub), words
        assert not SpecifierSet(f"=={stub}").contains(version)


def test_pins_are_those_of_the_other_python_and_leave_the_version_of_torch_open(have: ModuleType) -> None:
    text = '# why\nnumpy==1.0 ; python_version < "3.99"\nnumpy==2.0 ; python_version >= "3.99"\n'
    text += "torchvision==0.29\nRich==15.0\n"
    assert have.read_pins(text, have.Target("3.99", "x86_64")) == {"numpy": "2.0", "rich": "15.0"}
    assert have.read_pins(text, have.Target("3.11", "x86_64")) == {"numpy": "1.0", "rich": "15.0"}


def test_the_projects_pins_can_be_read_for_each_python(have: ModuleType) -> None:
    text = (TOOLS / "constraints.txt").read_text()
    for python in ("3.11", "3.12", "3.13"):
        pins = have.read_pins(text, have.Target(python, "x86_64"))
        assert "numpy" in pins
        assert not {"torch", "torchvision"} & pins.keys()
        assert all(version[0].isdigit() and " " not in version for version in pins.values())


def test_torch_is_not_brought_even_if_the_index_has_a_newer_one(resolved: Callable, index: Path) -> None:
    put_wheel(index, "torch", "9.0")
    put_wheel(index, "head", "1.0", ("torch>=2.10", "numpy"))
    put_wheel(index, "numpy")
    found, expected, said = resolved("head", "torch>=2.10", had={"torch": "2.11.0+cu130", "unused": "1.0"})
    assert found == ["head 1.0", "numpy 1.0"]
    assert expected == {"torch": "2.11.0+cu130"}
    assert said == []


def test_a_need_of_the_other_python_alone_is_met_and_one_of_this_python_alone_is_not_brought(
    resolved: Callable, index: Path
) -> None:
    put_wheel(index, "head", "1.0", ('late[more]; python_version >= "3.99"', 'early; python_version < "3.99"'))
    put_wheel(index, "late", "1.0", ('later; python_version >= "3.99" and extra == "more"', 'never; extra == "less"'))
    put_wheel(index, "later")
    put_wheel(index, "early")
    assert resolved("head")[0] == ["head 1.0", "late 1.0", "later 1.0"]


def test_a_need_that_nothing_meets_is_named(resolved: Callable, index: Path) -> None:
    put_wheel(index, "head", "1.0", ('late>=3; python_version >= "3.99"',))
    with pytest.raises(UserError, match=r"No matching distribution found for late>=3"):
        resolved("head")


def test_what_the_machine_has_in_a_version_that_will_not_do_is_brought_and_a_line_says_so(
    resolved: Callable, index: Path
) -> None:
    put_wheel(index, "head", "1.0", ("numpy>=2",))
    put_wheel(index, "numpy", "2.1")
    put_wheel(index, "numpy", "2.2")
    found, expected, said = resolved("head", had={"numpy": "1.26.4"}, pins={"numpy": "2.1"})
    assert found == ["head 1.0", "numpy 2.1"]
    assert expected == {}
    assert said == ["numpy of the target will not do (head 1.0 depends on numpy>=2): the bundle brings it"]


def test_a_bare_name_is_taken_for_the_pinned_version_and_expected_without_one(resolved: Callable, index: Path) -> None:
    put_wheel(index, "head", "1.0", ("numpy>=2", "unpinned"))
    put_wheel(index, "unpinned")
    found, expected, _ = resolved("head", had={"numpy": None, "unpinned": None}, pins={"numpy": "2.1"})
    assert found == ["head 1.0", "unpinned 1.0"]
    assert expected == {"numpy": None}


@pytest.mark.parametrize("pinned", [True, False])
def test_what_has_sources_alone_is_built_if_it_is_pure_python(resolved: Callable, index: Path, pinned: bool) -> None:
    put_wheel(index, "head", "1.0", ("sources==1.*",))
    put_sources(index, "sources", "py3-none-any")
    assert resolved("head", pins={"sources": "1.0"} if pinned else {})[0] == ["head 1.0", "sources 1.0"]


def test_what_has_sources_alone_and_is_compiled_is_refused(resolved: Callable, index: Path) -> None:
    put_sources(index, "sources", "cp{}{}-abi3-linux_x86_64".format(*sys.version_info[:2]))
    with pytest.raises(UserError, match="sources has no wheel, and is compiled"):
        resolved("sources")
