"""A store as xarray people expect it: samples by name, dimensions with plain names, means that do not overflow."""

from __future__ import annotations

import pickle
import random
import re
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, open_xarray
from satdifuser.store.merge import merge, prune
from satdifuser.store.verify import verify

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps")]
SYSTEMS = ("EPSG:32633", "EPSG:4326")


@pytest.fixture(autouse=True)
def _no_warning() -> Any:
    with warnings.catch_warnings():
        for kind in (UserWarning, FutureWarning, RuntimeWarning):
            warnings.simplefilter("error", kind)
        yield


def places(made: Any, chance: float = 0.7) -> dict[str, Any]:
    """Bounds and reference systems of some of the samples."""
    found: dict[str, Any] = {split: {} for split in made.ids}
    for split, names in made.ids.items():
        for name in names:
            if random.random() < chance:
                left, bottom = random.uniform(0, 9), random.uniform(0, 9)
                found[split][name] = ((left, bottom, left + random.random(), bottom + 1.5), random.choice(SYSTEMS))
    return found


def of_all(made: Any, found: dict[str, Any]) -> list[Any]:
    return [found[split].get(name) for split, names in made.ids.items() for name in names]


def lies(data: Any, wanted: list[Any]) -> None:
    """The data set has these places, NaN where there is none."""
    for number, side in enumerate(("left", "bottom", "right", "top")):
        given = [np.nan if place is None else place[0][number] for place in wanted]
        np.testing.assert_array_equal(data[side].values, given)
    assert data["crs"].values.tolist() == ["" if place is None else place[1] for place in wanted]


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_a_sample_is_found_by_its_name_by_xarray_alone(tmp_path: Path, made: Any, dtype: str, keep: str) -> None:
    plan = made.plan(dtype, keep)
    made.write(tmp_path / "a.zarr", plan)
    packed = plan.form.pack(made.bank)
    with xarray.open_zarr(tmp_path / "a.zarr") as data:
        assert data.coords["sample"].values.tolist() == made.names
        assert set(data.data_vars) == {column.name for column in plan.columns}
        row = random.randrange(len(made.names))
        tap = random.choice(made.spec.taps)
        wanted = packed.of(tap)[0][row]
        found = data[str(tap)].sel(sample=made.names[row]).values
        np.testing.assert_array_equal(found, (wanted.view(torch.uint16) if dtype == "bfloat16" else wanted).numpy())


def test_dimensions_are_plain_where_all_taps_are_of_one_size(tmp_path: Path, make: Any, spec: BankSpec) -> None:
    taps = tuple(replace(tap, channels=4) for tap in spec.taps)
    make(spec=replace(spec, taps=taps)).write(tmp_path / "a")
    with xarray.open_zarr(tmp_path / "a") as data:
        assert data["mid.block@21"].dims == ("sample", "channel", "y_2", "x_3")
    one = replace(spec, taps=spec.taps[1:2])
    make(spec=one).write(tmp_path / "b")
    for data in (xarray.open_zarr(tmp_path / "b"), open_xarray(tmp_path / "b")):
        assert data["up.0@21"].dims == ("sample", "channel", "y", "x")


@pytest.mark.parametrize(("dtype", "keep"), FORMS)
def test_every_form_opens_as_the_float32_that_heads_get(tmp_path: Path, made: Any, dtype: str, keep: str) -> None:
    made.write(tmp_path / "a", made.plan(dtype, keep))
    data = open_xarray(tmp_path / "a")
    assert set(data.data_vars) == set(map(str, made.spec.taps))
    store = FeatureStore(tmp_path / "a")
    for split, names in made.ids.items():
        bank = store.split(split).batch(range(len(names)))["bank"]
        mine = data.sel(sample=data["split"] == split)
        assert mine["sample"].values.tolist() == names
        for tap in made.spec.taps:
            assert mine[str(tap)].dtype == np.float32
            np.testing.assert_array_equal(mine[str(tap)].values, bank[tap].float().numpy())
    assert open_xarray(tmp_path / "a", split="val")["sample"].values.tolist() == made.ids["val"]
    some = open_xarray(tmp_path / "a", taps=["up.1"], timesteps=[161])
    assert {name: array.dims for name, array in some.data_vars.items()} == {"up.1@161": ("sample", "channel", "y", "x")}


