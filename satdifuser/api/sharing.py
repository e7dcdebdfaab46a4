"""A trained run as a folder that can be given away, and on the Hugging Face hub: safetensors, YAML, JSON and a card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch

from satdifuser.engine.carried import FOLDER, NAME, weights_here
from satdifuser.engine.files import aside, json_text, write_text, writing
from satdifuser.engine.run import LABELS, SEEN, SPEC, RunFolder
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import TrainSettings

KEPT = ("config.yaml", SPEC, LABELS, SEEN, "data.json", "environment.json")
HUB = r"[\w.-]+/[\w.-]+"


class Shared:
    """What a trained run has to be saved, sent to the hub and loaded from either. The folder is one of a run.

    So `satdifuser predict run=FOLDER` and `satdifuser eval run=FOLDER` take it too.
    """

    folder: Path
    model: FeatureModel
    settings: TrainSettings

    def save_pretrained(
        self, folder: str | Path, *, encoder: bool = True, title: str | None = None, licence: str | None = None
    ) -> Path:
        """Write the run to a folder: configuration, weights as they are now, scores, and a card (README.md).

        Weights of the encoder that lie on this machine, in a file or folder of their own, are copied too; with
        `encoder=False` they are not, and whoever loads the run needs them where its configuration says.
        """
        from satdifuser.api.card import card

        path = Path(folder).expanduser()
        run = RunFolder(path)
        if path.resolve() == self.folder.resolve():
            raise UserError(f"{path} is the run itself: save it to another folder")
        if run.last.is_file() or (path.is_dir() and any(path.iterdir()) and not run.config.is_file()):
            raise UserError(f"{path} holds other files: save the run to a new folder")
        weights = weights_here(self.settings.encoder.plain())
        changed = self._save_weights(run)
        if encoder:
            self._carry(path / FOLDER, weights)
        for name in KEPT:
            if (self.folder / name).is_file():
                _copy(self.folder / name, path / name)
        scores = self.folder / "result.json"
        if scores.is_file() and not changed:  # scores of other weights would be wrong
            _copy(scores, path / scores.name)
        write_text(path / "README.md", card(self, path, title=title, licence=licence, away=() if encoder else weights))
        return path

    def _save_weights(self, run: RunFolder) -> bool:
        """The weights of the checkpoint, as the model has them now; gives whether they are others than the run's."""
        from satdifuser.engine.checkpoint import load_checkpoint, save_checkpoint

        state, trained, _ = load_checkpoint(RunFolder(self.folder).best)
        now = self.model.state_dict()
        held = {name: now[name].detach().cpu() for name in trained}
        with writing(run.best):
            run.best.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(run.best, state, held)
        return any(not torch.equal(held[name], value) for name, value in trained.items())

    @staticmethod
    def _carry(folder: Path, weights: dict[str, Path]) -> None:
        told: dict[str, str] = {}
        for number, (name, source) in enumerate(weights.items()):
            # the name of the file or folder stays: a bank's spec may have it
            place = source.resolve().name if number == 0 else f"{number}/{source.resolve().name}"
            if source.is_dir():
                with writing(folder / place):
                    shutil.copytree(source, folder / place, dirs_exist_ok=True)
            else:
                _copy(source, folder / place)
            told[name] = place
        if told:
            write_text(folder / NAME, json_text(told, indent=2) + "\n")

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str = "Upload a run of satdifuser",
        **saving: Any,
    ) -> str:
        """Save the run as `save_pretrained` does and upload it as the model OWNER/NAME; gives its URL."""
        from huggingface_hub import HfApi

        if not re.fullmatch(HUB, name):
            raise UserError(f"{name!r} is no name of the hub: give OWNER/NAME")
        with TemporaryDirectory() as folder:
            path = self.save_pretrained(Path(folder) / "run", **saving)
            api = HfApi(token=token)
            try:
                api.create_repo(name, private=private, exist_ok=True)
                api.upload_folder(repo_id=name, folder_path=path, commit_message=message)
            except Exception as error:  # a hub that is not there fails in many ways
                raise UserError(
                    f"{name} could not be uploaded ({_reason(error)}): log in with `hf auth login`, or save_pretrained"
                    " to a folder where there is no network"
                ) from error
        return f"https://huggingface.co/{name}"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        trust: Iterable[str] = (),
    ) -> Self:
        """The run of a folder, or of the model OWNER/NAME on the hub, which is downloaded once into its cache."""
        folder = Path(name).expanduser()
        if not folder.is_dir():
            if not re.fullmatch(HUB, str(name)):
                raise UserError(f"no folder {folder.absolute()}: give one of save_pretrained, or OWNER/NAME of the hub")
            folder = _downloaded(str(name), revision=revision, token=token, cache_dir=cache_dir)
        return cls.of_folder(folder, trust)

    @classmethod
    def of_folder(cls, folder: str | Path, trust: Iterable[str] = ()) -> Self:
        """The run of a folder."""
        raise NotImplementedError


def _downloaded(name: str, **options: Any) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **options))
    except Exception as error:
        raise UserError(
            f"no folder {name} here, and no such run can be had from the hub ({_reason(error)}): without a network,"
            " fetch it elsewhere and give its folder"
        ) from error


def _reason(error: Exception) -> str:
    """The first words of what went wrong."""
    said = " ".join(str(error).split())
    return (said if len(said) <= 160 else f"{said[:160].rpartition(' ')[0]} ...") or type(error).__name__


def _copy(source: Path, target: Path) -> None:
    with aside(target, target.with_name(f"{target.name}.partial")) as partial:
        shutil.copyfile(source, partial)
