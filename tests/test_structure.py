"""The shape of the code: imports run one way, nothing imports in a circle, nothing is a pickle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("satdifuser", "deflect")
    for path in (ROOT / package).rglob("*.py")
}

ALONE = {"satdifuser.bank", "satdifuser.kinds", "satdifuser.lazily", "satdifuser.shipped", "satdifuser.tensors"}


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & FILES.keys()


def test_satdifuser_never_imports_deflect_and_deflect_only_what_stands_alone() -> None:
    for name, path in FILES.items():
        others = {module for module in imported(path) if module.partition(".")[0] != name.partition(".")[0]}
        assert others <= (ALONE if name.startswith("deflect") else set()), name


def test_bank_and_tensors_import_nothing_of_the_project_and_the_kinds_of_settings_only_its_errors() -> None:
    bank = {name for name in FILES if name == "satdifuser.bank" or name.startswith("satdifuser.bank.")}
    assert set().union(*(imported(FILES[name]) for name in bank)) <= bank
    for name in ("lazily", "shipped", "tensors"):
        assert imported(FILES[f"satdifuser.{name}"]) == set()
    assert imported(FILES["satdifuser.kinds"]) == {"satdifuser.errors"}


def test_nothing_imports_in_a_circle() -> None:
    graph = {}
    for name, path in FILES.items():
        # `from package import name` needs the package's own __init__ only where the name is not a module.
        graph[name] = {module for module in imported(path) if module != name}
        graph[name] -= {m for m in graph[name] if any(other.startswith(m + ".") for other in graph[name])}
    TopologicalSorter(graph).prepare()


def test_files_fit_in_a_head() -> None:
    for name, path in FILES.items():
        assert len(path.read_text().splitlines()) <= 330, name


def test_nothing_is_loaded_or_saved_by_pickle() -> None:
    """Labels of GEO-Bench are in pickles: one file reads them, with a reader that imports nothing that they name."""
    inert = "satdifuser.data.readers.geobench.inert"
    assert "import pickle\n" in FILES[inert].read_text()
    assert "class Reader(pickle.Unpickler):\n    def find_class(" in FILES[inert].read_text()
    for word in ("pickle.load", "super().find_class", "importlib", "__import__"):
        assert word not in FILES[inert].read_text(), word
    for name, path in FILES.items():
        text = path.read_text().replace('torch.load(path, map_location="cpu", weights_only=True)', "")  # tensors alone
        text = text.replace("import pickle\n", "") if name == inert else text
        for word in ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True", "joblib.load"):
            assert word not in text, f"{name}: {word}"
