"""The page: it loads nothing, describes its pictures, shows names as they are, and stands up to odd comparisons."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from satdifuser.data.base import Labels
from satdifuser.report import views
from satdifuser.report.content import Failure
from satdifuser.report.html import page, write_report
from satdifuser.report.pictures import Pictures
from satdifuser.report.ranking import floors, places
from satdifuser.tasks import Segmentation

LABELS = Labels(
    ("water", "forest", "grassland", "farmland", "bare soil", "built-up", "road", "snow & ice"),
    ("#3060a0", "#1b6b2f", "#8fbf5a", "#d9b44a", "#b08968", "#a03c3c", "#606060", "#f0f4f8"),
)

EVIL = '<b>&"x_1%'
VOID = {"meta", "link", "img", "br", "input"}
SVG = {"svg", "g", "path", "circle", "use", "rect", "text", "defs", "style", "clipPath", "clippath"}


class Page(HTMLParser):
    """Tags with their attributes, the text of each row of the ranking, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.rows: list[list[str]] = []
        self.ranking = False
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ranking |= tag == "table" and dict(attrs).get("id") == "rows"
        if self.ranking and tag == "tr":
            self.rows.append([])
        if self.ranking and tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        self.ranking &= tag != "table"
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data) -> None:
        if self.ranking and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def text(written):
    return (written / "report.html").read_text()


@pytest.fixture(scope="session")
def parsed(text):
    return Page(text)


def test_every_file_is_written_and_nothing_else_stays(written) -> None:
    names = {"report.html", "tables.md", "ranking.csv", "comparisons.csv", "tables.tex"}
    assert {path.name for path in written.iterdir()} == names


def test_the_page_loads_nothing(text, parsed) -> None:
    for tag, attrs in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text)
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert {tag for tag, _ in parsed.tags} & {"iframe", "object", "embed", "base", "audio", "video"} == set()


