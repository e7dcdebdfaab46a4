"""One line of advice: a package that cannot be loaded, a model or a folder that is not what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satdifuser.cli import main
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.diffusion.files import find_folder, read_config
from satdifuser.errors import UserError, expected, one_line


def test_a_package_that_is_broken_or_missing_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ImportError("libGL.so.1: cannot open shared object file", name="rasterio._base")
    assert expected(broken)
    assert "rasterio (GeoTIFF), which is installed but cannot be loaded (libGL.so.1" in one_line(broken)
    monkeypatch.setattr("satdifuser.optional.there", lambda name: False)
    for name, remedy in (("pyarrow", "'satdifuser[data]'"), ("s3fs", "'satdifuser[cloud]'"), ("timm", "timm")):
        lost = ModuleNotFoundError(f"No module named {name!r}", name=name)
        assert one_line(lost).endswith(f"which is not installed: pip install {remedy}")
    assert not expected(ImportError("cannot import name 'a'", name="satdifuser.nothing"))
    assert not expected(ImportError("of unknown origin"))


@pytest.mark.parametrize("place", ["transformer/config.json", "config.json"])
def test_a_diffusion_transformer_is_said_to_be_one(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(json.dumps({"_class_name": "PixArtTransformer2DModel"}))
    with pytest.raises(UserError, match=r"diffusion transformer \(PixArtTransformer2DModel\).*reads a UNet"):
        read_config(tmp_path / "unet" / "config.json", None, "UNet")


def test_a_hub_that_cannot_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot be reached from this .* hf download no/such "):
        find_folder("no/such", "a model", "give a folder")


def test_images_beside_their_masks_are_sent_to_the_reader_that_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng()
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(30):
            shape = (64, 64, 3) if folder == "images" else (64, 64)
            Image.fromarray(random.integers(0, 2, shape, np.uint8)).save(tmp_path / folder / f"{number}.png")
    with pytest.raises(UserError, match="are no classes: read them with data=rasters") as told:
        ImageFolder(str(tmp_path), sensor="satdifuser.data.bands.SENTINEL2_RGB")
    words = str(told.value).partition("read them with ")[2].partition(" data.sensor")[0].replace("'", "").split()
    given = ["data.sensor=SENTINEL2:B04/B03/B02", "data.classes=[no,yes]"]
    assert main(["data", "stats", *words, *given]) == 0, capsys.readouterr().err
