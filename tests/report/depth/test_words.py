"""What is said of a study in words: best places, what is close to them, what moved, what decoders and weights say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from satdifuser.report.depth import decoding, likeness, moved
from satdifuser.report.depth.content import Depths, Place
from satdifuser.report.depth.heats import over_timesteps
from satdifuser.report.depth.sections import parts
from satdifuser.report.depth.series import series_of


def test_series_take_probes_views_and_budgets_apart_in_the_order_of_computation(made: Any) -> None:
    probed = made.probed("UNet", taps=made.unet, timesteps=(161, 21), views=("mean", "max"))
    shuffled = dataclasses.replace(probed, points=tuple(reversed(probed.points)))
    found = series_of(shuffled)
    assert len(found) == 2 * 2 * 2
    for one in found:
        assert [(p.place.timestep, p.place.number) for p in one.points] == [
            (t, n) for t in (21, 161) for n in range(10)
        ]
        values = [p.scores["accuracy"].value for p in one.points]
        assert one.best is one.points[int(np.argmax(values))]
        assert [one.close(p) for p in one.points] == [p.p is not None and p.p >= 0.05 for p in one.points]


def test_a_sentence_names_the_best_place_and_those_that_are_close(made: Any) -> None:
    one = series_of(made.probed())[-1]
    close = [str(p.place) for p in one.points if p.p is not None and p.p >= 0.05]
    sentence = one.sentence()
    assert sentence.startswith(f"knn, mean, 100 % of the labels: best at {one.best.place} with accuracy 0.")
    assert all(name in sentence for name in close[:3])
    alone = dataclasses.replace(one, points=tuple(dataclasses.replace(p, p=p.p and 0.001) for p in one.points))
    assert alone.sentence().endswith("worse at every other place.")
    untested = dataclasses.replace(one, points=tuple(dataclasses.replace(p, p=None) for p in one.points))
    assert untested.sentence().endswith("].")


def test_a_heat_table_is_for_several_timesteps_alone(made: Any) -> None:
    assert over_timesteps(made.probed()) is None
    view = over_timesteps(made.probed("UNet", taps=made.unet, timesteps=(21, 61)))
    assert view is not None
    assert [grid.caption for grid in view.grids][:2] == [
        "logistic, mean, 10 % of the labels",
        "logistic, mean, 100 % of the labels",
    ]
    assert view.grids[0].full == list(made.unet)
    assert sum(cell.text.startswith("★") for _, cells in view.grids[0].rows for cell in cells) == 1


def test_what_moved_is_one_minus_the_diagonal_found_by_name(made: Any) -> None:
    one = made.likeness("after", "before", made.modules(3, timesteps=(21, 61)), same=True)
    order = np.random.default_rng(3).permutation(len(one.columns))
    mixed = dataclasses.replace(
        one,
        columns=tuple(one.columns[n] for n in order),
        values=one.values[:, order],
        errors=one.errors[:, order],
    )
    expected = 1 - np.diagonal(one.values)
    assert [move.value for move in moved.moves(mixed)] == expected.tolist()
    assert [move.error for move in moved.moves(mixed)] == np.diagonal(one.errors).tolist()
    most, least = int(expected.argmax()), int(expected.argmin())
    sentence = moved.sentence(moved.moves(mixed))
    assert f"most in {one.rows[most].tap} at timestep {one.rows[most].timestep} (" in sentence
    assert f"least in {one.rows[least].tap} at timestep {one.rows[least].timestep} (" in sentence
    kinds: dict[str, list[float]] = {}
    for place, value in zip(one.rows, expected, strict=True):
        kinds.setdefault(place.kind, []).append(value)
    for kind, values in kinds.items():
        assert f"{kind} {np.mean(values):.3f}" in sentence
    view = moved.table(mixed)
    assert view is not None
    assert [grid.caption for grid in view.grids] == ["timestep 21", "timestep 61"]
    assert list(view.grids[0].columns) == ["norm1", "qkv", "attention", "norm2", "fc1", "fc2"]
    assert [name for name, _ in view.grids[0].rows] == ["blocks 0", "blocks 1", "blocks 2"]


def test_two_modules_of_a_kind_in_one_block_stand_in_rows_of_their_own(made: Any) -> None:
    rows = [
        Place(f"up_blocks.1.resnets.{r}.{kind}", None, 2 * r + n, 8, 4, kind, "up_blocks.1")
        for r in range(3)
        for n, kind in enumerate(("conv1", "conv2"))
    ]
    view = moved.table(made.likeness("after", "before", rows, same=True))
    assert view is not None
    assert [name for name, _ in view.grids[0].rows] == ["up1 res0", "up1 res1", "up1 res2"]
    assert all(cell.text for _, cells in view.grids[0].rows for cell in cells)


def test_networks_of_two_architectures_have_not_moved(made: Any) -> None:
    one = made.likeness()
    assert moved.moves(one) == []
    assert moved.table(one) is None
    assert [part.id for part in parts(Depths(likeness=(one,)))] == ["depth-likeness"]


def test_likeness_names_the_most_alike_and_the_partner_of_each(made: Any) -> None:
    one = made.likeness(rows=made.places(made.vit), columns=made.places(made.unet, (21,)))
    row, column = np.unravel_index(int(one.values.argmax()), one.values.shape)
    both = f"{one.rows[row].tap} and {one.columns[column].tap} at timestep 21, {one.values.max():.3f}"
    assert likeness.alike(one).startswith(f"most alike are {both}")
    partner = one.columns[int(one.values[-1].argmax())]
    assert f"blocks.11 is most like {partner.tap} at timestep 21" in likeness.partners(one)
    assert likeness.outside(np.array([[0.0, 1.0]])) == "All values lie from 0 to 1."


def test_shapes_of_one_side_against_itself_are_drawn_once(made: Any) -> None:
    one = made.likeness("net", "net", made.places(made.vit), same=True)
    same = dataclasses.replace(one, shapes=(one.shapes[0], one.shapes[0]))
    drawn = likeness.shapes(same)
    assert drawn is not None
    assert drawn.alt.count("Intrinsic dimension") == 1
    assert likeness.shapes(dataclasses.replace(one, shapes=((), ()))) is None


def test_decoders_are_told_by_their_best_depth_largest_budget_first(made: Any) -> None:
    found = made.decoded()
    words = decoding.best_depths(found)
    assert [budget for budget, _ in words] == [100.0] * 3 + [10.0] * 3
    for budget, text in words:
        decoder = text.partition(":")[0]
        mine = [one for one in found if (one.decoder, one.budget) == (decoder, budget)]
        assert f"best at {max(mine, key=lambda one: one.estimate.value).tap} with" in text
    assert len(decoding.families([*found, *made.decoded("other")])) == 2


def test_a_page_names_only_the_parts_that_it_has(made: Any, depths: Depths) -> None:
    assert [part.name for part in parts(depths)] == [
        "Probes over depth",
        "What finetuning moved",
        "Likeness of networks",
        "Decoders against depth",
        "Learned weights against probes",
    ]
    assert [part.id for part in parts(Depths(decoded=made.decoded()))] == ["depth-decoders"]
    assert parts(Depths()) == []


def test_a_model_of_one_place_has_no_relative_depth(made: Any) -> None:
    one, two = made.probed("one", taps=("blocks.2",)), made.probed("two")
    three = made.probed("three", taps=made.unet)
    titles = [block.title for block in parts(Depths(probes=(one, two)))[0].blocks]
    assert titles == ["EuroSAT, one", "EuroSAT, two"]
    together = parts(Depths(probes=(one, two, three)))[0].blocks[0]
    assert together.title == "EuroSAT, all models"
    best = [series_of(probed)[1].best for probed in (two, three)]  # of the logistic probe, which is the better one
    depths = [100 * point.place.number / last for point, last in zip(best, (11, 9), strict=True) if point]
    said = [
        f"{name} is best at {depth:.0f} % of its depth" for name, depth in zip(("two", "three"), depths, strict=True)
    ]
    assert together.sentence == f"{', '.join(said)}."
