"""What is kept of a model's numbers, against slow encodings in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from satdifuser.data.base import Labels
from satdifuser.data.colours import colours
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Form
from satdifuser.scenes.out.forms import encode, form_of, nodata_of, scales_of
from satdifuser.tasks import Classification, MultiLabel, PixelRegression, Segmentation


def labels(count):
    return Labels(tuple(f"c{n}" for n in range(count)), colours(count))


def slow(form, column):
    """One pixel's numbers in plain Python."""
    if form.kind == "classes":
        return [max(range(len(column)), key=lambda k: (column[k], -k))]
    if form.kind == "probabilities":
        each = [math.exp(x - max(column)) for x in column]
        found = [1 / (1 + math.exp(-x)) for x in column] if form.several else [x / sum(each) for x in each]
        most = {"uint8": 254, "uint16": 65534}.get(form.dtype)
        return found if most is None else [p * most for p in found]
    if form.dtype == "int8":
        return [min(127, max(-127, x / scale)) for x, scale in zip(column, form.scales, strict=True)]
    return column


@pytest.mark.parametrize(
    "form",
    [
        Form("classes", "uint8", ("a", "b", "c")),
        Form("classes", "uint16", ("a", "b", "c")),
        Form("probabilities", "uint8", ("a", "b", "c")),
        Form("probabilities", "uint16", ("a", "b", "c")),
        Form("probabilities", "float32", ("a", "b", "c")),
        Form("probabilities", "uint8", ("a", "b", "c"), several=True),
        Form("logits", "float32", ("a", "b", "c")),
        Form("values", "float32", ("value",)),
        Form("embedding", "int8", ("a", "b", "c"), scales=(0.01, 0.5, 1e-7)),
        Form("embedding", "float16", ("a", "b", "c")),
    ],
    ids=lambda form: f"{form.kind}-{form.dtype}-{form.several}",
)
def test_numbers_are_kept_as_a_slow_encoding_keeps_them(form):
    draw = np.random.default_rng()
    values = (draw.normal(size=(len(form.names), 7, 5)) * 4).astype(np.float32)
    valid = draw.random((7, 5)) < 0.7
    values[:, ~valid] = np.nan
    found, nodata = encode(form, values, valid)
    assert found.dtype == form.dtype
    assert nodata == nodata_of(form) or math.isnan(nodata)
    whole = np.dtype(form.dtype).kind in "iu"
    for row in range(7):
        for column in range(5):
            kept = found[:, row, column].astype(np.float64)
            if not valid[row, column]:
                assert np.isnan(kept).all() if math.isnan(nodata) else (kept == nodata).all()
                continue
            wanted = np.array(slow(form, values[:, row, column].tolist()))
            off = {"uint8": 0.5001, "uint16": 0.55, "int8": 0.5001, "float16": 0.01}.get(form.dtype, 2e-6)
            assert np.abs(kept - wanted).max() <= off
            assert not whole or (kept != nodata).all()


def test_each_task_gives_what_suits_it():
    assert form_of(Segmentation(labels(3))) == Form(
        "classes", "uint8", labels(3).classes, labels(3).colours, dense=True
    )
    assert form_of(Segmentation(labels(255))).dtype == "uint8"
    assert form_of(Segmentation(labels(256))).dtype == "uint16"
    assert form_of(Classification(labels(3)), "probabilities").dtype == "uint8"
    assert form_of(MultiLabel(labels(3))).several
    assert form_of(MultiLabel(labels(3)), table=True).dtype == "float32"  # a column of floats saves nothing by steps
    assert form_of(MultiLabel(labels(3)), dtype="uint8", table=True).dtype == "uint8"
    assert form_of(Classification(labels(3)), table=True).dtype == "uint8"
    assert form_of(PixelRegression(Labels((), ()))) == Form("values", "float32", ("value",), dense=True)
    assert scales_of(form_of(MultiLabel(labels(2)))) == (1 / 254, 1 / 254)


@pytest.mark.parametrize(
    ("task", "output", "dtype", "words"),
    [
        (MultiLabel(labels(3)), "classes", None, "may have several of its classes"),
        (PixelRegression(Labels((), ())), "probabilities", None, "gives values"),
        (Segmentation(labels(300)), None, "uint8", "give dtype=uint16"),
        (Segmentation(labels(3)), "logits", "uint8", "cannot hold logits: give float32"),
        (Segmentation(labels(3)), "values", None, "classes, probabilities, logits"),
    ],
)
def test_what_does_not_go_together_is_one_line(task, output, dtype, words):
    with pytest.raises(UserError, match=words) as error:
        form_of(task, output, dtype)
    assert "\n" not in str(error.value)
