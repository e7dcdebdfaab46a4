"""Splits by hash, folder, list and column: each sample in one split or none, said; faults are one line."""

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
from satdifuser.data.splits.holdout import held_out
from satdifuser.data.splits.rules import PARTS, RULES, Rule, assigned, rule_of
from satdifuser.data.tables import read_table
from satdifuser.errors import UserError

NAMES = [f"set/{folder}/img_{number}.tif" for folder in ("north", "south") for number in range(40)]


@pytest.fixture(autouse=True)
def _every_line_again() -> None:
    warn_once.cache_clear()
    random.seed(7)


def drawn(seed: int) -> dict[str, str]:
    """Any split for each of the names."""
    rng = np.random.default_rng(seed)
    return dict(zip(NAMES, map(str, rng.choice(PARTS, len(NAMES), p=[0.5, 0.2, 0.3])), strict=True))


def of(told: dict[str, str]) -> dict[str, list[str]]:
    return {part: sorted(name for name in told if told[name] == part) for part in PARTS} | {"all": sorted(NAMES)}


def split(words: Any, names: list[str] = NAMES, **more: Any) -> dict[str, list[str]]:
    found = assigned(random.sample(names, len(names)), rule_of(words), **more)
    members = [name for part in PARTS for name in found[part]]
    assert len(members) == len(set(members))
    assert set(members) <= set(found["all"]) == set(names)
    return found


def written(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_hash_is_that_of_held_out_and_stratifies() -> None:
    classes = {name: name.split("/")[1] if number % 3 else "rare" for number, name in enumerate(NAMES)}
    groups = {one: [name for name in NAMES if classes[name] == one] for one in ("north", "south", "rare")}
    assert split("hash") == held_out({"": NAMES}, 0.1, 0.1)
    assert split({"by": "hash", "val": 0.2, "test": 0.3}, classes=classes) == held_out(groups, 0.2, 0.3)


# --- folders


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_that_is_called_as_a_split_is_one(seed: int) -> None:
    called = {"train": ["train", "Training"], "val": ["val", "valid", "Validation", "dev"], "test": ["test", "testing"]}
    told = {f"a/{random.choice(called[part])}/{name}": part for name, part in drawn(seed).items()}
    found = split("folder", list(told))
    assert found == {part: sorted(n for n in told if told[n] == part) for part in PARTS} | {"all": sorted(told)}


def test_folders_may_have_other_names_and_a_split_may_be_a_share_of_training() -> None:
    found = split({"by": "folder", "train": "north", "test": ["south"], "val": []})
    north = [name for name in NAMES if "north" in name]
    assert (found["train"], found["val"], len(found["test"])) == (sorted(north), [], 40)
    shared = split({"by": "folder", "train": "north", "test": "south", "val": 0.2})
    assert shared["val"] == held_out({"": north}, 0.2, 0.0)["val"]
    assert sorted(shared["train"] + shared["val"]) == sorted(north)
    assert shared["test"] == found["test"]
    both = split({"by": "folder", "train": ["north", "south"], "val": 0.25, "test": 0.25})
    assert both == held_out({"": NAMES}, 0.25, 0.25)


def test_folders_that_say_nothing_or_two_things_are_one_line() -> None:
    with pytest.raises(
        UserError, match=r"data\.split: 80 of 80 samples are in no folder of a split, .* first; splits are"
    ):
        split("folder")
    with pytest.raises(UserError, match=r"1 of 2 samples are in no folder of a split, b/test\.tif first"):
        split("folder", ["train/a.tif", "b/test.tif"])
    with pytest.raises(UserError, match=r"sample train/x/test/a is in folders of train and test: name the folders"):
        split("folder", ["train/x/test/a"])
    with pytest.raises(UserError, match="'train' is a word of several splits"):
        split({"by": "folder", "train": "train", "val": "Train"})


# --- lists


@pytest.mark.parametrize("form", ["txt", "csv", "json", "column", "number", "file"])
@pytest.mark.parametrize("bare", [True, False])
def test_lists_in_any_form_are_what_they_say(tmp_path: Path, form: str, bare: bool) -> None:
    told = drawn(4)
    words: dict[str, Any] = {"by": "list"}
    lists = {}
    for part in PARTS:
        mine = [name for name in NAMES if told[name] == part]
        lists[part] = random.sample(
            [one.removeprefix("set/").removesuffix(".tif") if bare else one for one in mine], len(mine)
        )
        if form == "txt":
            words[part] = written(tmp_path / f"{part}.txt", "\ufeff" + "\r\n".join(lists[part]) + "\n\n")
        elif form == "json":
            words[part] = written(tmp_path / f"{part}.json", json.dumps(lists[part]))
        elif form == "csv":
            words[part] = written(tmp_path / f"{part}.csv", "\n".join(["filename", *lists[part]]))
        else:
            frame = pandas.DataFrame({"mask": "none", "picture": lists[part]})
            frame.to_csv(tmp_path / f"{part}.csv", index=False, header=form == "column")
            words[part], words["column"] = str(tmp_path / f"{part}.csv"), "picture" if form == "column" else 2
    if form == "file":
        named = {"Train": lists["train"], "valid": lists["val"], "test": lists["test"], "more": ["x"]}
        words = {"by": "list", "file": written(tmp_path / "all.json", json.dumps(named))}
    assert split(words) == of(told)


def test_what_is_in_no_list_is_left_out_and_said(tmp_path: Path, caplog: Any) -> None:
    words = {"by": "list", "train": written(tmp_path / "a.txt", "\n".join([*NAMES[:50], "gone.tif"])), "val": 0.2}
    with caplog.at_level(logging.WARNING):
        found = split(words)
        split(words)
    assert sorted(found["train"] + found["val"]) == sorted(NAMES[:50])
    assert (len(found["val"]), found["test"]) == (10, [])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said))
    assert said[0] == "data.split.train: 1 of 51 names are no samples, gone.tif first"
    assert "data.split: 30 of 80 samples are in no split, set/" in said[1]


