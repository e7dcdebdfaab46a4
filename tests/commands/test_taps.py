"""satdifuser taps: what can be read and what is chosen, with no weights at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from satdifuser.cli import main
from satdifuser.config import compose


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder without checkpoints, and no environment that names any."""
    monkeypatch.chdir(tmp_path)
    for name in ("DIFFUSIONSAT_WEIGHTS", "STABLE_DIFFUSION_WEIGHTS", "UNCONDITIONAL_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def unweighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny UNet in diffusers' layout that has lost its weights."""
    from diffusers import DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("taps") / "mine"
    unet = UNet2DModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=4,
    )
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").save_pretrained(folder / "scheduler")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    return folder


def printed(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(["taps", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def fails(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The one line on standard error of a call that must exit with 2."""
    code = main(["taps", *words])
    out, err = capsys.readouterr()
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert "unexpected" not in err
    assert out == ""
    return err


def rows(text: str) -> dict[str, tuple[bool, list[str]]]:
    """Tap -> whether it is marked, and kind, channels, stride and size of the map."""
    found = {}
    for line in text.splitlines():
        match = re.match(r" {0,2}(\*?) +([\w.]+) +(\w*) +(\d+) +(\d+) +(\d+ x \d+) *$", line)
        if match:
            found[match[2]] = (match[1] == "*", [match[3], match[4], match[5], match[6]])
    return found


def test_the_published_selection_is_marked_and_counted_without_a_checkpoint(capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, "encoder=diffusionsat")
    assert "no folder ./checkpoints/diffusionsat" in text
    assert "architecture diffusionsat" in text
    table = rows(text)
    marked = {name for name, (mark, _) in table.items() if mark}
    assert len(marked) == 21
    assert all(re.fullmatch(r"up_blocks\.\d\.(resnets\.\d\.conv2|attentions\.\d\..*\.attn1)", name) for name in marked)
    assert marked == {name for name in table if name.startswith("up_") and table[name][1][0] in ("conv2", "attn1")}
    assert table["up_blocks.0.resnets.2.conv2"] == (True, ["conv2", "1280", "64", "4 x 4"])
    assert table["up_blocks.3.attentions.0.transformer_blocks.0.attn1"] == (True, ["attn1", "320", "8", "32 x 32"])
    assert table["mid_block"] == (False, ["block", "1280", "64", "4 x 4"])
    assert table["conv_in"] == (False, ["conv_in", "320", "8", "32 x 32"])
    places = list(table)
    assert places[0] == "conv_in"
    assert places[-1] == "conv_out"
    assert places.index("down_blocks.3") < places.index("mid_block") < places.index("up_blocks.0.resnets.0.conv1")
    assert "* 21 taps are chosen" in text
    assert "at 3 timesteps: 10.51 M numbers an image, 21.0 MB in 16 bits" in text  # 3 x 3502080


def test_random_weights_are_not_looked_for(capsys: pytest.CaptureFixture) -> None:
    wanted = "encoder.taps=[{block: up, module: conv2, index: [0, -1]}]"
    text = printed(
        capsys, "encoder=stable_diffusion", "encoder.backbone.weights=random", "encoder.timesteps=[5]", wanted
    )
    assert "no folder" not in text
    assert {n for n, (mark, _) in rows(text).items() if mark} == {
        "up_blocks.0.resnets.0.conv2",
        "up_blocks.3.resnets.2.conv2",
    }
    assert "2 taps are chosen" in text
    assert "at 1 timesteps: 0.35 M numbers an image, 0.7 MB" in text  # 1280 x 16 + 320 x 1024


def test_the_weights_of_a_folder_are_not_read(capsys: pytest.CaptureFixture, unweighted: Path) -> None:
    words = ["encoder=unconditional", f"encoder.backbone.weights={unweighted}", "data.size=64"]
    text = printed(capsys, *words, "encoder.taps=[mid_block, {block: up, module: conv2, index: -1}]")
    assert "no folder" not in text
    table = rows(text)
    marked = {name: row for name, (mark, row) in table.items() if mark}
    assert marked == {
        "mid_block": ["block", "8", "2", "32 x 32"],
        "up_blocks.1.resnets.1.conv2": ["conv2", "4", "1", "64 x 64"],
    }
    assert "2 taps are chosen" in text
    assert "0.07 M numbers an image, 0.1 MB" in text  # 3 x (8 x 1024 + 4 x 4096)
    few, many = set(table), set(rows(printed(capsys, *words, "all=true")))
    assert few < many
    assert "conv_norm_out" in many - few
    assert {name.rpartition(".")[2] for name in few if "conv" in name} == {"conv1", "conv2", "conv_in", "conv_out"}


def test_listing_draws_no_random_numbers(capsys: pytest.CaptureFixture, unweighted: Path) -> None:
    state = torch.random.get_rng_state()
    printed(capsys, "encoder=unconditional", f"encoder.backbone.weights={unweighted}")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_default_encoder_marks_the_taps_of_its_configuration(capsys: pytest.CaptureFixture) -> None:
    table = rows(printed(capsys))
    assert {name for name, (mark, _) in table.items() if mark} == set(compose("taps", []).encoder["taps"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["encoder=unet"], ["lists the taps of a diffusion backbone", "encoder=small"]),
        (["encoder=vit"], ["lists the taps of a diffusion backbone", "encoder=small"]),
        (["encoder=unconditional"], ["no folder", "checkpoints/unconditional"]),
        (["encoder.taps=[midblock]"], ["no tap 'midblock'", "did you mean mid_block"]),
        (["encoder.taps=[up_blocks.0.resnets.1.conv3]"], ["did you mean", "up_blocks.0.resnets.1.conv2"]),
        (["encoder.taps=[{module: cnov2}]"], ["no module 'cnov2'", "did you mean conv2"]),
        (["encoder.taps=[{module: conv2, index: 99}]"], ["index 99", "is outside"]),
        (["encoder.taps=satdifusr"], ["no preset of taps 'satdifusr'", "did you mean satdifuser"]),
        (["encoder.taps=[]"], ["encoder.taps is empty"]),
        (["encoder.taps=null"], ["encoder.taps"]),
        (["encoder.taps=5"], ["encoder.taps"]),
        (["encoder.timesteps=[1000]"], ["encoder.timesteps is [1000]"]),
        (["encoder.timesteps=[21,21]"], ["encoder.timesteps is [21, 21]", "distinct"]),
        (["data.size=20"], ["encoder.image_size is 20", "multiple"]),
        (["encoder.image_size=4"], ["encoder.image_size is 4", "multiple"]),
    ],
    ids=lambda value: value[0] if len(value) == 1 else "",
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture, words: list[str], expected: list[str]) -> None:
    said = fails(capsys, *words)
    for word in expected:
        assert word in said


def test_an_unknown_architecture_is_one_line(capsys: pytest.CaptureFixture) -> None:
    said = fails(capsys, "encoder=diffusionsat", "encoder.backbone.architecture=sd20")
    assert "no architecture 'sd20'" in said
    assert "did you mean sd21" in said
