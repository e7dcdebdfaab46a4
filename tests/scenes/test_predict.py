"""Maps of whole scenes by runs that were trained for it: held to the model itself, window by window."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from satdifuser.commands import predict as command
from satdifuser.commands import train
from satdifuser.commands.table import Launch
from satdifuser.config import compose
from satdifuser.data.bands import SENTINEL2
from satdifuser.diffusion.noise import Placed
from satdifuser.errors import UserError
from satdifuser.scenes import stream
from satdifuser.scenes.flow import carry
from satdifuser.scenes.out import open_output
from satdifuser.scenes.out.base import Form, Target
from satdifuser.scenes.predict.flow import predict
from satdifuser.scenes.predict.trained import load_run
from satdifuser.scenes.scene import Found
from satdifuser.scenes.units import units_of
from satdifuser.scenes.windows import Windows, suited
from tests.scenes.test_stream import Memory, Network, reference

SMALL = [
    *("encoder=colours", "fusion=mean", "trainer=quick", "trainer.min_steps=4", "trainer.max_steps=4"),
    *("data.splits.train.length=8", "data.splits.val.length=4", "data.splits.test.length=4"),
]


def trained(folder: Path, *words: str) -> Path:
    train.run(compose("train", [*SMALL, *words, f"run={folder}"]), quiet=True, draw=False)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("predict") / "pixels", "task=segmentation")


@pytest.fixture(scope="session")
def tiles_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("predict") / "tiles", "task=classification")


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentinel-2 as integers, with a corner that has no data."""
    path = tmp_path_factory.mktemp("scene") / "s2.tif"
    numbers = np.random.default_rng(3).integers(200, 4000, (13, 90, 131)).astype(np.uint16)
    numbers = np.repeat(np.repeat(numbers[:, ::6, ::6], 6, 1), 6, 2)[:, :90, :131]
    numbers[:, :20, :30] = 0
    profile: dict[str, Any] = {"driver": "GTiff", "count": 13, "height": 90, "width": 131, "dtype": "uint16"}
    with rasterio.open(
        path, "w", crs="EPSG:32632", transform=rasterio.Affine(10, 0, 6e5, 0, -10, 5e6), nodata=0, **profile
    ) as file:
        file.write(numbers)
        file.descriptions = tuple(SENTINEL2.names)
    return path


def settings_for(run: Path, scene: Path, out: Path, *words: str) -> Any:
    return compose("predict", [f"run={run}", f"scene={scene}", f"out={out}", "reading.scaling=dn", *words])


def read(path: Path) -> tuple[np.ndarray[Any, Any], Any]:
    with rasterio.open(path) as file:
        return file.read(), (file.profile, file.tags(), file.descriptions)


class Model(Network):
    """A run's model in the place of the network that the slow reference asks."""

    def __init__(self, model: Any) -> None:
        self.model, self.size, self.channels, self.reach, self.step = model, 64, model.task.outputs, 0, 1

    def whole(self, images: torch.Tensor, padding: int) -> torch.Tensor:
        batch = {"image": images.float(), "id": ["any"] * len(images)}
        with torch.no_grad():
            return self.model(batch, size=(64, 64)).logits.double()


def test_a_map_is_what_the_model_says_of_each_window_blended_in_float64(run: Path, scene: Path, tmp_path: Path) -> None:
    predict(settings_for(run, scene, tmp_path / "logits.tif", "output=logits"), Found("s2", str(scene)))
    predict(settings_for(run, scene, tmp_path / "map.tif"), Found("s2", str(scene)))
    numbers, _ = read(scene)
    there = (numbers != 0).any(0)
    model = load_run(str(run)).model.eval()
    memory = Memory(numbers / 10000.0)
    memory.sensor = SENTINEL2
    expected = reference(memory, Model(model), suited(64, 1, 8))
    logits, _ = read(tmp_path / "logits.tif")
    assert np.abs(logits - expected)[:, there].max() < 1e-5 * max(1.0, np.abs(expected).max())
    assert np.isnan(logits[:, ~there]).all()
    classes, (profile, tags, _) = read(tmp_path / "map.tif")
    assert (classes[0][there] == expected.argmax(0)[there]).mean() > 0.999
    assert (classes[0][~there] == 255).all()
    assert profile["crs"].to_epsg() == 32632
    assert profile["transform"] == rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)
    assert tags["SATDIFUSER_RUN"] == load_run(str(run)).fingerprint
    assert json.loads(tags["SATDIFUSER_WINDOW"]) == {"size": 64, "margin": 8, "overlap": 8, "step": 1}


