"""The two doors for ViTs without a network: torchgeo's weights by name, timm's by the hub, and what fails how."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchgeo
import torchgeo.models
import yaml
from torch import Tensor

from deflect.backbones import Backbone, timm_vit, torchgeo_vit
from satdifuser.bank import BankError

CONFIGS = Path(__file__).parents[2] / "configs" / "encoder"
TINY = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
NAME = "ScaleMAELarge16_Weights.TINY"
FAMILY = {
    path.stem: yaml.safe_load(path.read_text())["backbone"]
    for path in sorted(CONFIGS.glob("*.yaml"))
    if "deflect.backbones.torchgeo_vit" in path.read_text()
}


class Entry(SimpleNamespace):
    """As much of a torchgeo weights enum as is asked of one."""

    def __str__(self) -> str:
        return NAME


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's own cache of downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def random_state(bands: int = 3) -> dict[str, Tensor]:
    model: Any = torchgeo.models.ScaleMAE(img_size=32, num_classes=0, in_chans=bands, **TINY)
    return {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def publish(monkeypatch: pytest.MonkeyPatch, file: str, bands: int | None = 3) -> str:
    """torchgeo as if it had this entry; gives its address."""
    url = f"https://hf.co/someone/{file}/resolve/0123/{file}"
    entry = Entry(url=url, meta={} if bands is None else {"in_chans": bands})
    real = torchgeo.models.get_weight
    monkeypatch.setattr(torchgeo.models, "get_weight", lambda name: entry if name == NAME else real(name))
    return url


def named_by_its_hash(folder: Path, content: Any) -> Path:
    """torch.save under a name that ends in the first digits of its SHA-256, as torch.hub wants them."""
    draft = folder / "draft.pth"
    torch.save(content, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    return draft.rename(folder / f"tiny-{digest[:8]}.pth")


def scalemae(weights: str = NAME, **given: Any) -> Backbone:
    given = {"image_size": 32, "options": {**TINY, "res": 10.0}, **given}
    return torchgeo_vit("ScaleMAE", weights, **given)


def said(make: Any) -> str:
    with pytest.raises(BankError) as refused:
        make()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_by_name_come_from_torchs_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_state()
    publish(monkeypatch, named_by_its_hash(cache, state).name)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("it is there already"))
    built = scalemae()
    for name, tensor in built.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert built.facts.weights != scalemae("none").facts.weights
    assert built.facts.channels == 3


def test_weights_by_name_say_how_many_bands_they_take(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, named_by_its_hash(cache, random_state(13)).name, bands=13)
    assert scalemae().facts.channels == 13
    assert "encoder.backbone.channels=13" in said(lambda: scalemae(channels=4))


def test_a_file_in_the_cache_must_have_the_hash_in_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = named_by_its_hash(cache, random_state())
    wrong = file.rename(cache / "tiny-0badc0de.pth")
    publish(monkeypatch, wrong.name)
    digest = hashlib.sha256(wrong.read_bytes()).hexdigest()
    message = said(scalemae)
    assert str(wrong) in message
    assert digest[:8] in message
    assert "0badc0de" in message.replace(wrong.name, "")


def test_a_file_in_the_cache_that_broke_off_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = named_by_its_hash(cache, random_state())
    file.write_bytes(file.read_bytes()[:-100])
    publish(monkeypatch, file.name)
    assert f"{file} is damaged" in said(scalemae)


def test_a_name_without_a_hash_is_read_as_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_state()
    torch.save(state, cache / "panopticon_teacher.pth")
    publish(monkeypatch, "panopticon_teacher.pth")
    assert torch.equal(scalemae().model.state_dict()["cls_token"], state["cls_token"])


@pytest.mark.parametrize("hashed", [True, False])
def test_what_is_not_there_is_downloaded_to_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, hashed: bool
) -> None:
    state = random_state()
    remote = named_by_its_hash(tmp_path, state)
    remote = remote if hashed else remote.rename(tmp_path / "tiny.pth")
    url = publish(monkeypatch, remote.name)
    asked: list[tuple[str, str | None]] = []

    def download(address: str, target: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        asked.append((address, hash_prefix or None))
        Path(target).write_bytes(remote.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there
        assert torch.equal(scalemae().model.state_dict()["pos_embed"], state["pos_embed"])
    assert asked == [(url, remote.stem.partition("-")[2] or None)]
    assert (cache / remote.name).is_file()


@pytest.mark.parametrize("error", [URLError("no route to host"), OSError("disk\nfull"), RuntimeError("invalid hash")])
def test_without_a_network_one_line_says_what_to_fetch_and_where_to_put_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    url = publish(monkeypatch, "tiny-01234567.pth")

    def offline(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    message = said(scalemae)
    assert f"fetch {url} and put it at {cache / 'tiny-01234567.pth'}" in message
    assert NAME in message


def test_of_torchgeos_published_files_the_name_is_found_whatever_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real entries: what is to be put where is a plain file name."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)

    def offline(url: str, file: str, *_: Any, **__: Any) -> None:
        name = Path(file).name
        assert url.endswith(f"/{name}")
        assert name.endswith((".pth", ".pt"))
        raise URLError("offline")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    assert "put it at /nowhere/checkpoints/" in said(lambda: scalemae(FAMILY["scalemae"]["weights"]))


def test_an_unknown_enum_lists_near_ones() -> None:
    message = said(lambda: scalemae("ScaleMAELarge16_Weights.FMOW"))
    assert "torchgeo has no weights 'ScaleMAELarge16_Weights.FMOW'" in message
    assert "ScaleMAELarge16_Weights.FMOW_RGB" in message
    assert "torchgeo has no weights 'Nothing_Weights.LIKE'" in said(lambda: scalemae("Nothing_Weights.LIKE"))


def test_an_unknown_model_says_torchgeos_version_and_near_ones() -> None:
    message = said(lambda: torchgeo_vit("scalemae_large_patch61", image_size=32))
    assert f"torchgeo {torchgeo.__version__} has no model 'scalemae_large_patch61'" in message
    assert "scalemae_large_patch16" in message


@pytest.mark.parametrize("model", ["resnet50", "swin_v2_t", "get_weight", "DOFABase16_Weights"])
def test_a_model_of_torchgeo_that_is_no_vit_is_refused(model: str) -> None:
    assert hasattr(torchgeo.models, model)
    assert re.search(rf"torchgeo's {model}|has no model '{model}'", said(lambda: torchgeo_vit(model, image_size=32)))


def test_bands_are_not_chosen_for_models_that_take_any() -> None:
    message = said(lambda: torchgeo_vit("DOFA", image_size=32, channels=13, options=TINY))
    assert "channels=13: DOFA takes bands as they are" in message


@pytest.mark.parametrize(
    ("model", "options"),
    [("ScaleMAE", {"depht": 2}), ("DOFA", {"embed_dim": 30, "num_heads": 4}), ("CROMA", {"num_heads": 3})],
)
def test_options_that_do_not_fit_a_model_are_one_line(model: str, options: dict[str, int]) -> None:
    assert f"torchgeo's {model} cannot be built so: " in said(
        lambda: torchgeo_vit(model, image_size=32, options=options)
    )


def test_options_that_do_not_fit_a_model_of_timm_are_one_line() -> None:
    message = said(lambda: timm_vit("vit_tiny_patch16_224", image_size=32, options={"depht": 2}))
    assert "timm's vit_tiny_patch16_224 cannot be built so: " in message
    assert "depht" in message


@pytest.mark.parametrize("name", FAMILY)
def test_the_configured_models_and_weights_are_those_of_the_installed_torchgeo(name: str) -> None:
    node = FAMILY[name]
    assert callable(getattr(torchgeo.models, node["model"]))
    entry = torchgeo.models.get_weight(node["weights"])
    assert str(entry) == node["weights"]
    assert entry.url.startswith("https://")


def test_there_is_a_configuration_of_every_family() -> None:
    assert FAMILY.keys() >= {"scalemae", "ssl4eo", "dofa", "croma", "copernicusfm", "panopticon"}


def test_timms_pretrained_weights_without_a_network_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **given: Any) -> Any:
        if not pretrained:
            return create(name, **given)
        raise OSError("We couldn't connect to\n'https://huggingface.co'")

    monkeypatch.setattr(timm, "create_model", offline)
    message = said(lambda: timm_vit("vit_tiny_patch16_224", "pretrained", image_size=32))
    assert (
        "timm's weights of vit_tiny_patch16_224 cannot be had (We couldn't connect to 'https://huggingface.co')"
        in message
    )
    assert "encoder.backbone.weights=FILE" in message


def test_timms_pretrained_weights_are_asked_for_at_the_given_size_and_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    asked: dict[str, Any] = {}

    def pretrained(name: str, **given: Any) -> Any:
        asked.update(given)
        return create(name, **{**given, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", pretrained)
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    built = timm_vit("vit_tiny_patch16_224", "pretrained", image_size=48, channels=5, options=options)
    assert asked["pretrained"]
    assert (asked["img_size"], asked["in_chans"], asked["num_classes"]) == (48, 5, 0)
    assert built.facts.channels == 5
    assert built.facts.patch == 16
    assert not built.facts.weights.startswith("from-scratch")
