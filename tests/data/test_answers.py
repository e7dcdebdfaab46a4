"""What a table says of samples: classes, lists of classes, numbers, metadata; each fault is one line."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from satdifuser.data.answers import answers, classes_of, metadata
from satdifuser.data.classes import ClassTable
from satdifuser.data.files.tree import warn_once
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.tables import Table, read_table
from satdifuser.errors import UserError

CLASSES = ["bare soil", "crops", "water, open", "wood"]


@pytest.fixture(autouse=True)
def _every_line_again() -> None:
    warn_once.cache_clear()


def table(folder: Path, text: str, name: str = "t.csv") -> Table:
    (folder / name).write_text(text, encoding="utf-8")
    return read_table(folder / name)


class Made(Reader):
    name = "made"

    def __init__(self, found: dict[str, Any], **settings: Any) -> None:
        self.found = found
        super().__init__(list(found), sensor="SENTINEL2:B02", size=4, **settings)

    def read(self, name: str) -> Raw:
        return Raw([np.zeros((4, 4), np.uint16)], self.found[name])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("seed", range(3))
def test_a_column_of_words_or_of_numbers_is_a_class(tmp_path: Path, ending: str, seed: int) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 4, 80)
    numbers[:4] = range(4)
    whole = pandas.DataFrame({"name": [f"s{n}" for n in range(80)], "number": numbers, "from one": numbers + 1})
    whole["word"] = [CLASSES[number] for number in numbers]
    whole["float"] = numbers * 1.0
    write = whole.to_parquet if ending == "parquet" else whole.to_csv
    write(tmp_path / f"t.{ending}", index=False)
    found = read_table(tmp_path / f"t.{ending}")
    for column, known in (
        ("number", CLASSES),
        ("word", CLASSES),
        ("float", CLASSES),
        ("number", None),
        ("from one", None),
    ):
        classes = known or classes_of(found, "label", column)
        data = Made(answers(found, "label", column), label="label", classes=classes)
        assert data.read_labels(range(80))["label"].tolist() == numbers.tolist()
    assert classes_of(found, "label", "word") == CLASSES
    assert classes_of(found, "label", "from one") == ["1", "2", "3", "4"]
    assert (
        ClassTable({n + 1: name for n, name in enumerate(CLASSES)}).label(answers(found, "label", "from one")["s0"])
        == 0
    )


@pytest.mark.parametrize("seed", range(3))
def test_several_classes_are_columns_or_a_list_in_one(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((50, 4)) < 0.4
    truth[0] = [True, False, True, False]
    names = [f"s{n}" for n in range(50)]
    whole = pandas.DataFrame({"name": names})
    for place in (2, 0, 3, 1):  # in another order than the classes
        whole[f"is {CLASSES[place]}"] = truth[:, place].astype(int)
        whole[CLASSES[place]] = truth[:, place]
    lists = [[CLASSES[place] for place in np.flatnonzero(row)] for row in truth]
    whole["semicolons"] = ["; ".join(row) or "[]" for row in lists]
    whole["bars"] = ["|".join(row) or "[]" for row in lists]
    whole["json"] = [json.dumps(row) for row in lists]
    whole["letters"] = [" ".join("abcd"[place] for place in np.flatnonzero(row)) or "[]" for row in truth]
    whole["numbers"] = [",".join(map(str, np.flatnonzero(row))) or "[]" for row in truth]
    whole.to_csv(tmp_path / "t.csv", index=False)
    found = read_table(tmp_path / "t.csv")

    def learned(columns: Any, classes: list[str] = CLASSES, separator: str | None = None) -> torch.Tensor:
        given = answers(found, "multilabel", columns, separator=separator, classes=classes)
        labels: torch.Tensor = Made(given, label="multilabel", classes=classes).read_labels(range(50))["multilabel"]
        return labels

    wanted = torch.from_numpy(truth).float()
    shuffled = [CLASSES[place] for place in (3, 1, 0, 2)]
    assert torch.equal(learned(shuffled), wanted)  # columns by the names of the classes
    assert torch.equal(learned([f"is {name}" for name in CLASSES]), wanted)  # by their order
    assert torch.equal(learned("is *"), wanted[:, [2, 0, 3, 1]])  # by the order of the table
    for column in ("semicolons", "bars", "json", "numbers"):
        assert torch.equal(learned(column), wanted), column
    assert torch.equal(learned("letters", list("abcd"), " "), wanted)
    assert classes_of(found, "multilabel", "semicolons", ";") == CLASSES
    assert classes_of(found, "multilabel", "numbers") == ["0", "1", "2", "3"]
    assert classes_of(found, "multilabel", "letters", " ") == list("abcd")


def test_what_separates_is_said_and_asked_for_where_it_may_be_two(tmp_path: Path, caplog: Any) -> None:
    found = table(tmp_path, 'id,one,two,spaces\nx,a;b,"a;b,c",a b\ny,c,d,c\n')
    with caplog.at_level(logging.WARNING):
        assert answers(found, "multilabel", "one") == {"x": ("a", "b"), "y": ("c",)}
        assert answers(found, "multilabel", "spaces") == {"x": ("a b",), "y": ("c",)}
    said = [record.getMessage().partition("t.csv: ")[2] for record in caplog.records]
    assert said[0] == "; separates the classes of column one"
    assert said[1] == "each cell of column spaces is one class; if spaces separate, set separator"
    with pytest.raises(UserError, match="column two has ; and , in its cells: set which separates"):
        answers(found, "multilabel", "two")
    assert answers(found, "multilabel", "two", separator=",")["x"] == ("a;b", "c")


def test_a_number_is_a_target_also_with_a_comma(tmp_path: Path) -> None:
    found = table(tmp_path, "id;t;u\nx;1,5;2e3\ny;-2;7\n")
    assert answers(found, "target", "t") == {"x": 1.5, "y": -2.0}
    assert answers(found, "target", "u") == {"x": 2000.0, "y": 7.0}
    with pytest.raises(UserError, match=r"column t: 1 cells are not a number, x first \(1,5\): correct them"):
        answers(table(tmp_path, 'id,t\nx,"1,5"\ny,2\n'), "target", "t")
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    pandas.DataFrame({"id": [f"s{n}" for n in range(40)], "t": values}).to_csv(tmp_path / "n.csv", index=False)
    assert list(answers(read_table(tmp_path / "n.csv"), "target", "t").values()) == values.tolist()


def test_cells_that_are_empty_or_wrong_are_one_line(tmp_path: Path, caplog: Any) -> None:
    found = table(tmp_path, "id,t,w,b,c\np,1,a,1,0\nq,nan,,2,1\nr,,b,0,x\ns,inf,c,0,\n")
    with pytest.raises(UserError, match=r"column t: 1 cells are not a number, s first \(inf\)"):
        answers(found, "target", "t")
    found = table(tmp_path, "id,t,w,b,c\np,1,a,1,0\nq,nan,,2,1\nr,,b,0,x\ns,4,c,0,\n")
    with pytest.raises(UserError, match=r"t\.csv, column t: 2 cells are empty, q first: fill them in"):
        answers(found, "target", "t")
    with pytest.raises(UserError, match="column w: 1 cells are empty, q first"):
        answers(found, "label", "w")
    with caplog.at_level(logging.WARNING):
        assert answers(found, "target", "t", missing="skip") == {"p": 1.0, "s": 4.0}
    assert "column t: 2 cells are empty and left out, q first" in caplog.text
    with pytest.raises(UserError, match=r"column b: 1 cells are not 0 or 1, q first \(2\)"):
        answers(found, "multilabel", ["b", "c"])
    with pytest.raises(UserError, match="has no column z: it has id, t, w, b, c"):
        answers(found, "label", "z")
    with pytest.raises(UserError, match="a target is in one column, not in t, w"):
        answers(found, "target", ["t", "w"])
    with pytest.raises(UserError, match="2 columns of labels and 3 classes"):
        answers(found, "multilabel", ["b", "c"], classes=["1", "2", "3"])
    with pytest.raises(UserError, match=r"column l: 1 cells are not a list of classes, x first \(\['a' 'b'\]\)"):
        answers(table(tmp_path, "id,l\nx,['a' 'b']\n"), "multilabel", "l")


# --- metadata


def test_the_seven_numbers_are_found_by_name_and_from_dates(tmp_path: Path) -> None:
    found = table(tmp_path, "id,Longitude,lat,gsd,cloud_cover,year,month,day\nx,10.5,47,10,0.25,2020,2,29\n")
    assert metadata(found) == {"x": (10.5, 47, 10, 0.25, 2020, 2, 29)}
    found = table(tmp_path, "id,lon,lat,eo:cloud_cover,datetime\nx,-10,7,25,2020-02-29T10:11:12Z\n")
    assert metadata(found, {"gsd": 0.5}) == {"x": (-10, 7, 0.5, 0.25, 2020, 2, 29)}
    for day in ("20200229", "2020/02/29", "2020-02-29"):
        found = table(tmp_path, f"id,a,b,clouds,date\nx,1,2,80,{day}\n")
        named = {"lon": "a", "lat": "b", "gsd": 10, "cloud_cover": "percent:clouds"}
        assert metadata(found, named) == {"x": (1, 2, 10, 0.8, 2020, 2, 29)}
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"id": ["x"], "lon": [1.0], "lat": [2.0], "date": [datetime.datetime(2021, 3, 4, 5)]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert metadata(read_table(tmp_path / "t.parquet"), {"gsd": 1, "cloud_cover": 0})["x"] == (1, 2, 1, 0, 2021, 3, 4)


def test_metadata_of_a_geojson_is_where_its_geometry_is(tmp_path: Path) -> None:
    pyproj = pytest.importorskip("pyproj")
    ring = [[5e5, 53e5], [501e3, 53e5], [501e3, 5301e3], [5e5, 5301e3], [5e5, 53e5]]
    feature = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"id": "x", "date": "2020-01-02"}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    found = table(tmp_path, json.dumps({"features": [feature], "crs": crs}), "t.geojson")
    wanted = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(500_500, 5_300_500)
    assert metadata(found, {"gsd": 10, "cloud_cover": 0})["x"] == pytest.approx((*wanted, 10, 0, 2020, 1, 2), abs=1e-9)


def test_metadata_that_is_not_there_or_not_in_range_is_one_line(tmp_path: Path) -> None:
    found = table(tmp_path, "id,lon,lat,cloud_cover,year,month,day\nx,1,2,0,2020,1,1\ny,1,95,30,2020,13,1\n")
    with pytest.raises(UserError, match=r"has no columns for gsd of the metadata: name them, .* as gsd: 0"):
        metadata(table(tmp_path, "id,lon,lat,cloud_cover,year,month,day\nx,1,2,0,2020,1,1\n"))
    with pytest.raises(UserError, match=r"1 values of lat are not from -90 to 90, y first \(95\)"):
        metadata(found, {"gsd": 10})
    with pytest.raises(
        UserError, match=r"cloud_cover are not from 0 to 1, x first \(30\).*write cloud_cover: percent:c\)"
    ):
        metadata(table(tmp_path, "id,lon,lat,c,date\nx,1,2,30,20200101\n"), {"gsd": 10, "cloud_cover": "c"})
    with pytest.raises(UserError, match=r"no metadata 'clouds': it can be lon, .*; did you mean cloud_cover"):
        metadata(found, {"clouds": 1})
    with pytest.raises(UserError, match=r"column date: 1 cells are not a date as 2020-12-31, x first \(yesterday\)"):
        metadata(table(tmp_path, "id,lon,lat,date\nx,1,2,yesterday\n"), {"gsd": 10, "cloud_cover": 0})


@pytest.mark.parametrize(
    "classes",
    [["b", "a"], {0: "b", 1: "a"}, [{"name": "b", "colour": "#010203"}, {"name": "a"}], {0: "b", 1: {"name": "a"}}],
)
def test_columns_are_the_classes_of_their_names_however_these_are_said(tmp_path: Path, classes: Any) -> None:
    known = ClassTable(classes)
    made = table(tmp_path, "id,a,b\nx,1,0\ny,0,1\nz,1,1\n")
    said = answers(made, "multilabel", ["a", "b"], classes=known.names)
    assert {row: known.several(value).tolist() for row, value in said.items()} == {
        "x": [0, 1],
        "y": [1, 0],
        "z": [1, 1],
    }


def test_a_column_that_a_class_ignores_counts_nowhere(tmp_path: Path) -> None:
    known = ClassTable({0: "a", 1: "b", 2: None})
    said = answers(table(tmp_path, "id,c,b,a\nx,1,0,1\n"), "multilabel", ["c", "b", "a"], classes=known.names)
    assert known.several(said["x"]).tolist() == [1, 0]


def test_one_class_that_is_no_column_is_named(tmp_path: Path) -> None:
    made = table(tmp_path, "id,alpha,beta,gamma\nx,1,0,0\n")
    with pytest.raises(UserError, match=r"data\.classes has gama, which is no column .*did you mean gamma"):
        answers(made, "multilabel", ["alpha", "beta", "gamma"], classes=["beta", "alpha", "gama"])
    assert answers(made, "multilabel", ["alpha", "beta", "gamma"], classes=["x", "y", "z"])["x"] == (1, 0, 0)
