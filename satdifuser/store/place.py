"""Where a store comes to be: a folder that is renamed when it is whole, or a remote place that gets it unit by unit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError
from satdifuser.store.disk import check_space
from satdifuser.store.files import located
from satdifuser.store.manifest import NAME
from satdifuser.store.plan import StorePlan
from satdifuser.store.remote import remote_system


def place_of(path: str | Path) -> LocalPlace | RemotePlace:
    text = located(path)
    return RemotePlace(text) if "://" in text else LocalPlace(Path(text))


class LocalPlace:
    """A folder. It grows in `<path>.partial/store` and takes its name when all of it is there."""

    replaceable = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")

    def __str__(self) -> str:
        return str(self.path)

    @property
    def root(self) -> Path:
        return self.partial / "store"

    def exists(self) -> bool:
        return self.path.exists()

    def check_space(self, plan: StorePlan) -> None:
        written = sum(file.stat().st_size for file in self.root.rglob("*") if file.is_file())
        check_space(plan, self.path, written)

    def publish(self, keys: Iterable[str]) -> None:
        """Files are complete; here they already are where they belong."""

    def published(self, key: str, size: int) -> bool:
        return False

    def finish(self, overwrite: bool) -> None:
        if self.path.exists():
            if not overwrite:
                raise UserError(f"{self.path} came to be while its store was written: move it away and start again")
            shutil.rmtree(self.partial / "replaced", ignore_errors=True)
            self.path.rename(self.partial / "replaced")
        self.root.rename(self.path)
        shutil.rmtree(self.partial)


class RemotePlace:
    """A place of fsspec. Units are uploaded as they are completed and then removed here; the manifest comes last.

    Until it is there, nobody reads a store. What is under way lies in `<name>.partial` in the working folder.
    """

    replaceable = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, self._path = remote_system(self.url)
        self.partial = Path(self.url.rsplit("/", 1)[-1] + ".partial")

    def __str__(self) -> str:
        return self.url

    @property
    def root(self) -> Path:
        return self.partial / "store"

    def exists(self) -> bool:
        return bool(self._system.exists(f"{self._path}/{NAME}"))

    def check_space(self, plan: StorePlan) -> None:
        """Here only a unit has to fit, and a remote place does not say what it has."""

    def publish(self, keys: Iterable[str]) -> None:
        for key in keys:
            local = self.root / key
            self._upload(key, local)
            local.unlink()

    def published(self, key: str, size: int) -> bool:
        path = f"{self._path}/{key}"
        return bool(self._system.exists(path)) and int(self._system.size(path)) == size

    def finish(self, overwrite: bool) -> None:
        files = [file for file in self.root.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file.name == NAME):
            self._upload(file.relative_to(self.root).as_posix(), file)
        shutil.rmtree(self.partial)

    def _upload(self, key: str, local: Path) -> Any:
        target = f"{self._path}/{key}"
        self._system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        self._system.put_file(str(local), target)