def test_means_do_not_overflow(tmp_path: Path, make: Any, small_spec: BankSpec) -> None:
    made = make({"train": 40}, small_spec, mask=(2, 2))
    values = 6e4 * torch.rand(40, 3, 2, 2)
    made.bank = FeatureBank(small_spec, {small_spec.taps[0]: values})
    wanted = values.double().mean((0, 2, 3)).numpy()
    for dtype, loss in (("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 5e-3), ("int8", 1e-2)):
        made.write(tmp_path / dtype, made.plan(dtype))
        found = open_xarray(tmp_path / dtype).mean(["sample", "y", "x"])
        assert set(found.data_vars) == {"mid@21"}
        np.testing.assert_allclose(found["mid@21"].values, wanted, rtol=loss)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_any_choice_of_rows_and_sides_is_read_as_numpy_has_it(
    tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr("satdifuser.store.lazy.PIECE", 500)
    made.write(tmp_path / "a", made.plan(dtype))
    data = open_xarray(tmp_path / "a")["up.0@21"]
    whole = data.values
    keys: list[Any] = [3, -1, slice(2, 9, 3), slice(None, None, -1), slice(5, 5), np.array([13, 0, 7, 7])]
    for _ in range(25):
        rows, channels = random.choice(keys), random.choice([0, slice(1, None), np.array([2, 0])])
        y, x = random.choice([1, slice(None, None, 2)]), random.choice([slice(3), np.array([5, 1]), 4])
        chosen = whole
        for axis, key in reversed(list(enumerate((rows, channels, y, x)))):
            chosen = chosen[(slice(None),) * axis + (key,)]
        found = data.isel(sample=rows, **dict(zip(data.dims[1:], (channels, y, x), strict=True)))
        np.testing.assert_array_equal(found.values, chosen)
    again = pickle.loads(pickle.dumps(data))  # as the workers of Dask get it
    np.testing.assert_array_equal(again.values, whole)


@pytest.mark.parametrize("keep", ["mean", "max", "moments", "quantiles"])
def test_pooled_numbers_have_their_names(tmp_path: Path, make: Any, spec: BankSpec, keep: str) -> None:
    spec = replace(spec, taps=(*spec.taps, Tap("deep", 21, 3, 2, 24)), image_size=(24, 24))  # a map of one pixel
    made = make(spec=spec)
    made.write(tmp_path / "a", made.plan("float32", keep))
    data = open_xarray(tmp_path / "a")
    names = {"moments": ["mean", "std"], "quantiles": ["mean", "std", "q10", "q25", "q50", "q75", "q90"]}.get(keep, [])
    maps = made.bank.map("up.0", 21).double().flatten(2).numpy()
    wanted = {"mean": maps.mean(2), "std": maps.std(2), "max": maps.max(2)}
    wanted |= {f"q{share}": np.quantile(maps, share / 100, axis=2) for share in (10, 25, 50, 75, 90)}
    for name in names or [keep]:
        found = data["up.0@21"].sel(statistic=name) if names else data["up.0@21"]
        assert found.dims == ("sample", "channel_3")
        np.testing.assert_allclose(found.values, wanted[name], atol=1e-5)
    with xarray.open_zarr(tmp_path / "a") as plainly:
        assert plainly["up.0@21"].attrs["statistics"] == (names or [keep])
        assert plainly["deep@21"].attrs["statistics"] == (["mean"] if keep == "quantiles" else names or [keep])
    assert data["deep@21"].sizes["channel_2"] == 2


def test_maps_know_which_pixels_they_are_over(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "a")
    data = open_xarray(tmp_path / "a", taps=["up.0"])
    assert data["y"].values.tolist() == [2.0, 6.0, 10.0, 14.0]
    assert data["x"].values.tolist() == [2.0, 6.0, 10.0, 14.0, 18.0, 22.0]


def test_places_and_labels_are_coordinates(tmp_path: Path, made: Any) -> None:
    found = places(made)
    made.write(tmp_path / "a", made.plan(places=lambda: found))
    data = open_xarray(tmp_path / "a")
    lies(data, of_all(made, found))
    assert data["class"].values.tolist() == list(made.classes.classes)
    for name in ("label", "multilabel", "mask", "target"):
        np.testing.assert_array_equal(data[name].values, made.labels[name].numpy())
    by_class = data.groupby("label").mean()["up.0@21"]
    first = int(by_class["label"][0])
    wanted = made.bank.map("up.0", 21)[made.labels["label"] == first].double().mean(0)
    np.testing.assert_allclose(by_class[0].values, wanted.numpy(), atol=1e-5)
    with xarray.open_zarr(tmp_path / "a") as plainly:
        assert {"left", "bottom", "right", "top", "crs"} <= set(plainly.coords)
        systems = plainly.attrs["crs"]
        numbers = plainly["crs"].values
        assert [systems[n] if n >= 0 else None for n in numbers] == [p and p[1] for p in of_all(made, found)]


def test_one_reference_system_is_an_attribute(tmp_path: Path, made: Any) -> None:
    box = ((1.0, 2.0, 3.0, 4.0), "EPSG:32633")
    made.write(tmp_path / "a", made.plan(places=lambda: {"val": dict.fromkeys(made.ids["val"], box)}))
    assert open_xarray(tmp_path / "a").attrs["crs"] == "EPSG:32633"
    made.write(tmp_path / "b", made.plan(places=lambda: {}))
    assert "crs" not in open_xarray(tmp_path / "b").variables
    assert not (tmp_path / "b" / "left").exists()


def test_merged_and_pruned_stores_keep_names_and_places(tmp_path: Path, make: Any) -> None:
    each = [make({"train": 3, "val": 2}), make({"train": 4, "test": 2}), make({"val": 2})]
    for number, made in enumerate(each):  # their names must differ
        made.names = [f"{number}{name}" for name in made.names]
        names = iter(made.names)
        made.ids = {split: [next(names) for _ in ids] for split, ids in made.ids.items()}
    found = [places(made) for made in each]
    for number, made in enumerate(each):  # the last does not say where its samples are
        chosen = found[number] if number < 2 else None
        made.write(tmp_path / f"{number}", made.plan(places=None if chosen is None else lambda f=chosen: f))
    merge(tmp_path / "all", [str(tmp_path / f"{number}") for number in range(3)])
    where = {name: place for one in found[:2] for split in one.values() for name, place in split.items()}
    prune(str(tmp_path / "all"), tmp_path / "small", [21], ["up.0"])
    for path in (tmp_path / "all", tmp_path / "small"):
        assert verify(str(path)) == []
        data = open_xarray(path)
        wanted = [name for split in ("train", "val", "test") for made in each for name in made.ids.get(split, [])]
        assert data["sample"].values.tolist() == wanted
        lies(data, [where.get(name) for name in wanted])
        with xarray.open_zarr(path) as plainly:
            assert plainly["sample"].values.tolist() == wanted
            name = random.choice(wanted)
            np.testing.assert_array_equal(
                plainly["up.0@21"].sel(sample=name).values, data["up.0@21"].sel(sample=name).values
            )


@pytest.mark.parametrize("name", ["sample", "left", "crs"])
def test_a_changed_name_or_place_is_found(tmp_path: Path, made: Any, name: str) -> None:
    found = places(made)
    made.write(tmp_path / "a", made.plan(places=lambda: found))
    file = next(path for path in (tmp_path / "a" / name).rglob("*") if path.is_file() and path.name != "zarr.json")
    data = bytearray(file.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)
    (fault,) = verify(str(tmp_path / "a"))
    assert re.match(rf"{name}/\S+ is damaged", fault)


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, made: Any) -> None:
    made.write(tmp_path / "a")
    for options, words in (({"split": "tests"}, "did you mean test"), ({"taps": ["up"]}, "up.0")):
        with pytest.raises(UserError, match=words) as caught:
            open_xarray(tmp_path / "a", **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_samples_of_several_dates_keep_their_days(tmp_path: Path, make: Any, spec: BankSpec, dtype: str) -> None:
    made = make(spec=replace(spec, dates=3))
    made.labels["dates"] = torch.randint(0, 20000, (14, 3))
    made.labels["dates"][5, 2] = -1
    made.write(tmp_path / "a", made.plan(dtype))
    data = open_xarray(tmp_path / "a")
    assert data["up.0@21"].dims == ("sample", "time", "channel_3", "y_4", "x_6")
    days = data["dates"].values.astype("datetime64[D]")
    assert np.isnat(days[5, 2])
    known = made.labels["dates"].numpy() >= 0
    assert (days[known].astype(int) == made.labels["dates"].numpy()[known]).all()
    bank = FeatureStore(tmp_path / "a").split("test").batch([1])["bank"]
    found = data["up.0@21"].sel(sample=made.ids["test"][1])
    np.testing.assert_array_equal(found.values, bank.map("up.0", 21)[0].float().numpy())


def test_a_store_afar_opens_as_one_on_disk(tmp_path: Path, make: Any, small_spec: BankSpec) -> None:
    made = make({"train": 5}, small_spec, mask=(2, 2))
    made.write(tmp_path / "a", made.plan("int8"))
    near, far = open_xarray(tmp_path / "a"), open_xarray(f"file://{tmp_path}/a")
    xarray.testing.assert_equal(near.load(), far.load())


def test_damage_is_found_as_it_is_read(tmp_path: Path, make: Any, small_spec: BankSpec) -> None:
    made = make({"train": 5}, small_spec, mask=(2, 2))
    made.write(tmp_path / "a")
    file = tmp_path / "a" / "mid@21" / "c.0.0.0.0"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    opened = open_xarray(tmp_path / "a")
    with pytest.raises(UserError, match="is damaged"):
        opened["mid@21"].sel(sample=made.names[0]).load()
    open_xarray(tmp_path / "a", check=False)["mid@21"].load()


def test_the_documented_way_runs(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write(tmp_path / "features.zarr", made.plan("float16"))
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
    block = re.search(r"((?:    .*\n|\n)*    from satdifuser.store import open_xarray\n(?:    .*\n|\n)*)", text)
    assert block is not None
    found: dict[str, Any] = {}
    exec(textwrap.dedent(block[1]), found)
    train = made.bank.map("up.0", 21)[made.rows("train")]
    np.testing.assert_allclose(found["means"]["up.0@21"].values, train.mean(0).numpy(), atol=2e-3)
    np.testing.assert_allclose(found["one"]["up.0@21"].values, train[0].numpy(), rtol=1e-3, atol=1e-6)
    assert found["by_class"]["label"].values.tolist() == sorted(set(made.labels["label"][:7].tolist()))


def test_georeferenced_files_are_found_by_their_bounds(tmp_path: Path) -> None:
    import rasterio
    from rasterio.transform import from_origin

    from satdifuser.cli import main

    wanted = {}
    for number, split in enumerate(("train", "train", "val", "test")):
        place = from_origin(500000 + 160 * number, 5e6, 10, 10)
        path = tmp_path / split / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        profile = {"height": 16, "width": 16, "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "transform": place}
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            file.write(np.random.default_rng(number).integers(1, 255, (3, 16, 16), np.uint8))
        wanted[number] = (500000 + 160 * number, 5e6 - 160, 500160 + 160 * number, 5e6)
    words = ["data=rasters", f"data.root={tmp_path}", "data.images='*/*.tif'", "data.sensor=SENTINEL2:B04/B03/B02"]
    words += ["data.size=16", "data.scaling=8bit", "data.split_by=folder", "encoder=colours"]
    assert main(["extract", *words, f"store.path={tmp_path / 'f.zarr'}"]) == 0
    data = open_xarray(tmp_path / "f.zarr")
    assert data.sizes["sample"] == 4
    for number, bounds in wanted.items():
        (name,) = (name for name in data["sample"].values if name.endswith(f"{number}.tif"))
        one = data.sel(sample=name)
        assert tuple(float(one[side]) for side in ("left", "bottom", "right", "top")) == bounds
        assert str(one["crs"].values) == data.attrs["crs"] == "EPSG:32633"
