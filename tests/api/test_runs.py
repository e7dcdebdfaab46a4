"""A trained run from Python answers as the run did; saved, sent to a hub and loaded again it is the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
import zarr

import satdifuser
from satdifuser.commands import train
from satdifuser.commands.eval import run as evaluate
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from tests.api.conftest import WORDS

Images = tuple[list[str], torch.Tensor]


def test_a_run_answers_as_it_did_when_it_was_scored(run: Path, test_images: Images) -> None:
    ids, images = test_images
    trained = satdifuser.load_run(run)
    kept: Any = zarr.open_group(str(run / "predictions-test.zarr"), mode="r")
    logits = trained(images, ids=ids)
    torch.testing.assert_close(logits, torch.from_numpy(kept["logits"][:]).float(), rtol=2e-3, atol=2e-3)
    assert trained.predict(images).tolist() == kept["prediction"][:].tolist() == logits.argmax(1).tolist()
    assert len(trained.classes) == logits.shape[1]
    assert trained.bands == tuple(trained.sensor.names)
    assert len(trained.bands) == images.shape[1]


def test_the_features_are_what_the_head_reads(run: Path, test_images: Images) -> None:
    trained = satdifuser.load_run(run)
    bank = trained.features(test_images[1])
    expected = satdifuser.load_encoder("colours", size=16)(test_images[1])
    assert bank.spec == RunFolder(run).spec() == expected.spec
    for tap, maps in expected.items():
        torch.testing.assert_close(bank[tap], maps)


def test_a_map_has_the_size_of_the_images_and_no_answer_depends_on_its_neighbours(tmp_path: Path) -> None:
    words = [word for word in WORDS if not word.startswith("task=")]
    few = ["encoder.taps=[conv_in,mid_block]", "encoder.timesteps=[61]", "trainer.max_steps=1", "trainer.min_steps=1"]
    settings = compose("train", [*words, "task=segmentation", *few, f"run={tmp_path / 'run'}"])
    train.run(settings, quiet=True, draw=False)
    trained = satdifuser.load_run(tmp_path / "run")
    images = torch.rand(3, 13, 16, 16)
    logits = trained(images)
    assert logits.shape == (3, len(trained.classes), 16, 16)
    assert trained.predict(images).shape == (3, 16, 16)
    torch.testing.assert_close(trained(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-4)
    assert not torch.equal(trained(images[1:2], ids=["another"]), logits[1:2])


def test_two_loads_share_nothing_and_a_head_can_go_on_learning(run: Path, test_images: Images) -> None:
    one, two = satdifuser.load_run(run), satdifuser.load_run(run)
    before = two(test_images[1])
    one.model.decoder.requires_grad_(True)
    one(test_images[1]).sum().backward()
    with torch.no_grad():
        for parameter in one.model.decoder.parameters():
            assert parameter.grad is not None
            parameter.add_(1.0)
    assert not torch.equal(one(test_images[1]), before)
    assert torch.equal(two(test_images[1]), before)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((13, 16, 16), r"shape \(13, 16, 16\): give \[B, 13, H, W\]"), ((1, 3, 16, 16), "image 0 of the batch has the")],
)
def test_images_of_another_shape_are_told(run: Path, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        satdifuser.load_run(run)(torch.zeros(shape))


def test_nan_is_told_with_the_image_that_has_it_and_ids_must_be_as_many(run: Path) -> None:
    images = torch.rand(2, 13, 16, 16)
    images[1, 4, 2, 2] = torch.nan
    with pytest.raises(UserError, match="image 1 of the batch has NaN"):
        satdifuser.load_run(run).predict(images)
    with pytest.raises(UserError, match="1 ids for 2 images"):
        satdifuser.load_run(run).predict(images, ids=["a"])


def test_a_saved_run_is_a_run_of_its_own_with_a_card(run: Path, tmp_path: Path, test_images: Images) -> None:
    trained = satdifuser.load_run(run)
    folder = trained.save_pretrained(tmp_path / "given", title="Tiles", licence="cc-by-4.0")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "config.yaml", "spec.json", "result.json", "checkpoints/best.safetensors"} <= found
    assert {Path(name).suffix for name in found} <= {".md", ".yaml", ".json", ".safetensors"}
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["pipeline_tag"] == "image-classification"
    assert head["license"] == "cc-by-4.0"
    assert "# Tiles" in card
    assert "| accuracy | " in card
    again = satdifuser.TrainedRun.from_pretrained(folder)
    assert torch.equal(again(test_images[1]), trained(test_images[1]))
    theirs = evaluate(compose_eval(run))
    assert evaluate(compose_eval(folder))["test"] == theirs["test"]


def compose_eval(folder: Path) -> Any:
    return compose("eval", [f"run={folder}"])


def test_a_run_whose_weights_were_changed_is_saved_as_it_is_now_without_scores(
    run: Path, tmp_path: Path, test_images: Images
) -> None:
    trained = satdifuser.load_run(run)
    with torch.no_grad():
        for parameter in trained.model.decoder.parameters():
            parameter.mul_(2.0)
    folder = trained.save_pretrained(tmp_path / "given")
    assert not (folder / "result.json").exists()
    assert "None are known of these weights" in (folder / "README.md").read_text()
    assert torch.equal(satdifuser.load_run(folder)(test_images[1]), trained(test_images[1]))


def test_weights_of_the_encoder_that_lie_here_go_along(tmp_path: Path) -> None:
    shipped = Path(satdifuser.__file__).parents[1] / "deflect" / "weights" / "small"
    own = shutil.copytree(shipped, tmp_path / "my_vit")
    words = [*WORDS, "encoder=small_vit", "encoder.blocks=[0]", f"encoder.backbone.weights={own}"]
    train.run(compose("train", [*words, f"run={tmp_path / 'run'}"]), quiet=True, draw=False)
    trained = satdifuser.load_run(tmp_path / "run")
    images = torch.rand(2, 13, 16, 16)
    expected = trained(images)
    whole = trained.save_pretrained(tmp_path / "whole")
    bare = trained.save_pretrained(tmp_path / "bare", encoder=False)
    assert "encoder.backbone.weights is not in this folder" in (bare / "README.md").read_text()
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "run")
    moved = whole.rename(tmp_path / "elsewhere")
    assert torch.equal(satdifuser.load_run(moved)(images), expected)
    with pytest.raises(UserError, match="my_vit"):
        satdifuser.load_run(bare)
    (moved / "encoder" / "weights.json").write_text('{"backbone.weights": "../../bare"}')
    with pytest.raises(UserError, match="does not lie beside it"):
        satdifuser.load_run(moved)


def test_a_folder_that_holds_something_else_is_not_written_over(run: Path, tmp_path: Path) -> None:
    trained = satdifuser.load_run(run)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        trained.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is the run itself"):
        trained.save_pretrained(run)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_goes_to_the_hub_and_comes_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_images: Images
) -> None:
    import huggingface_hub

    calls: list[Any] = []

    def upload(self: Any, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
        calls.append((repo_id, commit_message))

    def download(name: str, **options: Any) -> str:
        calls.append((name, options["revision"]))
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, name, **given: calls.append((name, given)))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    trained = satdifuser.load_run(run)
    assert trained.push_to_hub("me/tiles", private=True, message="First") == "https://huggingface.co/me/tiles"
    again = satdifuser.TrainedRun.from_pretrained("me/tiles", revision="v1")
    assert calls == [("me/tiles", {"private": True, "exist_ok": True}), ("me/tiles", "First"), ("me/tiles", "v1")]
    assert torch.equal(again(test_images[1]), trained(test_images[1]))


def test_a_hub_that_is_not_there_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fails(*args: Any, **given: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: SimpleNamespace(create_repo=fails))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(UserError, match=r"me/tiles could not be uploaded \(no route to host\)") as error:
        satdifuser.load_run(run).push_to_hub("me/tiles")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no such run can be had from the hub \(no route to host\)"):
        satdifuser.TrainedRun.from_pretrained("me/tiles")
    with pytest.raises(UserError, match="'tiles' is no name of the hub"):
        satdifuser.load_run(run).push_to_hub("tiles")
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        satdifuser.TrainedRun.from_pretrained("nowhere")


def test_code_of_others_is_not_run_unless_it_is_trusted(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("satdifuser.baselines.colours", "somebodys_package.colours"))
    with pytest.raises(UserError, match="not code of this project"):
        satdifuser.load_run(folder)
    with pytest.raises(UserError, match="there is none"):  # it is looked for now, and not installed
        satdifuser.load_run(folder, trust=["somebodys_package"])
