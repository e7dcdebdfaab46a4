"""What runs share: what is known of an encoder before it runs, and its features, extracted once for all that can."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from satdifuser import __version__
from satdifuser.bank import BankError, BankSpec
from satdifuser.build import build_augmentation, build_data, build_encoder
from satdifuser.compare.grid import SPLITS, Cell, digest
from satdifuser.compare.worker import hush
from satdifuser.data.policy import is_open, resolved
from satdifuser.errors import UserError, one_line
from satdifuser.launching import claimed
from satdifuser.settings.commands import ExtractSettings, StoreSettings


@dataclass(frozen=True)
class EncoderFacts:
    """An encoder's spec (with the fingerprint of its weights), its parameters, and whether any of them trains."""

    spec: Mapping[str, Any]
    parameters: int
    trains: bool


@dataclass(frozen=True)
class Extraction:
    """What it took to make a store: seconds (None where its note was lost), bytes, and operations for one image."""

    seconds: float | None
    bytes: int
    flops: int


class Shared:
    """The folders `encoders/`, `features/` and `extractions/` (what the features took) of a comparison."""

    def __init__(self, output: Path, store: StoreSettings, share_features: bool = True) -> None:
        self.output, self.store, self.share_features = output, store, share_features
        self._facts: dict[str, EncoderFacts | UserError] = {}
        self._data: dict[str, tuple[str, dict[str, int]]] = {}

    def facts(self, cell: Cell) -> EncoderFacts:
        """Of the cell's encoder, which is built once for this; one that cannot be built keeps its error."""
        settings = cell.settings()["encoder"]
        about = {"encoder": settings, "satdifuser": __version__, "shipped": _shipped()}
        if is_open(cell.config.encoder):  # its input has numbers of the training images
            about["data"] = [cell.settings()["data"], self.data_digest(cell)]
        name = digest(about)
        if name not in self._facts:
            self._facts[name] = self._read_facts(self.output / "encoders" / f"{name}.json", cell)
        found = self._facts[name]
        if isinstance(found, UserError):
            raise UserError(str(found))
        return found

    def _read_facts(self, path: Path, cell: Cell) -> EncoderFacts | UserError:
        from satdifuser.engine.cost import parameter_count
        from satdifuser.engine.files import write_text

        known = _facts_in(path)
        if known is not None:
            return known
        hush()
        try:
            encoder = build_encoder(resolved(cell.config.encoder, cell.config.data))
        except Exception as error:
            return UserError(one_line(error))
        trains = any(p.requires_grad for p in encoder.parameters())
        facts = EncoderFacts(encoder.spec.to_dict(), parameter_count(encoder), trains)  # type: ignore[union-attr, operator]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(facts), indent=2) + "\n")
        return facts

    def data_digest(self, cell: Cell) -> str:
        """Of the data set: what each split says of itself, and the ids of its samples."""
        return self._known_data(cell)[0]

    def lengths(self, cell: Cell) -> Mapping[str, int]:
        """Samples of each split."""
        return self._known_data(cell)[1]

    def _known_data(self, cell: Cell) -> tuple[str, dict[str, int]]:
        settings = digest(cell.config.data.plain())
        if settings not in self._data:
            splits = {split: build_data(cell.config.data, split) for split in SPLITS}
            found = digest([[s.identity, [s.sample_id(i) for i in range(len(s))]] for s in splits.values()])
            self._data[settings] = found, {split: len(data) for split, data in splits.items()}
        return self._data[settings]

    def key(self, cell: Cell, begins_with: str | None = None) -> str:
        """The name of a run: of its settings, its data, its encoder's weights, and of what it begins with.

        The same run has the same name.
        """
        stored = self._form() if self.stored(cell) else None
        if not cell.config.select.all and (stored is None or self.store.keep == "latents"):
            stored = [*(stored or []), "selected"]  # earlier versions gave such runs all that the encoder gives
        facts = self.facts(cell)
        return digest([cell.settings(), self.data_digest(cell), facts.spec, stored, begins_with])

    def stored(self, cell: Cell) -> bool:
        """Whether the run reads features from disk: those of an encoder that does not train, of unchanged images."""
        return self.share_features and not self.facts(cell).trains and build_augmentation(cell.config) is None

    def features(self, cell: Cell) -> Path | None:
        """Where the store of the cell's features is, or will be; None where its encoder runs on images."""
        if not self.stored(cell):
            return None
        name = digest([self.facts(cell).spec, cell.settings()["data"], self.data_digest(cell), self._form()])
        return self.output / "features" / f"{name}.zarr"

    def _form(self) -> list[str]:
        return [self.store.dtype, self.store.keep]

    def extraction(self, cell: Cell) -> Extraction | None:
        """What the cell's features took; known even where they have been removed since."""
        path = self.features(cell)
        return None if path is None else _extraction_in(self._note(path))

    def _note(self, store: Path) -> Path:
        return self.output / "extractions" / f"{store.stem}.json"

    def extract_settings(self, cell: Cell) -> ExtractSettings:
        """The settings of `satdifuser extract` for the cell's features."""
        config = cell.config
        path = self.features(cell)
        store = self.store.but(path=str(path), reuse=True, splits=list(SPLITS))
        return ExtractSettings(encoder=config.encoder, data=config.data, store=store, seed=config.seed)

    def extract(self, cell: Cell) -> None:
        """Make the cell's features unless they are there, and note what that took."""
        path = self.features(cell)
        assert path is not None
        note = self._note(path)
        for folder in (note.parent, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with claimed(note.with_suffix(".lock"), wait=True):  # another comparison may be making them
            if _extraction_in(note) is None or not path.is_dir():
                self._extract(cell, path, note)

    def _extract(self, cell: Cell, path: Path, note: Path) -> None:
        from satdifuser.commands import extract
        from satdifuser.engine.files import write_text

        begun = note.with_suffix(".seconds")
        before = None if path.is_dir() else _seconds_in(begun)  # of a store that is there the note has been lost
        started = time.perf_counter()
        try:
            extract.run(self.extract_settings(cell))
        finally:  # an interrupted extraction goes on, and its time counts (unless it was killed: nobody noted that)
            took = None if before is None else before + time.perf_counter() - started
            write_text(begun, json.dumps(took))
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        made = Extraction(took, size, _encoder_flops(cell))
        write_text(note, json.dumps(asdict(made)) + "\n")
        begun.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    """What a small file of ours says; None where it is not there, or damaged: then it is made anew."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _facts_in(path: Path) -> EncoderFacts | None:
    try:
        found = EncoderFacts(**_read(path))
        BankSpec.from_dict(found.spec)
    except (BankError, LookupError, TypeError, ValueError, AttributeError):
        return None
    return found if isinstance(found.parameters, int) and isinstance(found.trains, bool) else None


def _extraction_in(path: Path) -> Extraction | None:
    try:
        found = Extraction(**_read(path))
    except TypeError:
        return None
    whole = isinstance(found.bytes, int) and isinstance(found.flops, int)
    return found if whole and (found.seconds is None or _is_seconds(found.seconds)) else None


def _seconds_in(path: Path) -> float | None:
    """How long an extraction that was broken off has taken so far; None where that is not known any more."""
    if not path.is_file():
        return 0.0
    found = _read(path)
    return float(found) if _is_seconds(found) else None


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


@functools.cache
def _shipped() -> list[str]:
    """How the weights that are shipped came about: `small` names others after an update."""
    packages = (importlib.util.find_spec(name) for name in ("satdifuser", "deflect"))
    folders = [Path(place) for found in packages if found for place in found.submodule_search_locations or ()]
    return [path.read_text() for folder in folders for path in sorted(folder.rglob("weights/*/provenance.json"))]


def _encoder_flops(cell: Cell) -> int:
    import torch

    from satdifuser.data.batches import collate
    from satdifuser.engine.cost import flops
    from satdifuser.engine.features import features

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = build_encoder(resolved(cell.config.encoder, cell.config.data)).to(device).eval()
    data = build_data(cell.config.data, "train")
    return flops(features, encoder, collate([data[0]]), device)


def stores_to_make(shared: Shared, cells: Sequence[Cell]) -> dict[Path, Cell]:
    """The distinct stores that some runs need, each with one of them; those that are there are among them."""
    found: dict[Path, Cell] = {}
    for cell in cells:
        path = shared.features(cell)
        if path is not None:
            found.setdefault(path, cell)
    return found
