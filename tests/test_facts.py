"""Facts of data sets, to which settings refer."""

from __future__ import annotations

from pathlib import Path

import pytest

from satdifuser.compare.grid import expand
from satdifuser.config import compose, composed, groups, trusted_by
from satdifuser.errors import UserError
from satdifuser.facts import also_read


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A user's own folder: a data set of which one setting is a fact."""
    (tmp_path / "facts" / "toy").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "facts" / "toy" / "small.yaml").write_text(
        "size: 16\nsensor: satdifuser.data.bands.SENTINEL2\nmean: [0.1, 0.2, 0.3]\nnames: {B04: red}\n"
    )
    (tmp_path / "facts" / "toy" / "large.yaml").write_text("size: 32\n")
    (tmp_path / "data" / "toy.yaml").write_text("defaults: [synthetic]\nsize: ${facts:toy,small,size}\n")
    (tmp_path / "data" / "other.yaml").write_text("defaults: [synthetic]\nsize: ${facts:toy,larg,size}\n")
    (tmp_path / "data" / "lacking.yaml").write_text("defaults: [synthetic]\ncloud: ${facts:toy,large,cloud}\n")
    return str(tmp_path)


def test_a_setting_takes_a_fact_and_what_refers_to_it_takes_it_too(folder: str) -> None:
    settings = compose("train", ["data=toy"], [folder])
    assert (settings.data["size"], settings.encoder["image_size"]) == (16, 16)
    assert compose("train", ["data=toy", "data.size=24"], [folder]).encoder["image_size"] == 24


def test_a_fact_can_be_a_list_or_a_mapping(folder: str) -> None:
    words = ["encoder.prepare.mean=${facts:toy,small,mean}", "+encoder.prepare.names=${facts:toy,small,names}"]
    config = composed("train", words, [folder])
    assert (list(config.encoder.prepare.mean), dict(config.encoder.prepare.names)) == ([0.1, 0.2, 0.3], {"B04": "red"})
    assert compose("train", words[:1], [folder]).encoder["prepare"]["mean"] == [0.1, 0.2, 0.3]


def test_a_grid_takes_facts_too(folder: str) -> None:
    cells = expand(compose("compare", [], [folder]), ["data=toy", "seed=0,1"], [folder])
    assert [cell.config.data["size"] for cell in cells] == [16, 16]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "other",
            r"^nothing is known of the toy set 'larg'.* large, small;.* or data\.size on the command.*mean large",
        ),
        ("lacking", r"large\.yaml does not say cloud: add it, or give data\.cloud="),
    ],
)
def test_a_fact_that_is_not_known_is_one_line(folder: str, data: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        compose("train", [f"data={data}"], [folder])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=said.lstrip("^")):
        expand(compose("compare", [], [folder]), [f"data={data}"], [folder])
    if data == "other":
        assert compose("train", ["data=other", "data.size=16"], [folder]).data["size"] == 16


def test_facts_are_no_group_and_what_they_name_is_trusted(folder: str) -> None:
    assert "facts" not in groups()
    (Path(folder) / "facts" / "toy" / "large.yaml").write_text("sensor: somebodys.bands.NAIP\n")
    assert "somebodys" in trusted_by([folder], [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data=geobench2", "data.task=cafe"],
            "or data.files, data.label, data.answer, data.sensor, data.size, data.scaling, data.bands, data.classes,"
            " data.ignore on the command line; did you mean caffe?",
        ),
        (["data=geobench2", "data.task=mados"], "on the command line; there is data=mados"),
        (["data=geobench2", "data.task=nzcattle"], "boxes as its labels, which are not read here"),
        (["data=geobench2", "data.task=nzcattle"], "there is data=geobench data.task=m-nz-cattle"),
        (["data=geobench2", "data.task=EverWatch"], "boxes as its labels, which are not read here"),
    ],
)
def test_a_set_that_is_not_known_is_named_with_what_reads_it_or_why_nothing_does(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", words)
    assert said in str(caught.value)


def test_what_else_reads_a_name_is_found_in_any_spelling_and_in_a_users_own_folder(folder: str) -> None:
    (Path(folder) / "data" / "my_toys.yaml").write_text("defaults: [synthetic]\n")
    compose("train", [], [folder])
    assert also_read("MyToys", "torchgeo") == "; there is data=my_toys"
    assert also_read("MADOS", "torchgeo") == "; there is data=mados"
    assert also_read("m-eurosat", "torchgeo") == "; there is data=geobench data.task=m-eurosat"
    assert also_read("EuroSAT", "geobench") == "; there is data=torchgeo data.dataset=EuroSAT"
    assert also_read("nobody", "torchgeo") == ""
