"""Views: what is read of a map, and of what a store has pooled of it; and what they cannot read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore
from satdifuser.study.probe.views import columns, maps_of

KEPT = ["maps mean", "mean mean", "moments mean", "maps moments", "moments moments", "maps max", "max max"]
KEPT += ["quantiles mean", "maps quantiles", "quantiles quantiles", "quantiles both"]
KEPT += ["maps grid2", "grid2 grid2", "maps class", "mean class", "moments both", "maps both", "maps grid4"]


def cells(maps: np.ndarray, number: int) -> np.ndarray:
    """The mean of each of number x number cells, by a slow loop; channel by channel."""
    side = maps.shape[-1] // number
    found = [
        maps[:, channel, y * side : (y + 1) * side, x * side : (x + 1) * side].mean((1, 2))
        for channel in range(maps.shape[1])
        for y in range(number)
        for x in range(number)
    ]
    return np.stack(found, 1)


@pytest.mark.parametrize("case", KEPT)
def test_a_view_is_what_its_name_says_of_maps_and_of_what_is_pooled(
    case: str, made_store: Callable[..., FeatureStore]
) -> None:
    keep, view = case.split()
    data = made_store(keep=keep, tokens=True).split("test")
    bank = data.batch(range(7))["bank"]
    made = [column for column in columns(data.spec, data.spec, [view]) if not column.tap.name.endswith(".class")]
    assert [column.tap.name for column in made] == ["blocks.0", "blocks.1"]
    for column in made:
        maps, token = (bank[data.spec.find(name)].double().numpy() for name in (column.tap.name, f"{column.tap}.class"))
        if keep in ("moments", "quantiles"):
            own, tokens = maps[:, :6, 0, 0], token[:, :6, 0, 0]  # of quantiles a token has no more
        else:
            own, tokens = maps.mean((2, 3)), token.mean((2, 3))
        if view in ("mean", "class", "both"):
            expected = {"mean": own, "class": tokens, "both": np.concatenate([own, tokens], 1)}[view]
        elif view == "max":
            expected = maps.max((2, 3))
        elif view == "moments":
            both = np.concatenate([own, maps.std((2, 3))], 1)
            expected = maps[:, :, 0, 0] if keep == "moments" else both
        elif view == "quantiles":
            spread = np.quantile(maps.reshape(*maps.shape[:2], -1), [0.1, 0.25, 0.5, 0.75, 0.9], axis=2)
            whole = np.concatenate([own, maps.std((2, 3)), *spread], 1)
            expected = maps[:, :, 0, 0] if keep == "quantiles" else whole
        else:
            expected = cells(maps, int(view.removeprefix("grid")))
        found = column.rows(bank)
        assert tuple(found.shape) == (7, column.width)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_class_tokens_are_places_only_where_no_view_reads_them(made_store: Callable[..., FeatureStore]) -> None:
    spec = made_store(tokens=True).spec
    assert [c.tap.name for c in columns(spec, spec, ["mean"])] == list(spec.names())
    read = columns(spec, spec.select(names=["blocks.1"]), ["mean", "both"])
    assert [(c.tap.name, c.view, c.token and c.token.name) for c in read] == [
        ("blocks.1", "mean", None),
        ("blocks.1", "both", "blocks.1.class"),
    ]
    assert [tap.name for tap in read[1].taps] == ["blocks.1", "blocks.1.class"]
    assert [c.tap.name for c in maps_of(spec, spec)] == ["blocks.0", "blocks.1"]


def test_views_that_cannot_be_read_say_what_can(made_store: Callable[..., FeatureStore]) -> None:
    spec = made_store().spec
    with pytest.raises(UserError, match=r"'meen': it can be class, both, mean, .*; did you mean mean"):
        columns(spec, spec, ["meen"])
    with pytest.raises(UserError, match=r"class needs the class token of blocks\.0.*encoder\.class_token=true"):
        columns(spec, spec, ["class"])
    for keep, view in (("mean", "max"), ("max", "mean"), ("grid2", "mean"), ("grid2", "grid4")):
        pooled = replace(spec, settings=(("pooled", keep),))
        with pytest.raises(UserError, match=rf"{view} needs maps, and these features are pooled .*store\.keep={keep}"):
            columns(pooled, pooled, [view])
    pooled = replace(spec, settings=(("pooled", "moments"),))
    with pytest.raises(UserError, match=r"class needs the class token of blocks\.0"):
        columns(pooled, pooled, ["class"])
    with pytest.raises(UserError, match=r"which gives moments, mean: "):  # and no class token, which it has not got
        columns(pooled, pooled, ["grid2"])
    tokens = replace(made_store("with.zarr", tokens=True).spec, settings=(("pooled", "max"),))
    with pytest.raises(UserError, match=r"class needs maps, .*which gives max: "):
        columns(tokens, tokens, ["class"])
    with pytest.raises(UserError, match=r"probes of pixels need maps"):
        maps_of(pooled, pooled)
