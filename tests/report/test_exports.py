"""The tables as files: they say what the content says, in full, and no name of a model is taken for markup."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re

from satdifuser.report import numbers
from satdifuser.report.exports import comparisons_csv, ranking_csv, tables_md, tables_tex
from satdifuser.report.ranking import places
from satdifuser.report.tables import csv as csv_table
from satdifuser.report.tables import markdown_text

EVIL = '<b>&"x_1%'


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_ranking_reads_back_as_the_content_to_the_last_digit(rich) -> None:
    lines = {(line["task"], float(line["budget_percent"]), line["model"]): line for line in read(ranking_csv(rich))}
    assert len(lines) == len(rich.rows)
    for row in rich.rows:
        line = lines[row.task, row.budget, row.model]
        assert int(line["training_samples"]) == row.training_samples
        assert tuple(map(int, line["seeds"].split())) == row.seeds
        for name, estimate in row.scores.items():
            assert float(line[f"{name}_mean"]) == estimate.value
            assert float(line[f"{name}_low"]) == estimate.low
            assert float(line[f"{name}_high"]) == estimate.high
            assert line[f"{name}_sd"] == ("" if estimate.deviation is None else repr(estimate.deviation))
            assert tuple(map(float, line[f"{name}_by_seed"].split())) == estimate.seeds
        for field in dataclasses.fields(row.cost):
            value = getattr(row.cost, field.name)
            assert line[field.name] == ("" if value is None else repr(value))
        absent = {"miou", "accuracy", "macro_f1", "r2", "rmse"} - set(row.scores)
        assert all(line[f"{name}_mean"] == "" for name in absent)


def test_the_ranking_is_in_the_order_of_the_ranks(rich) -> None:
    lines = read(ranking_csv(rich))
    assert [(line["task"], line["model"], line["rank"]) for line in lines] == [
        (place.row.task, place.row.model, str(place.rank)) for place in places(rich)
    ]


def test_the_tests_read_back_as_the_content_to_the_last_digit(rich) -> None:
    lines = read(comparisons_csv(rich))
    assert len(lines) == len(rich.comparisons)
    for line, pair in zip(lines, rich.comparisons, strict=True):
        for name, value in dataclasses.asdict(pair).items():
            if name == "seeds":
                assert line[name] == " ".join(map(str, pair.seeds))
            else:
                assert line[name] == value if isinstance(value, str) else float(line[name]) == value


def test_no_cell_is_a_formula_for_a_spreadsheet() -> None:
    names = ["=1+1", "+x", "-x", "@x", "\tx", "-1.5", "x=1", 'a"b,c', "two\nlines"]
    back = list(csv.reader(io.StringIO(csv_table(["name"], [[name] for name in names]))))
    assert [row[0] for row in back[1:]] == [
        "'=1+1", "'+x", "'-x", "'@x", "'\tx", "-1.5", "x=1", 'a"b,c', "two\nlines"
    ]  # fmt: skip


def test_markdown_has_a_whole_table_for_each_task_and_shows_names_as_they_are(rich) -> None:
    text = tables_md(rich)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {21, 22, 8, 6, 5}  # with and without a further metric
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} <= widths
    assert "<b>" not in text
    assert '&lt;b&gt;&amp;"x\\_1%' in text
    assert text.count("## Pairwise tests: ") == 3
    best = next(place for place in places(rich) if place.best)
    assert f"**{numbers.score(best.score)}**" in text


def test_markdown_has_the_budgets_side_by_side_and_a_dash_for_a_run_that_is_missing(rich) -> None:
    tables = [part.splitlines() for part in tables_md(rich).split("\n\n") if part.startswith("| model | 1 % | ")]
    assert len(tables) == 3
    for section, (_, _, *lines) in zip(rich.sections, tables, strict=True):
        there = [place for place in places(rich) if place.row.task == section.name]
        said = {cells[1]: cells[2:5] for line in lines if (cells := re.split(r" ?(?<!\\)\| ?", line))}
        assert len(said) == len(lines) == 7
        assert [*said][-2:] == ["floor", "chance"]
        said.pop("chance"), said.pop("floor")
        said = {name.removesuffix(" (floor)"): cells for name, cells in said.items()}
        for place in there:
            cell = said[markdown_text(place.row.model)][[1.0, 10.0, 100.0].index(place.row.budget)]
            score = numbers.score(place.score)
            shown = f"**{score}**" if place.best else f"≈ {score}" if place.close else score
            between = f"[{numbers.score(place.estimate.low)}, {numbers.score(place.estimate.high)}]"
            assert cell == f"{shown} {markdown_text(between)}"
        assert sum(cell == "-" for cells in said.values() for cell in cells) == 15 - len(there)
        means = [
            sum(place.score for place in there if markdown_text(place.row.model) == name) / 3
            for name, cells in said.items()
            if "-" not in cells
        ]
        assert means == sorted(means, reverse=True)
        assert "-" not in [cell for cells in list(said.values())[:-1] for cell in cells]  # a lack comes last


def test_one_budget_needs_no_table_of_budgets(make) -> None:
    content = make(models=("a", "b"), tasks=("classification",), budgets=(100.0,))
    assert "| model | 100 % |" not in tables_md(content)
    assert "tab:budgets" not in tables_tex(content)


def test_latex_escapes_every_special_sign_and_balances_its_braces(rich) -> None:
    text = tables_tex(rich)
    assert r"\textless{}b\textgreater{}\&{''}x\_1\%" in text
    assert EVIL not in text
    body = re.sub(r"\\[%&#$_{}\\]", "", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    assert body.count("{") == body.count("}")
    assert not re.search(r"[%#±≈²]", body)
    for table in re.findall(r"\\begin\{longtable\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{longtable\}", text, re.DOTALL):
        rows = [line for line in table[1].splitlines() if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(table[0])}
    assert text.count(r"\begin{longtable}") == 12  # scores twice, costs and tests of three tasks
    assert text.count(r"\toprule") == 2 * text.count(r"\begin{longtable}")


def test_a_score_that_is_no_number_is_a_dash_for_people_and_nan_for_machines(make) -> None:
    content = make(models=("a", "b"), tasks=("regression",), budgets=(100.0,))
    row = content.rows[0]
    bad = dataclasses.replace(row.scores["r2"], value=math.nan, low=math.nan, high=math.nan, seeds=(math.nan, 0.5))
    content = dataclasses.replace(
        content, rows=[dataclasses.replace(row, scores={**row.scores, "r2": bad}), content.rows[1]]
    )
    line = next(line for line in read(ranking_csv(content)) if line["model"] == "a")
    assert math.isnan(float(line["r2_mean"]))
    assert line["rank"] == ""
    for text in (tables_md(content), tables_tex(content)):
        assert "nan" not in text


def test_tables_say_what_their_metrics_are_by_the_settings_of_the_task(make) -> None:
    content = make(models=("a", "b"), tasks=("segmentation", "regression"))
    sections = [
        dataclasses.replace(s, task=type(s.task)(s.task.labels, absent="zero", ignore=["road"])) if s.task.dense else s
        for s in content.sections
    ]
    content = dataclasses.replace(content, sections=sections)
    said = "other than road of intersection / union, counted over the pixels of all images"
    text, tex = tables_md(content), " ".join(tables_tex(content).split())
    part = text[text.index("## segmentation: mIoU") : text.index("## regression: R²")]
    lines = [line for line in part.splitlines() if line.startswith("* ")]
    assert [line.split(" is ")[0] for line in lines] == ["* mIoU", "* Accuracy", lines[2], lines[3]]
    assert lines[2] == "* Chance: always forest, the class of most test pixels."
    assert lines[3].endswith("learned nothing of images of the Earth (b).")
    assert said in lines[0]
    assert "counts as 0, as in the released SatDiFuser code; pixels whose truth is road are ignored." in lines[0]
    assert "those of a task with other settings do not compare with them" in text
    captions = re.findall(r"\\caption\{(.*?)\}\\label", tex)
    assert sum(said in one for one in captions) == 3  # scores, budgets, tests; costs have no metric
    assert sum("Accuracy is the share of the pixels" in one for one in captions) == 1
    assert sum("RMSE is the root of the mean squared error" in one for one in captions) == 1
