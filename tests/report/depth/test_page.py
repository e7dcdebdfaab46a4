"""The page of a study: it loads nothing, shows every number and name as it is, and stands up to odd studies."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.report import numbers
from satdifuser.report.depth import curves, likeness
from satdifuser.report.depth.content import Depths, Place, Probed, Shape
from satdifuser.report.depth.page import write_page
from satdifuser.report.depth.series import series_of
from satdifuser.report.estimate import Estimate

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes, what is not closed, and the text of the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "td" in self.open[-2:]:
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def written(depths: Depths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    write_page(depths, folder, "Where knowledge is <b>", "satdifuser probe 'encoder=<small>'")
    return folder


@pytest.fixture(scope="session")
def text(written: Path) -> str:
    return (written / "report.html").read_text(encoding="ascii")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_page_loads_nothing_and_every_tag_is_closed(text: str) -> None:
    page = Page(text)
    assert page.wrong == page.open == []
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text)
    assert "default-src 'none'" in text
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {(attrs["href"] or "").removeprefix("#") for attrs in page.all("a")} <= set(ids)
    assert len(page.all("caption")) == len(page.all("table"))


def test_every_chart_says_what_it_shows_and_how_to_read_it(text: str) -> None:
    charts = [attrs for attrs in Page(text).all("div") if attrs.get("role") == "img"]
    assert len(charts) == text.count("<svg") == text.count("<figcaption>") == 11
    said = html.unescape(" ".join(str(attrs["aria-label"]) for attrs in charts))
    assert "best at blocks.7 with accuracy 0." in said
    assert "most alike are" in said
    assert "it moved most in blocks.11.fc1 (" in said
    assert "Spearman's rank correlation of the learned weights" in said
    captions = [html.unescape(part) for part in re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)]
    assert all(len(caption) > 80 for caption in captions)
    assert sum("95 % bootstrap intervals" in caption for caption in captions) >= 5


def test_names_are_shown_as_they_are(text: str, made: Any) -> None:
    assert '<b>&"x' not in text
    assert "<more>" not in text
    assert html.escape(made.evil, quote=False).replace('"', "&#34;") in text
    assert "<title>Where knowledge is &lt;b&gt;</title>" in text
    assert "encoder=&lt;small&gt;" in text


def test_the_tables_of_the_page_hold_the_scores_of_every_timestep_and_tap(text: str, depths: Depths) -> None:
    cells = Page(text).cells
    probed = depths.probes[1]
    best = [series.best for series in series_of(probed)]
    for point in probed.points:
        shown = numbers.score(point.scores["accuracy"].value)
        mark = "★ " if point in best else "≈ " if point.p is not None and point.p >= 0.05 else ""
        assert mark + shown in cells
    moved = depths.likeness[1]
    for n, place in enumerate(moved.rows):
        error = numbers.score(float(moved.errors[n, n]))
        assert f"{numbers.score(1 - float(moved.values[n, n]))} ± {error}" in cells, place


def test_probe_csv_has_everything_in_full_precision(written: Path, depths: Depths) -> None:
    found = rows(written / "probe.csv")
    points = [(one, point) for one in depths.probes for point in one.points]
    assert len(found) == len(points)
    by_place = {
        (r["model"], r["probe"], r["view"], float(r["budget_percent"]), r["tap"], r["timestep"]): r for r in found
    }
    for one, point in points:
        step = "" if point.place.timestep is None else str(point.place.timestep)
        row = by_place[one.model, point.probe, point.view, point.budget, point.place.tap, step]
        for metric, estimate in point.scores.items():
            assert float(row[f"{metric}_mean"]) == estimate.value
            assert float(row[f"{metric}_low"]) == estimate.low
            assert float(row[f"{metric}_high"]) == estimate.high
            assert [float(v) for v in row[f"{metric}_by_seed"].split()] == list(estimate.seeds)
        assert (float(row["p_to_best"]) if row["p_to_best"] else None) == point.p
        assert row["best"] == ("yes" if point.p is None else "no")
        assert int(row["training"]) == point.training
        assert float(row["chance"]) == one.chance
        if point.calibration:
            assert (float(row["ece"]), float(row["ece_scaled"])) == point.calibration
            assert row["strengths"] == "0.1234 3.5"


def test_likeness_csv_has_every_pair_and_shapes_csv_every_place(written: Path, depths: Depths) -> None:
    found = rows(written / "likeness.csv")
    assert len(found) == sum(one.values.size for one in depths.likeness)
    one = depths.likeness[0]
    mine = [row for row in found if row["first"] == one.first]
    assert [float(row["cka"]) for row in mine] == one.values.ravel().tolist()
    assert [float(row["standard_error"]) for row in mine] == one.errors.ravel().tolist()
    assert [row["row_tap"] for row in mine[:: one.values.shape[1]]] == [place.tap for place in one.rows]
    assert [row["column_timestep"] for row in mine[: len(one.columns)]] == [str(p.timestep) for p in one.columns]
    shapes = rows(written / "shapes.csv")
    assert len(shapes) == sum(len(side) for one in depths.likeness for side in one.shapes)
    assert float(shapes[0]["intrinsic_dimension"]) == one.shapes[0][0].intrinsic


def test_decoders_and_weights_have_their_tables(written: Path, depths: Depths) -> None:
    found = rows(written / "decoders.csv")
    assert [float(row["mean"]) for row in found] == [one.estimate.value for one in depths.decoded]
    assert [int(row["parameters"]) for row in found] == [one.parameters for one in depths.decoded]
    weights = rows(written / "weights.csv")
    assert [float(row["weight_over_equal"]) for row in weights] == list(depths.weighed[0].weights)
    assert {float(row["spearman"]) for row in weights} == {depths.weighed[0].rank}


def test_figures_are_whole_svg_and_pdf(written: Path) -> None:
    from xml.etree import ElementTree

    drawn = sorted((written / "figures").iterdir())
    assert len(drawn) == 2 * 12
    for path in drawn:
        if path.suffix == ".svg":
            assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")
            assert path.with_suffix(".pdf").is_file()
        else:
            whole = path.read_bytes()
            assert whole.startswith(b"%PDF")
            assert whole.rstrip().endswith(b"%%EOF")


def test_the_same_study_makes_the_same_files(made: Any, tmp_path: Path) -> None:
    depths = Depths(probes=(made.probed(probes=("knn",), budgets=(100.0,)),))
    one, two = (write_page(depths, tmp_path / name, "a", "b") for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_markdown_shows_the_best_place_first(written: Path, depths: Depths) -> None:
    lines = (written / "probe.md").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("| --- "))
    best = series_of(depths.probes[0])[0].best
    assert best is not None
    assert lines[first + 1].startswith(f"| {best.place.tap} | - | {numbers.score(best.scores['accuracy'].value)}")
    assert "&lt;b&gt;" in (written / "likeness.md").read_text()


def page_of(depths: Depths, folder: Path) -> str:
    paths = write_page(depths, folder, "odd", "satdifuser probe")
    found = paths[0].read_text(encoding="ascii")
    assert Page(found).wrong == []
    return html.unescape(found)


def test_one_place_is_a_chart(made: Any, tmp_path: Path) -> None:
    found = page_of(Depths(probes=(made.probed(taps=("blocks.3",), probes=("logistic",), budgets=(100.0,)),)), tmp_path)
    assert "the only place." in found


def with_scores(probed: Probed, value: float) -> Probed:
    lost = Estimate(value, value, value, (value,))
    points = [dataclasses.replace(point, scores={"accuracy": lost}, p=value) for point in probed.points]
    return dataclasses.replace(probed, points=tuple(points))


def test_a_study_without_a_score_says_so(made: Any, tmp_path: Path) -> None:
    found = page_of(Depths(probes=(with_scores(made.probed(), float("nan")),)), tmp_path)
    assert "no probe has a score." in found
    assert "no place has a score." in found


def test_single_scores_that_are_not_known_leave_a_gap(made: Any, tmp_path: Path) -> None:
    whole = made.probed("UNet", taps=made.unet, timesteps=(21, 61))
    nan = Estimate(float("nan"), float("nan"), float("nan"), (float("nan"),))
    points = [dataclasses.replace(p, scores={"accuracy": nan}) if n % 3 else p for n, p in enumerate(whole.points)]
    found = page_of(Depths(probes=(dataclasses.replace(whole, points=tuple(points)),)), tmp_path)
    assert "best at" in found
    assert "nan" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", found, flags=re.DOTALL)


def test_likeness_says_what_lies_outside_and_what_is_not_known(made: Any, tmp_path: Path) -> None:
    one = made.likeness()
    values = np.clip(one.values, 0.1, 0.9)
    values[0, 0], values[1, 1], values[2, 2], values[2, 3] = -0.25, 1.5, np.nan, np.nan
    found = page_of(Depths(likeness=(dataclasses.replace(one, values=values),)), tmp_path)
    assert "1 of 240 values lies below 0 (to -0.250) and is drawn as 0." in found
    assert "1 of 240 values lies above 1 (to 1.500) and is drawn as 1." in found
    assert "Grey: 2 values that are not known." in found


def test_two_hundred_places_make_charts_of_a_bounded_width(made: Any, tmp_path: Path) -> None:
    taps = tuple(f"blocks.{n // 6}.part{n % 6}" for n in range(200))
    probed = made.probed(taps=taps, probes=("knn",), budgets=(100.0,))
    some = made.places(taps)
    likeness = made.likeness(rows=some, columns=some[:100], shapes=False)
    found = page_of(Depths(probes=(probed,), likeness=(likeness,)), tmp_path)
    widths = [float(width) for width in re.findall(r'<svg[^>]*? width="([\d.]+)pt"', found)]
    assert len(widths) == 2
    assert max(widths) <= 72 * 11.5
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_nothing_makes_a_page_that_says_so(tmp_path: Path) -> None:
    assert "There is nothing to show yet." in page_of(Depths(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_no_line_of_a_shape_leaves_its_axes() -> None:
    """The last row's values are the largest, and the first row shares its axis."""
    rng = np.random.default_rng()
    places = [
        Place(f"blocks.{n}.{kind}", None, n, 64, 8, kind, f"blocks.{n}") for n in range(3) for kind in ("qkv", "fc1")
    ]
    sides = [
        (name, places, [Shape(*(scale * rng.uniform(1, 2, 2))) for _ in places]) for name, scale in (("a", 1), ("b", 9))
    ]
    drawings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness.draw, "drawn", lambda figure, *rest: drawings.append(figure))
        likeness.shapes_by_kind(sides)
    for axes in drawings[0].axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert all(low <= value <= high for line in axes.lines for value in line.get_ydata())


