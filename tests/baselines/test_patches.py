"""Filters of encoder=rcf cut from the training images: which these are, what they are called, and who refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from satdifuser.baselines import patches
from satdifuser.baselines.patches import cut, drawn, whitened
from satdifuser.build import build_data, build_encoder
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.policy import resolved
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

RCF = ["encoder=rcf", "encoder.filters=patches", "encoder.features=20", "encoder.kernel=4", "encoder.stride=null"]


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[list[str]]:
    """Two classes of 24 pictures of noise, of little and of much; nothing is known of filters before and after."""
    draw = np.random.default_rng(0)
    for name, contrast in (("even", 10), ("rough", 60)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(24):
            values = draw.integers(128 - contrast, 128 + contrast, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "pictures" / name / f"{number}.png")
    _forget()
    yield ["data=image_folder", f"data.root={tmp_path}/pictures", "data.size=16", "data.val=0.25", "data.test=0.25"]
    _forget()


def _forget() -> None:
    """As in a new process."""
    patches._drawn.clear()
    patches._names.clear()


def part_of(words: Sequence[str]) -> Any:
    settings = compose("train", ["task=classification", *words])
    return resolved(settings.encoder, settings.data)


def test_filters_are_whitened_patches_of_training_images_alone(pictures: list[str]) -> None:
    settings = compose("train", ["task=classification", *RCF, *pictures])
    part = resolved(settings.encoder, settings.data)
    assert part["filters"].startswith("patches-")
    encoder = build_encoder(part)
    assert encoder.spec.weights == part["filters"]  # type: ignore[union-attr]
    data, prepare = build_data(settings.data, "train"), part["prepare"].build()
    images = [prepare(data[i]["image"][None])[0] for i in range(len(data))]
    expected = whitened(cut(images, 10, 4, seed=0).astype(np.float32))
    np.testing.assert_allclose(encoder._filters, expected, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
    found = cut(images, 10, 4, seed=0)
    windows = torch.stack(images).unfold(2, 4, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * 16)
    for patch in found:
        assert (windows == torch.from_numpy(patch).float().reshape(-1)).all(1).any()


def test_the_name_depends_on_images_seed_and_number_and_not_on_the_budget(pictures: list[str]) -> None:
    first = part_of([*RCF, *pictures])["filters"]
    assert part_of([*RCF, *pictures, "budget=10"])["filters"] == first
    _forget()
    assert part_of([*RCF, *pictures])["filters"] == first
    others = [part_of([*RCF, *pictures, word])["filters"] for word in ("seed=1", "encoder.features=24")]
    assert len({first, *others}) == 3


def test_an_encoder_that_got_no_images_says_where_they_come_from(pictures: list[str]) -> None:
    part = compose("train", ["task=classification", *RCF, *pictures]).encoder
    with pytest.raises(UserError, match=r"encoder.filters=patches takes patches of training images: cut them"):
        build_encoder(part)


def test_an_image_that_cannot_be_read_gives_no_patches_and_another_does() -> None:
    class Some(Sequence[Tensor]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: Any) -> Tensor:
            if index in bad:
                raise UserError(f"image {index} is damaged")
            return torch.full((1, 6, 6), float(index))

    bad = {1}
    found = cut(Some(), 200, 3, seed=0)
    assert len(found) == 200
    assert {float(patch[0, 0, 0]) for patch in found} == {0.0, 2.0, 3.0}
    bad = {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"image \d is damaged"):
        cut(Some(), 20, 3, seed=0)
    bad = set()
    with pytest.raises(UserError, match=r"encoder.kernel is 7: images have 6 px"):
        cut(Some(), 2, 7, seed=0)


def test_of_a_series_the_first_date_that_is_there_gives_patches() -> None:
    settings = compose("train", ["data=synthetic", "data.size=16", "data.splits.train.length=2", "encoder=rcf"])
    prepare = settings.encoder["prepare"].build()

    class Two(Sequence[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, _: Any) -> dict[str, Any]:
            one = build_data(settings.data, "train")[0]["image"]
            gone = torch.full_like(one, float("nan"))
            return {"id": "a", "image": torch.stack([gone, one]), "dates": torch.tensor([-1, 5])}

        def sample_id(self, _: int) -> str:
            return "a"

    from satdifuser.data.policy import TrainingImages

    found = TrainingImages(Two(), prepare)[0]  # type: ignore[arg-type]
    assert torch.equal(found, prepare(build_data(settings.data, "train")[0]["image"][None])[0])


def test_a_run_and_a_store_know_their_filters_and_refuse_others(
    pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*RCF, *pictures]
    fit = ["task=classification", "fusion=plain", "decoder=logistic"]
    assert main(["extract", *words, "store.path=f.zarr", "store.dtype=float32"]) == 0
    assert main(["train", *words, *fit, "run=live"]) == 0
    assert main(["train", *words, *fit, "features=f.zarr", "run=stored"]) == 0
    live, stored = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("live", "stored"))
    assert stored["test"] == pytest.approx(live["test"], abs=1e-6)
    assert live["test"]["accuracy"] > 0.9
    name = dict(FeatureStore("f.zarr").spec.to_dict())["weights"]
    assert drawn(name) is not None
    _forget()
    assert main(["eval", "run=live"]) == 0  # another process cuts them again
    assert main(["extract", *words, "store.path=f.zarr", "store.dtype=float32", "store.reuse=true"]) == 0
    for file in sorted((tmp_path / "pictures").rglob("*.png")):
        picture = np.asarray(Image.open(file))
        Image.fromarray(picture[::-1]).save(file)
    _forget()
    capsys.readouterr()
    assert main(["eval", "run=live"]) == 2
    assert f"{name} were cut from other training images" in capsys.readouterr().err
    assert main(["extract", *words, "store.path=f.zarr", "store.dtype=float32", "store.reuse=true"]) == 2
    assert "weights" in capsys.readouterr().err


def test_a_grid_draws_other_patches_with_each_seed_and_knows_its_runs_in_another_process(
    pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    task = ["task=classification", "fusion=plain", "decoder=logistic"]
    models = [f"+models.floor={json.dumps(RCF)}", f"+tasks.rough={json.dumps(task)}"]
    words = [*models, *pictures, "budgets=[50,100]", "seeds=[0,1]", "output=grid", "resamples=50", "shown=2"]
    assert main(["compare", *words]) == 0
    names = {FeatureStore(path).spec.weights for path in (tmp_path / "grid" / "features").glob("*.zarr")}
    assert len(names) == 2  # one for each seed, whatever the budget
    found = [json.loads(path.read_text()) for path in (tmp_path / "grid" / "runs").glob("*/result.json")]
    assert [one["ended"] for one in found] == ["fitted"] * 4
    _forget()
    capsys.readouterr()
    assert main(["compare", *words, "dry_run=true"]) == 0
    assert "0 runs to do" in capsys.readouterr().out
    assert "floor" in (tmp_path / "grid" / "tables.md").read_text()