def test_every_tag_is_closed_and_every_name_is_used_once(parsed) -> None:
    assert parsed.wrong == []
    assert parsed.open == []
    ids = [attrs["id"] for _, attrs in parsed.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for attrs in parsed.all("a"):
        assert attrs["href"].removeprefix("#") in ids


def test_every_picture_says_what_it_shows(parsed, rich) -> None:
    pictures = [attrs["alt"] for attrs in parsed.all("img")]
    charts = [attrs["aria-label"] for attrs in parsed.all("div") if attrs.get("role") == "img"]
    small = [attrs["aria-label"] for attrs in parsed.all("svg") if "aria-label" in attrs]
    assert len(charts) == len(parsed.all("svg")) - len(small) == 15  # a curve and four costs of three tasks
    assert len(small) == 18  # score and loss of three tasks and budgets
    assert all("runs: from" in alt and "at the end" in alt for alt in small)
    assert len(pictures) > 40
    assert all(len(alt) > 10 for alt in pictures)
    leads = [place for place in places(rich) if place.leads and place.row.budget == 100.0]
    for alt, place in zip(charts[:3], leads, strict=True):
        assert f"at 100 % {place.row.model} is {'best' if place.best else 'highest'} with 0." in alt
    assert all("Pareto front" in alt for alt in charts[3:])


def test_the_page_is_marked_up_for_those_who_listen_to_it(parsed) -> None:
    assert parsed.all("html")[0]["lang"] == "en"
    assert len(parsed.all("main")) == len(parsed.all("nav")) == len(parsed.all("h1")) == 1
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert [attrs["aria-live"] for attrs in parsed.all("output")] == ["polite"]


def test_names_of_models_are_shown_as_they_are(text) -> None:
    assert '<b>&"x' not in text
    assert "&lt;b&gt;&amp;&#34;x_1%" in text
    assert "out of &lt;memory&gt; &amp; time" in text


def test_the_ranking_says_what_the_content_says(parsed, rich) -> None:
    head, *rows = parsed.rows
    assert len(rows) == len(rich.rows)
    for place, cells in zip(places(rich), rows, strict=True):
        line = {name.strip(): cell.strip() for name, cell in zip(head, cells, strict=True)}
        estimate = place.estimate
        assert (line["task"], line["budget"]) == (place.row.task, f"{place.row.budget:g} %")
        assert line["model"] == place.row.model
        assert line["rank"] == str(place.rank)
        assert line["score"] == f"{estimate.value:.3f}"
        assert line["95 % interval"] == f"[{estimate.low:.3f}, {estimate.high:.3f}]"
        assert line["p to highest"].startswith("\u2248") == place.close
        assert (line["p to highest"] == "best") == place.best
        assert line["chance"] == f"{place.section.chance.scores[place.section.metric]:.3f}"
        lowest = floors(places(rich))[place.row.task, place.row.budget]
        assert line["floor"] == f"{lowest.score:.3f}"
        assert line["extraction"] == ("-" if "ViT" in place.row.model else "5.2 min")
    assert any(place.close for place in places(rich))


def test_what_failed_and_what_is_missing_is_said_at_the_top(text) -> None:
    notice = text[text.index('class="notice"') : text.index('id="ranking"')]
    assert "1 run ended in an error" in notice
    assert "2 runs of the grid have no result" in notice
    assert "1 of 2" in text  # the row that lacks a seed


def test_right_and_wrong_are_said_without_colour(text) -> None:
    assert text.count('<span class="unseen"> wrong: </span>') == text.count("&#10007;<span") > 0
    assert text.count('<span class="unseen"> right: </span>') == text.count("&#10003;<span") > 0


def test_the_same_content_gives_the_same_bytes(make) -> None:
    small = {"models": ("a", "lw b"), "tasks": ("segmentation", "multilabel"), "budgets": (10.0, 100.0), "samples": 1}
    assert page(make(**small)) == page(make(**small))


def test_any_name_of_a_model_makes_a_page(make, tmp_path) -> None:
    names = ("_hidden", "$x^2$", "模型", "a" * 90, "two\nlines", "--", "'", "\\", "</script>", "{{ x }}")
    write_report(make(models=names, tasks=("regression",), budgets=(1.0, 100.0), samples=1), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert Page(text).wrong == []
    assert text.count("</script>") == 1
    assert "{{ x }}" in text


def test_a_single_row_makes_a_page_without_comparisons(make) -> None:
    text = page(make(models=("alone",), tasks=("segmentation",), budgets=(100.0,), seeds=(0,)))
    assert "There is one seed only" in text
    assert "No pair of models was tested" in text
    for part in ("ranks", "costs", "tests"):
        assert f'id="{part}"' not in text
    assert "<b>alone</b> has mIoU" in text
    assert 'id="curves"' in text  # a dot and its interval


def test_without_comparisons_nothing_is_called_significant(make) -> None:
    content = dataclasses.replace(make(models=("a", "b"), tasks=("segmentation",)), comparisons=[])
    text = page(content)
    assert "has the highest mIoU" in text
    assert "is best with" not in text
    assert "significantly better than all" not in text
    assert "not significantly different from it" not in text


def test_when_every_run_failed_the_errors_are_the_report(make, tmp_path) -> None:
    empty = dataclasses.replace(
        make(),
        rows=[],
        sections=[],
        comparisons=[],
        configurations={},
        failures=[Failure(EVIL, "segmentation", 10.0, 3, "ValueError: <x>")],
    )
    write_report(empty, tmp_path)
    found = Page((tmp_path / "report.html").read_text())
    assert found.wrong == []
    assert [a["id"] for a in found.all("section")] == ["about", "repeat"]
    assert "ValueError: &lt;x&gt;" in (tmp_path / "report.html").read_text()


def test_scores_that_are_no_numbers_are_dashes_and_are_not_drawn(make) -> None:
    content = make(models=("a", "b"), tasks=("regression",), budgets=(10.0, 100.0))
    bad = [
        dataclasses.replace(
            row,
            scores={
                name: dataclasses.replace(e, value=math.nan, low=math.nan, high=math.nan, seeds=(math.nan, math.nan))
                for name, e in row.scores.items()
            },
        )
        for row in content.rows
    ]
    for rows in ([bad[0], *content.rows[1:]], bad):
        text = re.sub(r'src="[^"]*"', "", page(dataclasses.replace(content, rows=rows)))
        assert not re.search(r"\bnan\b", text)
    assert "no model has a score" in text


def test_costs_that_were_not_measured_are_dashes_and_are_not_drawn(make) -> None:
    content = make(models=("a", "b"), tasks=("classification",), budgets=(100.0,))
    none = {"flops": None, "peak_bytes": None, "extraction_seconds": None, "feature_bytes": None, "trainable": 0}
    rows = [dataclasses.replace(row, cost=dataclasses.replace(row.cost, **none)) for row in content.rows]
    text = page(dataclasses.replace(content, rows=rows))
    assert "FLOPs of one image" not in text
    assert "training time, with extraction" in text


def test_a_panel_may_be_wide_large_and_of_small_integers(make) -> None:
    content = make(models=("a",), tasks=("segmentation",), budgets=(100.0,), samples=2, side=300)
    section = content.sections[0]
    panel = dataclasses.replace(
        section.panel,
        pictures=section.panel.pictures[:, :100],
        truth=section.panel.truth[:, :100].astype(np.uint8),
        predictions={"a": section.panel.predictions["a"][:, :100].astype(np.uint8)},
    )
    section = dataclasses.replace(section, panel=panel)
    alts = [a["alt"] for a in Page(page(dataclasses.replace(content, sections=[section]))).all("img")]
    assert any(re.fullmatch(r"a on sample test-1: \d+ % of the pixels right", alt) for alt in alts)


def test_pictures_beyond_the_limit_are_left_out_and_the_page_says_so(make, monkeypatch) -> None:
    monkeypatch.setattr("satdifuser.report.html.PICTURE_BYTES", 9000)
    text = page(make(models=("a", "lw b"), tasks=("segmentation",), budgets=(100.0,)))
    assert re.search(r"\d+ pictures are left out to keep this file small", text)
    assert "of the 4 samples are shown" in text
    assert "The weight maps are left out" in text


@pytest.mark.slow
def test_a_large_comparison_stays_below_ten_megabytes(make, tmp_path) -> None:
    models = tuple(
        f"{head} on {encoder}" for encoder in ("one", "two", "three") for head in ("gw", "lw", "moe", "mean")
    )
    taps = {stride: tuple(f"up_blocks.{n}.resnets.{m}" for m in range(6)) for n, stride in enumerate((64, 32, 16, 8))}
    content = make(
        models=models,
        tasks=("segmentation", "classification", "regression", "multilabel"),
        budgets=(1.0, 2.0, 5.0, 10.0, 50.0, 100.0),
        samples=8,
        side=256,
        timesteps=(1, 51, 101, 201),
        taps=taps,
    )
    write_report(content, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 10e6


def with_task(content, task):
    """The same comparison, of a task with other settings."""
    sections = [dataclasses.replace(s, task=task) if s.name == task.name else s for s in content.sections]
    return dataclasses.replace(content, sections=sections)


def test_the_page_says_what_each_metric_is_by_the_settings_of_its_task(make) -> None:
    content = make(models=("a", "b"), tasks=("segmentation", "classification"), budgets=(10.0, 100.0))
    task = Segmentation(LABELS, absent="zero", ignore="snow & ice")
    text = page(with_task(content, task))
    found = Page(text)
    assert found.wrong == []
    assert {"#metrics"} <= {attrs["href"] for attrs in found.all("a")}
    said = html.unescape(" ".join(text[text.index('id="metrics"') : text.index('id="filters"')].split()))
    for sentence in task.explain().values():
        assert sentence in said
    assert "mIoU is the mean over the classes other than snow & ice of intersection / union" in said
    assert "counts as 0, as in the released SatDiFuser code" in said
    assert "Macro F1 is the mean of the classes' F1, as scikit-learn's" in said
    assert "released F1" not in said  # these rows do not have it
    assert "All models of a task have the same ones" in said
    assert "is left out; pixels" not in said


def test_a_task_that_explains_nothing_makes_a_page(make) -> None:
    class Silent(Segmentation):
        def explain(self):
            return {}

    text = page(with_task(make(models=("a", "b"), tasks=("segmentation",)), Silent(LABELS)))
    assert Page(text).wrong == []
    assert "<li><b>segmentation</b>: mIoU" not in text


def test_ignored_pixels_of_the_truth_are_black_and_count_in_no_agreement(make) -> None:
    section = make(models=("a",), tasks=("segmentation",), budgets=(100.0,), samples=1).sections[0]
    truth = np.zeros((1, 8, 8), np.uint8)
    truth[0, :4] = 2
    panel = dataclasses.replace(section.panel, truth=truth, predictions={"a": np.full_like(truth, 2)})
    colours = {}
    for names in (None, "water"):
        one = dataclasses.replace(section, task=Segmentation(LABELS, ignore=names), panel=panel)
        grid, _ = views.panel(one, [], Pictures(10**6))
        _, shown, said = grid.rows[0][1]
        image = Image.open(io.BytesIO(base64.b64decode(shown.picture.partition(",")[2]))).convert("RGB")
        colours[names] = np.asarray(image)[6, 4].tolist(), said.text
    assert colours == {None: ([0x30, 0x60, 0xA0], "50 % right"), "water": ([0, 0, 0], "100 % right")}