def test_lists_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    one = written(tmp_path / "a.txt", NAMES[0])
    other = written(tmp_path / "b.txt", "\n".join(NAMES[:2]))
    table = written(tmp_path / "c.csv", "p,q\n1,2\n")
    for words, said in (
        (
            {"train": one, "test": other},
            r"data\.split: set/north/img_0\.tif is listed for train and test: leave it in one",
        ),
        (
            {"train": written(tmp_path / "d.txt", "u\nv")},
            r"data\.split\.train: none of the 2 names in it is a sample, u first",
        ),
        (
            {"train": written(tmp_path / "e.txt", "img_7")},
            r"split\.train names img_7, which may be set/north/img_7\.tif or set/s",
        ),
        ({"train": str(tmp_path / "f.txt")}, r"data\.split\.train .*f\.txt is no file"),
        ({"train": table}, r"c\.csv has 2 columns \(p, q\): set data\.split\.column"),
        ({"train": table, "column": "z"}, r"has no column z: its first line is p, q"),
        ({"train": table, "column": 3}, "has 2 columns, so there is no column 3"),
        (
            {"train": one, "column": "z", "file": "x"},
            r"give either files for train, val and test, or data\.split\.file",
        ),
        ({}, "give either files for train, val and test"),
        ({"file": written(tmp_path / "g.json", "[]")}, "must be JSON as"),
        ({"train": written(tmp_path / "h.json", "{")}, r"h\.json is no JSON"),
        ({"train": written(tmp_path / "i.json", "{}")}, r"i\.json has no list of names"),
        ({"train": written(tmp_path / "j.png", "")}, r"j\.png is no list: give \.txt"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            split({"by": "list", **words})
        assert "\n" not in str(caught.value)


# --- columns


@pytest.mark.parametrize("own", [True, False])
def test_a_column_of_a_table_says_the_split(tmp_path: Path, own: bool) -> None:
    told = drawn(5)
    called = {"train": ["train", "TRAIN"], "val": ["val", "validation", "Valid"], "test": ["test"]}
    frame = pandas.DataFrame({"file": NAMES, "split": [random.choice(called[part]) for part in told.values()]})
    frame["fold"] = [{"train": random.choice([1, 2, 3]), "val": 4, "test": 5}[part] for part in told.values()]
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "t.csv", index=False)
    more: dict[str, Any] = {"table": str(tmp_path / "t.csv")} if own else {}
    given = {} if own else {"table": read_table(tmp_path / "t.csv")}
    assert split({"by": "column", **more}, **given) == of(told)
    folds = {"by": "column", "column": "fold", "train": [1, 2, 3], "val": 4, "test": [5], **more}
    assert split(folds, **given) == of(told)
    shared = split({**folds, "val": 0.5}, **given)
    assert shared["test"] == of(told)["test"]
    assert shared["val"] == held_out({"": of(told)["train"]}, 0.5, 0)["val"]


def test_words_that_are_no_split_are_asked_for_and_then_left_out(tmp_path: Path, caplog: Any) -> None:
    rows = "".join(f"{name},{'train' if number % 2 else 'holdout'},\n" for number, name in enumerate(NAMES))
    table = read_table(written(tmp_path / "t.csv", f"id,split,none\n{rows}"))
    with pytest.raises(
        UserError, match=r"column split has holdout, and splits are train: train, training; val: .*: say"
    ):
        split("column", table=table)
    with caplog.at_level(logging.WARNING):
        found = split({"by": "column", "train": "train", "val": 0.1, "test": []}, table=table)
    assert len(found["train"]) + len(found["val"]) == 40
    assert "split: 40 of 80 samples are in no split" in caplog.text
    with pytest.raises(UserError, match=r"column split never has 'tain' \(train\): it has holdout, train"):
        split({"by": "column", "train": "tain"}, table=table)
    with pytest.raises(UserError, match=r"column none: 80 cells are empty, set/.* first: name their split"):
        split({"by": "column", "column": "none"}, table=table)
    with pytest.raises(UserError, match=r"data\.split\.table is not set, and there is no table of labels"):
        split("column")


# --- the rule itself


def test_a_rule_is_checked_by_name_and_says_itself() -> None:
    for words, said in (
        ("hsh", r"data\.split\.by is 'hsh': it can be hash, folder, list, column, blocks, folds; did you mean hash"),
        ({}, r"data\.split\.by is None"),
        ({"by": "hash", "vall": 0.1}, r"no setting data\.split\.vall of hash: it has val, test; did you mean val"),
        ({"by": "hash", "val": 0.6, "test": 0.4}, "val is 0.6 and test is 0.4: give shares that leave some to train"),
        ({"by": "blocks", "val": 0.6, "test": 0.4}, "val is 0.6 and test is 0.4"),
        ({"by": "folder", "val": 0.6, "test": 0.4}, "val is 0.6 and test is 0.4"),
        ({"by": "blocks", "metres": 0}, r"data\.split\.metres is 0: it must be a number above 0"),
        ({"by": "blocks", "apart": -1}, r"data\.split\.apart is -1"),
        ({"by": "blocks", "seed": 1.5}, r"data\.split\.seed is 1\.5"),
        ({"by": "hash", "val": float("nan")}, r"data\.split\.val is nan"),
        ({"by": "column", "column": None}, r"data\.split\.column is null"),
    ):
        with pytest.raises(UserError, match=said):
            rule_of(words)
    for by in RULES:
        rule = rule_of(by)
        assert isinstance(rule, Rule)
        assert rule_of(rule) is rule
        assert rule.to_dict()["by"] == by
        assert "\n" not in rule.words()
        json.dumps(rule.to_dict())
    assert rule_of("hash").words() == "by a hash of their names, 0.1 of each class for val and 0.1 for test"
    assert rule_of({"by": "folder", "val": 0.1, "test": "x"}).words() == (
        "by folder (train: train, training; val: 0.1 of train; test: x)"
    )
    assert rule_of({"by": "list", "train": "/a/b.txt", "val": 0.1}).to_dict() == {
        "by": "list",
        "train": "b.txt",
        "val": 0.1,
    }
    assert rule_of({"by": "column", "table": "/a/t.csv"}).to_dict() == {
        "by": "column",
        "column": "split",
        "table": "t.csv",
    }
    assert rule_of({"by": "blocks", "apart": 500, "metres": 5000}).to_dict() == {
        "by": "blocks", "metres": 5000, "apart": 500, "val": 0.1, "test": 0.1, "seed": 0,
    }  # fmt: skip
