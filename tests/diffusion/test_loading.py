"""Loading backbones: strict, with a clear line for each thing that can be wrong, and weights worth loading."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from satdifuser.build import build_encoder
from satdifuser.config import compose
from satdifuser.data.synthetic.dataset import FIRST
from satdifuser.data.synthetic.scenes import SCALE, render
from satdifuser.diffusion.loading import SHIPPED, fingerprint, unconditional
from satdifuser.errors import UserError

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "mine"))


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        unconditional(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_weights_and_schedule_are_those_that_diffusers_reads(tiny_folder: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    backbone = unconditional(str(tiny_folder))
    theirs = UNet2DModel.from_pretrained(tiny_folder / "unet").state_dict()
    ours = backbone.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    schedule = DDPMScheduler.from_pretrained(tiny_folder / "scheduler")
    assert torch.equal(backbone.scheduler.alphas_cumprod, schedule.alphas_cumprod)
    assert backbone.name == "tiny"
    assert unconditional(str(tiny_folder), name="other").name == "other"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = complaint(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "unet/, scheduler/" in message


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json", str(WEIGHTS)])
def test_each_file_that_is_missing_is_named(folder: Path, part: str) -> None:
    (folder / part).unlink()
    assert str(folder / part) in complaint(folder)


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", [b"{ broken", b"", b"\xff\xfe"])
def test_a_configuration_that_is_not_json_is_named(folder: Path, part: str, text: bytes) -> None:
    (folder / part).write_bytes(text)
    message = complaint(folder)
    assert str(folder / part) in message
    assert "not valid JSON" in message


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_truncated_weights_file_is_named_as_damaged(folder: Path, keep: float) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    message = complaint(folder)
    assert str(folder / WEIGHTS) in message
    assert "damaged" in message


@pytest.mark.parametrize("name", ["UNet2DConditionModel", None])
def test_a_network_of_another_kind_is_refused_with_both_names(folder: Path, name: str | None) -> None:
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config["_class_name"] = name
    path.write_text(json.dumps(config))
    message = complaint(folder)
    assert str(name) in message
    assert "UNet2DModel is expected" in message
    assert str(path) in message


def _remove(state: dict[str, torch.Tensor]) -> None:
    del state["conv_in.bias"]


def _add(state: dict[str, torch.Tensor]) -> None:
    state["conv_in.scale"] = torch.zeros(2)


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state["conv_in.weight"] = torch.zeros(8, 4, 3, 3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_remove, ["conv_in.bias", "missing"]),
        (_add, ["conv_in.scale", "unknown"]),
        (_reshape, ["conv_in.weight", "(8, 4, 3, 3)", "(8, 3, 3, 3)"]),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_named(
    folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None], words: list[str]
) -> None:
    state = load_file(folder / WEIGHTS)
    spoil(state)
    save_file(state, folder / WEIGHTS)
    message = complaint(folder)
    for word in [*words, str(folder / WEIGHTS), "(1 weights)"]:
        assert word in message


def test_half_precision_weights_are_single_precision_after_loading(folder: Path) -> None:
    state = {name: value.half() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)
    loaded = unconditional(str(folder)).unet.state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], value.float()) for name, value in state.items())


def test_random_weights_depend_on_their_seed_alone_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    first = unconditional("random", seed=3)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again = unconditional("random", seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.fingerprint == again.fingerprint
    mine, theirs = first.unet.state_dict(), again.unet.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    other = unconditional("random", seed=4)
    assert other.fingerprint != first.fingerprint
    assert not torch.equal(other.unet.conv_in.weight, first.unet.conv_in.weight)
    assert first.name == "random-diffusion"


def test_the_fingerprint_changes_with_any_single_weight() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    before = fingerprint(network)
    assert fingerprint(network) == before
    for tensor in network.state_dict().values():
        kept = tensor.clone()
        tensor.view(-1)[-1] += 1
        assert fingerprint(network) != before
        tensor.copy_(kept)
    assert fingerprint(network) == before


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_weights_are_small_and_load_as_single_precision(name: str) -> None:
    assert sum(file.stat().st_size for file in SHIPPED[name].rglob("*") if file.is_file()) < 20_000_000
    backbone = unconditional(name)
    assert {value.dtype for value in backbone.unet.state_dict().values()} == {torch.float32}
    assert backbone.name == f"{name}-diffusion"
    random = unconditional("random", architecture=name)
    assert random.fingerprint != backbone.fingerprint
    public = [{k: v for k, v in b.unet.config.items() if not k.startswith("_")} for b in (random, backbone)]
    assert public[0] == public[1]


def test_an_architecture_that_does_not_ship_is_refused() -> None:
    with pytest.raises(UserError, match=r"no architecture smal: there is small; did you mean small"):
        unconditional("random", architecture="smal")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_the_shipped_weights_says_what_was_measured(name: str) -> None:
    folder = SHIPPED[name]
    card, about = (folder / "README.md").read_text(), json.loads((folder / "provenance.json").read_text())
    for value in about["loss_on_held_out_images"].values():
        assert f"{value:.4f}" in card
    assert f"{about['minutes']} minutes" in card
    assert sum(p.numel() for p in unconditional(name).unet.parameters()) == about["parameters"]
    assert all((folder / name).is_file() for name in re.findall(r"!\[\w+\]\((.+)\)", card))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_encoder_is_configured_for_the_inputs_that_it_was_trained_on(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    build_encoder(compose("extract", [f"encoder={name}"]).encoder)
    assert caplog.messages == []
    build_encoder(compose("extract", [f"encoder={name}", "encoder.prepare.mean=0.5"]).encoder)
    assert "give it encoder.prepare.mean=0.34" in caplog.messages[-1]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_configured_encoder_reads_both_scales_on_the_way_down_and_up(name: str) -> None:
    encoder = build_encoder(compose("extract", [f"encoder={name}"]).encoder)
    spec = encoder.spec
    assert spec.strides == (4, 8)
    assert spec.image_size == (64, 64)
    bank = encoder(torch.rand(1, 13, 64, 64) * 0.3, sample_ids=["a"])
    assert all(torch.isfinite(value).all() and value.std() > 1e-3 for value in bank.values())


def test_the_shipped_network_denoises_scenes_that_it_has_not_seen() -> None:
    backbone = unconditional("small")
    assert backbone.scheduler.config["prediction_type"] == "v_prediction"
    first = FIRST["test"] + int(np.random.default_rng().integers(900_000))
    scenes = [render(77, first + i).image.astype("float32") / SCALE for i in range(4)]
    clean = build_encoder(compose("extract", []).encoder).prepare(torch.from_numpy(np.stack(scenes)))
    kept = float(backbone.scheduler.alphas_cumprod[161].double())
    noisy = kept**0.5 * clean + (1 - kept) ** 0.5 * torch.randn_like(clean)
    with torch.no_grad():
        velocity = backbone.unet.eval()(noisy, 161).sample
    denoised = kept**0.5 * noisy - (1 - kept) ** 0.5 * velocity

    def error(image: torch.Tensor) -> float:
        return float((image - clean).square().mean())

    averaged = F.avg_pool2d(F.pad(noisy / kept**0.5, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    assert error(denoised) < error(averaged), first
    assert error(denoised) < error(F.avg_pool2d(F.pad(noisy, (1, 1, 1, 1), mode="replicate"), 3, stride=1)), first
    assert error(denoised) < 0.5 * error(noisy), first
