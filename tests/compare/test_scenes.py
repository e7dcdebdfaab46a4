"""Maps of a scene that a task names: by each model once, and in the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.compare import scenes
from satdifuser.compare.content import content_of
from satdifuser.compare.grid import digest, expand
from satdifuser.errors import UserError
from satdifuser.report.html import page


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 bands of reflectance, as Sentinel-2 has them."""
    import rasterio

    path = tmp_path_factory.mktemp("scene") / "there.tif"
    numbers = np.random.default_rng(0).integers(200, 4000, (13, 40, 56)).astype(np.uint16)
    transform = rasterio.Affine(10, 0, 500000, 0, -10, 5400000)
    with rasterio.open(
        path, "w", driver="GTiff", height=40, width=56, count=13, dtype="uint16", crs="EPSG:32633", transform=transform
    ) as file:
        file.write(numbers)
    return path


def test_a_task_names_a_scene_for_the_report_alone(scene: Path) -> None:
    """Its runs are those of a task without one, and keep their names."""
    from tests.compare.conftest import RECIPE, UNET, grid_config

    keys = []
    for more in ({}, {"scene": str(scene)}):
        config = grid_config(
            models={"unet": UNET}, tasks={"pixels": {"all": ["task=segmentation"], **more}}, recipe=RECIPE
        )
        keys.append([digest(cell.settings()) for cell in expand(config)])
        assert scenes.scene_of(config, "pixels") == more.get("scene")
    assert keys[0] == keys[1]


def test_a_scene_that_is_not_there_is_told_before_any_run(tmp_path: Path) -> None:
    from tests.compare.conftest import grid_config

    config = grid_config(tasks={"pixels": {"all": [], "scene": str(tmp_path / "none.tif")}})
    with pytest.raises(UserError, match=r"tasks\.pixels\.scene: .*none\.tif is not there"):
        scenes.check(config)


def test_maps_of_every_model_in_the_report(done_grid: Any, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {name: {"all": list(given), "scene": str(scene)} for name, given in done_grid.config.tasks.items()}
    config = done_grid.config.but(tasks=tasks)
    output = done_grid.shared.output
    maps = scenes.maps_of(config, done_grid.planned, output)
    assert set(maps) == {"pixels", "images"}
    for found in maps.values():
        assert not found.errors
        assert set(found.maps) == {"lw", "moe", "unet"}
        assert {one.shape for one in found.maps.values()} == {(40, 56, 3)}
        assert found.legend
        colours = {tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour, _ in found.legend}
        seen = {tuple(pixel) for one in found.maps.values() for pixel in np.unique(one.reshape(-1, 3), axis=0).tolist()}
        assert seen <= colours
    files = {path: path.stat().st_mtime_ns for path in (output / "scenes").iterdir()}
    again = scenes.maps_of(config, done_grid.planned, output)
    assert {path: path.stat().st_mtime_ns for path in (output / "scenes").iterdir()} == files
    np.testing.assert_array_equal(again["pixels"].maps["lw"], maps["pixels"].maps["lw"])

    content = scenes.with_maps(content_of(config, done_grid.planned, done_grid.shared, ""), maps)
    text = page(content)
    assert '<a href="#scenes">Maps of a scene</a>' in text
    assert text.count("there: the map of ") == 6
    broken = {"pixels": replace(maps["pixels"], maps={}, errors={"lw": "a band is missing"})}
    assert "No map: a band is missing" in page(scenes.with_maps(content, broken))
    assert 'id="scenes"' not in page(scenes.with_maps(content, {}))
    (output / "scenes").rename(output / "scenes-kept")
    monkeypatch.setattr("satdifuser.scenes.predict.flow.predict", _refuse)
    assert set(scenes.maps_of(config, done_grid.planned, output)["pixels"].errors) == {"lw", "moe", "unet"}


def _refuse(*_: Any, **__: Any) -> None:
    raise UserError("there is no band B04")