def test_settings_stand_by_their_full_names(depths: Depths, tmp_path: Path) -> None:
    about = {
        "settings": {"data": {"splits": {"train": {"length": 64}, "val": {"length": 32}}}},
        "explain": {"macro_f1": "is <so>"},
    }
    write_page(Depths(probes=(dataclasses.replace(depths.probes[0], about=about),)), tmp_path, "t", "c")
    cells = Page((tmp_path / "report.html").read_text()).cells
    assert "data.splits.train.length: 64\ndata.splits.val.length: 32" in cells
    assert "macro F1 is <so>" in cells


def test_of_a_store_no_encoder_is_named_that_did_not_run(depths: Depths, tmp_path: Path) -> None:
    settings = {"encoder": {"weights": "small"}, "data": {"size": 64}, "seed": 3}
    about = {"key": {"hash": "abc"}, "settings": {**settings, "features": "vit.zarr"}}
    write_page(Depths(probes=(dataclasses.replace(depths.probes[0], about=about),)), tmp_path, "t", "c")
    cells = Page((tmp_path / "report.html").read_text()).cells
    assert "seed: 3\nfeatures: vit.zarr" in cells
    assert "hash: abc" not in cells


def test_class_tokens_beside_maps_have_a_line_of_their_own(tmp_path: Path, depths: Depths) -> None:
    """One line through blocks.0, blocks.0.class, blocks.1, ... would tell of ups and downs that are none."""
    probed = depths.probes[0]
    one = [point for point in probed.points if (point.view, point.probe, point.budget) == ("mean", "knn", 100.0)]
    tokens = [
        dataclasses.replace(
            point, p=0.5, place=dataclasses.replace(point.place, tap=f"{point.place.tap}.class", kind="class")
        )
        for point in one
    ]
    drawings: list[tuple[Any, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves.draw, "drawn", lambda figure, name, alt, caption: drawings.append((figure, caption)))
        curves.probe_curves(dataclasses.replace(probed, points=(*one, *tokens)))
        curves.probe_curves(dataclasses.replace(probed, points=tuple(one)))
    (both, caption), (alone, other) = drawings
    lines = [[line for line in figure.axes[0].lines if line.get_linestyle() in ("-", ":")] for figure in (both, alone)]
    assert [[len(line.get_xdata()) for line in some] for some in lines] == [[len(one), len(one)], [len(one)]]
    assert ("Dotted: class tokens" in caption, "Dotted" in other) == (True, False)