def test_parts_make_the_file_once_all_are_there_and_the_command_knows_what_is(
    run: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stream, "plan", lambda place, *_: units_of(place.height, place.width, rows=32, columns=48))
    found, whole, parts = Found("s2", str(scene)), tmp_path / "whole.tif", tmp_path / "parts.tif"
    assert predict(settings_for(run, scene, whole), found).finished
    for number in (2, 0, 1):
        done = predict(settings_for(run, scene, parts), found, part=(number, 3))
        assert done.finished == (number == 1)
        assert done.computed > 0
        assert parts.exists() == done.finished
    assert parts.read_bytes() == whole.read_bytes()
    assert command.run(settings_for(run, scene, whole), Launch()) == [str(whole)]
    assert "is there already, made of the same scene in the same way" in capsys.readouterr().err


def test_a_dry_run_says_how_much_there_is_to_do_and_writes_nothing(
    run: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(settings_for(run, scene, tmp_path / "map.tif", "dry_run=true"), Launch()) == []
    said = capsys.readouterr().err
    assert "131 x 90 px in 12 windows of 64 px (margin 8, overlap 8)" in said
    assert list(tmp_path.iterdir()) == []


def test_answers_for_tiles_are_a_coarse_raster_on_the_same_ground(tiles_run: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles.tif"
    predict(settings_for(tiles_run, scene, out, "output=logits", "stride=32"), Found("s2", str(scene)))
    logits, (profile, _, _) = read(out)
    assert logits.shape[1:] == (3, 5)
    assert profile["transform"] == rasterio.Affine(320, 0, 6e5, 0, -320, 5e6)
    numbers, _ = read(scene)
    image = torch.from_numpy((numbers[:, 16:80, 48:112] / 10000.0).astype(np.float32))  # around the pixel 1, 2
    model = load_run(str(tiles_run)).model.eval()
    with torch.no_grad():
        expected = model({"image": image[None], "id": ["any"]}).logits[0].numpy()
    assert np.abs(logits[:, 1, 2] - expected).max() < 1e-5
    with pytest.raises(UserError, match=r"one answer for a window.*window\.margin"):
        predict(settings_for(tiles_run, scene, out, "window.margin=8"), Found("s2", str(scene)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stride=32"], "stride=32 is of tasks with one answer an image"),
        (["window.size=48"], r"window.size is 48, and colour-statistics was built for 64 px"),
        (["reading.sensor=LANDSAT8"], "reading.sensor is LANDSAT8, and .* was trained on"),
        (["output=values"], "output=values does not go with task=segmentation"),
        (["window.margin=32"], "no middle left"),
        (["reading.sensor=SENTINEL"], "reading.sensor is 'SENTINEL'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words: list[str], said: str, run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        predict(settings_for(run, scene, tmp_path / "map.tif", *words), Found("s2", str(scene)))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_the_scene_that_is_read(run: Path, scene: Path, tmp_path: Path) -> None:
    own, link = tmp_path / "own.tif", tmp_path / "link.tif"
    shutil.copy(scene, own)
    link.symlink_to(own)
    for out in (own, link):
        with pytest.raises(UserError, match=r"would be written over the scene itself .*own\.tif"):
            predict(settings_for(run, own, out, "overwrite=true"), Found("own", str(own)))
    picture = tmp_path / "picture.png"
    with rasterio.open(scene) as file:
        shades = (file.read([4, 3, 2]) // 16).astype(np.uint8)
    with rasterio.open(picture, "w", driver="PNG", count=3, height=90, width=131, dtype="uint8") as file:
        file.write(shades)
    before = picture.read_bytes()
    words = ["preview=true", "reading.bands=[B04,B03,B02]", "reading.scaling=8bit"]
    with pytest.raises(UserError, match="the picture of preview=true would be written over the scene"):
        predict(settings_for(run, picture, tmp_path / "picture.tif", *words), Found("picture", str(picture)))
    assert (own.read_bytes(), picture.read_bytes()) == (scene.read_bytes(), before)
    assert {path.name for path in tmp_path.iterdir()} == {"own.tif", "link.tif", "picture.png"}


def test_runs_that_a_scene_cannot_answer_are_refused(run: Path, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        load_run(str(tmp_path / "nowhere"))
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    (copied / "labels.json").unlink()  # as runs of earlier versions
    assert load_run(str(copied)).fingerprint == load_run(str(run)).fingerprint
    (copied / "labels.json").write_text("[1]")
    with pytest.raises(UserError, match=r"labels\.json is damaged"):
        load_run(str(copied))
    text = (copied / "config.yaml").read_text()
    assert "temporal: null" in text
    (copied / "config.yaml").write_text(
        text.replace("temporal: null", "temporal:\n  _target_: satdifuser.temporal.mean.TemporalMean")
    )
    with pytest.raises(UserError, match=r"several dates|damaged|config\.yaml"):
        load_run(str(copied))


def test_a_kill_at_any_moment_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "plan", lambda place, *_: units_of(place.height, place.width, rows=16, columns=40))
    windows, scene = Windows(16, 2, 4), Memory(np.random.default_rng(1).random((11, 120, 100)))
    form = Form("classes", "uint8", ("a", "b", "c"))
    target = Target(windows.place(scene.place), form, {}, {"scene": "memory"})
    settings: Any = compose("predict", ["run=any", "scene=any", "out=any"])

    def work(path: Path, pause: float = 0.0) -> bool:
        network = Network(16, 3, 2)

        def slow(images: torch.Tensor, ids: Any) -> torch.Tensor:
            time.sleep(pause)
            return Network.__call__(network, images, ids)

        answers: Any = type("Slow", (), {"channels": 3, "needed": None, "__call__": staticmethod(slow)})()
        return carry(scene, answers, windows, open_output(str(path), target), target, settings).finished

    assert work(tmp_path / "whole.tif")
    chance, forked = np.random.default_rng(int.from_bytes(os.urandom(4), "little")), 0
    context = multiprocessing.get_context("fork")
    path = tmp_path / "killed.tif"
    for _ in range(8):
        child = context.Process(target=work, args=(path, 0.004))
        child.start()
        child.join(float(chance.uniform(0.02, 0.25)))
        if child.is_alive():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            forked += 1
        child.join()
    assert work(path)
    assert forked
    assert path.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "words",
    [
        ["encoder=small_vit", "adapter=deflect"],  # its adapter sees bands that its input has not
        ["encoder=small_vit", "encoder.prepare.bands=[nir08,swir16,red]"],
        ["encoder=rcf"],
        pytest.param(["encoder=small", "encoder.timesteps=[21]", "encoder.noise_draws=1"], marks=pytest.mark.slow),
        pytest.param(["encoder=unet"], marks=pytest.mark.slow),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_scene_of_one_window_is_answered_as_the_sample_is(tmp_path: Path, words: list[str]) -> None:
    """Whatever an encoder looks at reaches it: a band that is left out would be 0, and the map still look like one."""
    folder = trained(tmp_path / "run", *words, "task=segmentation", "trainer.max_steps=2", "trainer.min_steps=2")
    numbers = np.random.default_rng().integers(200, 4000, (13, 64, 64), dtype=np.uint16)
    path, out = tmp_path / "s2.tif", tmp_path / "logits.tif"
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=13, dtype="uint16") as file:
        file.write(numbers)
        file.descriptions = SENTINEL2.names
    told = [f"run={folder}", f"scene={path}", f"out={out}", "output=logits", "window.margin=0", "window.overlap=0"]
    predict(compose("predict", told), Found("s2", str(path)))
    model = load_run(str(folder)).model
    image = torch.from_numpy(numbers.astype(np.float32) / np.float32(10000))[None]
    with torch.inference_mode():
        expected = model({"image": image, "id": [Placed("s2", 0, 0, 64)]}, size=(64, 64)).logits[0]
    with rasterio.open(out) as file:
        np.testing.assert_allclose(file.read(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_finest_band_makes_the_grid_that_images_had_in_training() -> None:
    from satdifuser.data.inputs import ImageInput
    from satdifuser.scenes.answers import bands_of

    def needed(*bands: str) -> tuple[str, ...] | None:
        return bands_of(SimpleNamespace(prepare=ImageInput(bands)))

    assert needed("red", "nir08") == ("B04", "B8A")
    assert needed("nir08", "swir16") == ("B8A", "B11", "B02")  # of 20 m alone, beside a band of 10 m
    assert bands_of(SimpleNamespace()) is None
    with_spectra = SimpleNamespace(prepare=ImageInput(["red"]), adapter=SimpleNamespace(spectra=True))
    assert bands_of(with_spectra) is None


def test_a_run_on_a_store_of_pooled_features_pools_what_it_sees_of_a_scene(tmp_path: Path, scene: Path) -> None:
    from satdifuser.commands import extract

    lengths = [word for word in SMALL if word.startswith("data.")]
    store = f"store.path={tmp_path / 'mean.zarr'}"
    extract.run(compose("extract", ["encoder=rcf", store, "store.keep=mean", "store.dtype=float32", *lengths]))
    words = ["encoder=rcf", "task=classification"]
    stored = trained(tmp_path / "stored", *words, f"features={tmp_path / 'mean.zarr'}")
    live = trained(tmp_path / "live", *words, "pool=mean")
    for name, folder in (("stored", stored), ("live", live)):
        out = f"out={tmp_path / name}.tif"
        predict(compose("predict", [f"run={folder}", f"scene={scene}", out, "output=logits"]), Found("s2", str(scene)))
    with rasterio.open(tmp_path / "stored.tif") as one, rasterio.open(tmp_path / "live.tif") as other:
        np.testing.assert_allclose(one.read(), other.read(), rtol=1e-3, atol=1e-4)
