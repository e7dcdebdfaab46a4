"""Tables of samples: what other libraries write, joined to ids as people write them; each fault is one line."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from satdifuser.data.files.tree import warn_once
from satdifuser.data.matching import Names
from satdifuser.data.splits.places import Footprint
from satdifuser.data.tables import Table, read_table
from satdifuser.errors import UserError

IDS = [f"north/tile_{number}.tif" for number in range(30)] + [f"south/tile_{number}.tif" for number in range(20, 50)]


@pytest.fixture(autouse=True)
def _every_line_again() -> None:
    warn_once.cache_clear()


def frame(seed: int = 0, count: int = 60) -> pandas.DataFrame:
    rng = np.random.default_rng(seed)
    words = ["a, b", 'say "c"', "d;e", "f g", "é|ü"]
    return pandas.DataFrame(
        {
            "id": IDS[:count],
            "word": rng.choice(words, count),
            "x": rng.normal(size=count),
            "n": rng.integers(0, 9, count),
        }
    )


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_is_what_pandas_wrote(tmp_path: Path, mark: str, encoding: str) -> None:
    whole = frame()
    whole.to_csv(tmp_path / "t.csv", sep=mark, encoding=encoding, index=False)
    table = read_table(tmp_path / "t.csv")
    assert (table.columns, table.key, table.rows) == (("id", "word", "x", "n"), "id", tuple(IDS))
    assert list(table.column("word").values()) == whole["word"].tolist()
    assert [float(cell) for cell in table.column("x").values()] == whole["x"].tolist()
    assert table.column("n") == dict(zip(IDS, map(str, whole["n"]), strict=True))


def test_parquet_is_what_pandas_wrote(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    whole = frame()
    whole["list"] = [["a", "b"][: number % 3] for number in range(60)]
    whole.loc[3, "x"] = np.nan
    whole.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.column("word") == dict(zip(IDS, whole["word"], strict=True))
    assert table.column("n") == dict(zip(IDS, whole["n"].tolist(), strict=True))
    assert table.column("list") == dict(zip(IDS, whole["list"], strict=True))
    assert table.column("x")[IDS[3]] is None
    assert sum(cell is None for cell in table.column("x").values()) == 1


@pytest.mark.parametrize("ending", ["geojson", "parquet"])
@pytest.mark.parametrize("crs", [4326, 32632])
def test_geometry_is_what_geopandas_wrote(tmp_path: Path, ending: str, crs: int) -> None:
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    rng = np.random.default_rng(1)
    x, y = (rng.uniform(8, 9, 60), rng.uniform(47, 48, 60)) if crs == 4326 else rng.uniform(4e5, 5e5, (2, 60))
    boxes = shapely.box(x, y, x + 0.25, y + 0.5)
    boxes[7] = shapely.affinity.rotate(boxes[7], 30)
    boxes[8] = shapely.Point(x[8], y[8]).buffer(0.25)
    boxes[9] = shapely.Point(x[9], y[9])
    geopandas.GeoDataFrame(frame(), geometry=boxes, crs=crs)[["id", "word", "geometry"]].pipe(
        lambda one: (
            one.to_parquet(tmp_path / "t.parquet") if ending == "parquet" else one.to_file(tmp_path / "t.geojson")
        )
    )
    table = read_table(tmp_path / f"t.{ending}", key="id")
    assert table.columns == ("id", "word")
    found = table.footprints
    for name, box in zip(IDS, boxes, strict=True):
        left, bottom, right, top = box.bounds
        place = found[name]
        assert (min(place.x), min(place.y), max(place.x), max(place.y)) == pytest.approx((left, bottom, right, top))
        assert str(crs) in place.crs
        if name == IDS[7]:  # a turned tile keeps its corners
            corners = set(np.round(list(zip(place.x, place.y, strict=True)), 6).ravel())
            assert corners == set(np.round(np.array(box.exterior.coords), 6).ravel())
    where = read_table(tmp_path / f"t.{ending}").joined(IDS).footprints
    assert where == found


def test_json_without_geometry_and_plain_records_are_tables_too(tmp_path: Path) -> None:
    features = [{"type": "Feature", "id": n, "geometry": None, "properties": {"word": f"w{n}"}} for n in range(3)]
    written(tmp_path / "a.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    table = read_table(tmp_path / "a.geojson")
    assert (table.key, table.column("word"), table.footprints) == ("id", {"0": "w0", "1": "w1", "2": "w2"}, {})
    written(tmp_path / "b.json", json.dumps([{"name": "x", "a": 1}, {"name": "y", "b": 2}]))
    assert read_table(tmp_path / "b.json").column("b") == {"x": None, "y": 2}
    with pytest.raises(UserError, match="is JSON, but no table"):
        read_table(written(tmp_path / "c.json", '{"a": 1}'))


# --- whom a row is about


def test_names_are_found_with_or_without_folder_and_ending() -> None:
    names = Names(IDS)
    random.seed(1)
    for name in IDS:
        folder, _, file = name.partition("/")
        stem = file.removesuffix(".tif")
        alike = 20 <= int(stem.removeprefix("tile_")) < 30
        for written_as in (
            name,
            f"./{name}",
            f"/data/{name}",
            f"{folder}/{stem}",
            f"{folder}/{stem}.png",
            f"{folder}\\{file}",
        ):
            assert names.find(written_as) == name
        for short in (file, stem, f"{stem}.png"):
            if alike:
                with pytest.raises(
                    UserError, match=rf"a table names {short}, which may be north/{file} or south/{file}"
                ):
                    names.find(short)
            else:
                assert names.find(short) == name
        assert names.find(f"east/{file}") is None  # another folder is another file
    assert names.find("tile_3") == "north/tile_3.tif"  # and not tile_30
    mixed = Names(["a.tif", "b/a.tif", "c.v1", "c.v2", "7", "s.tar.gz"])
    found = {one: mixed.find(one) for one in ("a.tif", "a", "b/a", "c.v1", "7.png", "s.tar", "d")}
    assert list(found.values()) == ["a.tif", "a.tif", "b/a.tif", "c.v1", "7", None, None]
    assert mixed.find("c") is None  # .v1 is no ending of a file, so c is another name
    assert Names(["tile_1.S2"]).find("tile_1.S1") is None


@pytest.mark.parametrize("seed", range(3))
def test_joined_is_a_plain_lookup(tmp_path: Path, seed: int) -> None:
    whole = frame(seed, 30).sample(frac=1, random_state=seed)
    whole["id"] = whole["id"].str.removeprefix("north/").str.removesuffix(".tif")
    whole.to_csv(tmp_path / "t.csv", index=False)
    names = IDS[3:30]
    table = read_table(tmp_path / "t.csv").joined(names)
    cells = {row.id: row.word for row in whole.itertuples()}
    assert table.column("word") == {name: cells[Path(name).stem] for name in names}


def test_the_key_is_found_by_its_name_or_by_what_agrees(tmp_path: Path) -> None:
    rows = "\n".join(f"{number},{name},w" for number, name in enumerate(IDS))
    table = read_table(written(tmp_path / "t.csv", f"id,Image Path,word\n{rows}\n"))
    with pytest.raises(UserError, match=r"has several columns .*\(id, Image Path\): set data\.key to one of id, Image"):
        table.column("word")
    assert table.joined(IDS).key == "Image Path"
    assert set(read_table(tmp_path / "t.csv", key="Image Path").column("word")) == set(IDS)
    none = read_table(written(tmp_path / "n.csv", f"a,b,c\n{rows}\n"))
    with pytest.raises(
        UserError, match=r"data\.table .*n\.csv has no column .* names samples: set data\.key to one of a, b, c"
    ):
        none.joined(IDS)
    with pytest.raises(UserError, match=r"has no column Id: it has id, Image Path, word; did you mean id"):
        read_table(tmp_path / "t.csv", key="Id")
    assert read_table(written(tmp_path / "one.csv", "whatever\nx\ny\n")).rows == ("x", "y")
    numbers = read_table(written(tmp_path / "numbers.csv", "id,word\n1,a\n2,b\n")).joined(["img/1.png", "img/2.png"])
    assert numbers.column("word") == {"img/1.png": "a", "img/2.png": "b"}


def test_what_does_not_join_is_one_line_with_a_count_and_the_first(tmp_path: Path, caplog: Any) -> None:
    def table(rows: str) -> Table:
        return read_table(written(tmp_path / "t.csv", f"id,word\n{rows}"), name="data.labels")

    with pytest.raises(UserError, match=r"t\.csv: 2 of 3 samples have no row, b first \(rows name id as z\): add them"):
        table("a,1\nz,2\n").joined(["a", "b", "c"])
    with pytest.raises(UserError, match="1 samples have several rows that differ, a first"):
        table("a,1\na,2\nb,1\n").joined(["a", "b"])
    with pytest.raises(UserError, match=r"1 rows have no id, row 3 first"):
        table("a,1\n,2\n").joined(["a"])
    with pytest.raises(UserError, match="3 of 3 samples have no row, a first"):
        table("x,1\n").joined(["a", "b", "c"], "skip")
    with caplog.at_level(logging.WARNING):
        found = table("a,1\na,1\ny,3\nz,2\n").joined(["a", "b"], "skip")
        table("a,1\na,1\ny,3\nz,2\n").joined(["a", "b"], "skip")
    assert found.column("word") == {"a": "1"}
    said = [record.getMessage().partition("t.csv: ")[2] for record in caplog.records]
    assert said == [
        "1 of 2 samples have no row and are left out, b first",
        "2 rows are of no sample, y first",
        "1 rows stand twice and count once",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "is empty: its first line must name the columns"),
        ("t.csv", b"id,word\n", "has no rows"),
        ("t.csv", b"id,a,a\nx,1,2\n", "has several columns a"),
        ("t.csv", b"id,a\nx,1\ny,1,2\n", r"has 3 cells in row 3 and 2 columns \(delimiter ,\): put quotes"),
        ("t.csv", b"id,a\nx,caf\xe9\n", r"is not UTF-8 \(byte 10\)"),
        ("t.csv", b"id,a\nx,\0\n" + b"y" * 200_000, "t.csv"),
        ("t.parquet", b"PAR1none", "cannot be read"),
        ("t.geojson", b"{", "cannot be read"),
        ("t.xlsx", b"PK", r"is a table of no kind that is read \(\.csv"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is no file: give the path"):
        read_table(tmp_path / "none.csv")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"pyarrow is not installed: pip install 'satdifuser\[data\]', or save it as CSV"
    ):
        read_table(tmp_path / "t.parquet")


def test_corners_go_around() -> None:
    assert Footprint.box(1, 2, 3, 4, "EPSG:4326") == Footprint((1, 3, 3, 1), (4, 4, 2, 2), "EPSG:4326")
