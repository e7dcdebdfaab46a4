"""Weights from files, written here by the writers that people use, and every way in which a file can be wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchgeo.models
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from deflect.backbones import Backbone, timm_vit, torchgeo_vit
from deflect.backbones.weights import fingerprint, read_weights
from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.data.inputs import RGB, ImageInput

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
State = dict[str, Tensor]


def vit(weights: Path | str = "none", size: int = 32, **given: Any) -> Backbone:
    return timm_vit("vit_tiny_patch16_224", str(weights), image_size=size, patch_size=8, options=TINY, **given)


def croma(weights: Path | str = "none") -> Backbone:
    options = {"encoder_dim": 32, "encoder_depth": 2}
    return torchgeo_vit("CROMA", str(weights), image_size=32, options=options)


def dofa(weights: Path | str = "none") -> Backbone:
    return torchgeo_vit("DOFA", str(weights), image_size=32, options={"patch_size": 8, **TINY})


def random_state(size: int = 32, **given: Any) -> State:
    """Of a whole ViT, as timm names its tensors; norms and biases are random too."""
    given = {"num_classes": 0, "img_size": size, "patch_size": 8, **TINY, **given}
    state = timm.create_model("vit_tiny_patch16_224", **given).state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


def held(backbone: Backbone) -> State:
    """What the model has, its last norm (which the backbone keeps apart) at its own name."""
    state = dict(backbone.model.state_dict())
    if backbone.norm is not None:
        state |= {f"norm.{name}": tensor for name, tensor in backbone.norm.state_dict().items()}
    return state


def assert_has(backbone: Backbone, state: State) -> None:
    found = held(backbone)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


NESTS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 7, "args": {"lr": 1e-3, "name": "mae"}},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "module.": lambda state: {"state_dict": prefixed(state, "module.")},
    "module.backbone.": lambda state: {"state_dict": prefixed(state, "module.backbone.")},
    "encoder.": lambda state: {"model": prefixed(state, "encoder.") | {"head.weight": torch.randn(5, 32)}},
    "moco": lambda state: {
        "state_dict": prefixed(state, "module.base_encoder.")
        | prefixed({name: torch.randn_like(tensor) for name, tensor in state.items()}, "module.momentum_encoder.")
        | {"module.base_encoder.head.0.weight": torch.randn(8, 32)}
    },
}


@pytest.mark.parametrize("nest", [name for name in NESTS if name != "moco"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_checkpoints_tensors_are_found_in_its_nest(tmp_path: Path, nest: str, suffix: str) -> None:
    state = random_state()
    assert_has(vit(saved(tmp_path / f"vit{suffix}", NESTS[nest](state))), state)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_safetensors_load_exactly(tmp_path: Path, prefix: str) -> None:
    state = random_state()
    assert_has(vit(saved(tmp_path / "vit.safetensors", prefixed(state, prefix))), state)


def test_of_mocos_two_encoders_the_base_is_loaded(tmp_path: Path) -> None:
    state = random_state()
    assert_has(vit(saved(tmp_path / "moco.pth", NESTS["moco"](state))), state)


@pytest.mark.parametrize("order", [("student", "teacher"), ("teacher", "student")])
@pytest.mark.parametrize("prefixes", [("module.backbone.", "backbone."), ("backbone.", "backbone."), ("", "")])
def test_of_a_student_and_a_teacher_the_teacher_is_loaded(
    tmp_path: Path, order: tuple[str, str], prefixes: tuple[str, str]
) -> None:
    states = {"student": random_state(), "teacher": random_state()}
    inside = {
        name: prefixed(states[name], prefix)
        | {"head.mlp.0.weight": torch.randn(8, 32), "head.last_layer.weight_v": torch.randn(9, 8)}
        for name, prefix in zip(("student", "teacher"), prefixes, strict=True)
    }
    file = saved(tmp_path / "dino.pth", {**{name: inside[name] for name in order}, "epoch": 100})
    assert_has(vit(file), states["teacher"])


def test_of_a_masked_autoencoder_the_encoder_is_loaded(tmp_path: Path) -> None:
    state = random_state()
    decoder = {"mask_token": torch.randn(1, 1, 16), "decoder_pos_embed": torch.randn(1, 17, 16)}
    decoder |= {"decoder_embed.weight": torch.randn(16, 32), "decoder_embed.bias": torch.randn(16)}
    decoder |= {"decoder_norm.weight": torch.randn(16), "decoder_pred.weight": torch.randn(192, 16)}
    for number in range(5):  # more blocks than the encoder
        decoder |= {f"decoder_blocks.{number}.{part}": torch.randn(16) for part in ("norm1.weight", "norm1.bias")}
        decoder[f"decoder_blocks.{number}.attn.qkv.weight"] = torch.randn(48, 16)
    assert_has(vit(saved(tmp_path / "mae.pth", {"model": {**decoder, **state}})), state)


def test_cromas_file_of_several_encoders_gives_the_optical_one(tmp_path: Path) -> None:
    """As torchgeo publishes it: a dictionary of modules, with radar and joint encoders beside, and no distances."""
    torch.manual_seed(11)
    theirs: Any = torchgeo.models.CROMA(encoder_dim=32, encoder_depth=2, image_size=32)
    parts = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
    content = {part: getattr(theirs, part).state_dict() for part in parts}
    built = croma(saved(tmp_path / "CROMA_base.pt", content))
    expected = theirs.s2_encoder.state_dict()
    found = built.plain.s2_encoder.state_dict()
    assert built.norm is not None
    found |= {f"transformer.norm_out.{name}": tensor for name, tensor in built.norm.state_dict().items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert torch.equal(built.plain.attn_bias, theirs.attn_bias)


def test_dofas_file_with_its_masked_autoencoders_rest_is_loaded(tmp_path: Path) -> None:
    """As its authors publish it: with a last norm that the pooling model does not have, a mask token, a projector."""
    torch.manual_seed(12)
    theirs = torchgeo.models.DOFA(img_size=32, patch_size=8, **TINY).state_dict()
    state = {name: tensor for name, tensor in theirs.items() if not name.startswith(("fc_norm", "head"))}
    rest = {"mask_token": torch.randn(1, 1, 16), "norm.weight": torch.randn(32), "norm.bias": torch.randn(32)}
    rest |= {"projector.weight": torch.randn(8, 32), "projector.bias": torch.randn(8)}
    assert_has(dofa(saved(tmp_path / "DOFA_ViT_base_e100.pth", {**state, **rest})), state)


@pytest.mark.parametrize(("old", "new"), [(64, 32), (24, 40), (16, 32)])
def test_position_embeddings_of_another_image_size_are_interpolated_as_timm_does(
    tmp_path: Path, old: int, new: int
) -> None:
    state = random_state(old)
    found = held(vit(saved(tmp_path / "vit.safetensors", state), size=new))
    side, patches = new // 8, old // 8
    expected = resample_abs_pos_embed(
        state["pos_embed"], new_size=[side, side], old_size=[patches, patches], num_prefix_tokens=1
    )
    assert torch.equal(found.pop("pos_embed"), expected)
    assert torch.equal(expected[:, 0], state["pos_embed"][:, 0])
    for name, tensor in found.items():
        assert torch.equal(tensor, state[name])


def test_position_embeddings_of_patches_alone_are_interpolated_too(tmp_path: Path) -> None:

    given = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    theirs = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, num_classes=0, **given).state_dict()
    file = saved(tmp_path / "dinov2.safetensors", {name: torch.randn_like(tensor) for name, tensor in theirs.items()})
    built = timm_vit("vit_small_patch14_reg4_dinov2", str(file), image_size=28, options=given)
    expected = resample_abs_pos_embed(read_weights(file)["pos_embed"], [2, 2], [4, 4], num_prefix_tokens=0)
    assert torch.equal(built.model.get_parameter("pos_embed"), expected)


def test_a_file_at_half_precision_is_read_at_the_models(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in random_state().items()}
    found = held(vit(saved(tmp_path / "half.safetensors", state)))
    for name, tensor in state.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.float())


def one_line(make: Callable[[], Any]) -> str:
    with pytest.raises(BankError) as refused:
        make()
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 1500
    return said


def test_unknown_missing_and_wrongly_shaped_weights_are_named(tmp_path: Path) -> None:
    state = random_state()
    state["blocks.0.attn.extra"] = torch.randn(3)
    del state["blocks.1.mlp.fc1.weight"]
    state["blocks.1.attn.qkv.bias"] = torch.randn(7)
    path = saved(tmp_path / "vit.safetensors", state)
    said = one_line(lambda: vit(path))
    assert str(path) in said
    assert "(3 weights)" in said
    assert "blocks.0.attn.extra is unknown" in said
    assert "blocks.1.mlp.fc1.weight is missing" in said
    assert "blocks.1.attn.qkv.bias is (7,) instead of (96,)" in said


def test_of_many_that_do_not_match_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", random_state(embed_dim=16))
    said = one_line(lambda: vit(path))
    assert said.count(" instead of ") == 6
    assert "more" in said


def test_a_file_of_another_depth_is_refused(tmp_path: Path) -> None:
    deeper = saved(tmp_path / "deeper.pth", random_state(depth=3))
    assert "blocks.2." in one_line(lambda: vit(deeper))
    shallower = saved(tmp_path / "shallower.pth", random_state(depth=1))
    assert "blocks.1." in one_line(lambda: vit(shallower))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "resnet.pth", {"conv1.weight": torch.randn(4, 3, 3, 3), "layer1.0.bn1.bias": torch.randn(4)}
    )
    assert "conv1.weight is unknown" in one_line(lambda: vit(path))


def test_a_norm_of_a_block_that_the_file_lacks_is_missing(tmp_path: Path) -> None:
    """`norm1` and `norm2` of the blocks are no last norm."""
    state = random_state()
    del state["blocks.0.norm1.weight"]
    path = saved(tmp_path / "vit.pth", state)
    assert "blocks.0.norm1.weight is missing" in one_line(lambda: vit(path))


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_weights_of_another_number_of_bands_name_the_setting_and_then_load(tmp_path: Path, bands: int) -> None:
    state = random_state(in_chans=bands)
    path = saved(tmp_path / "vit.safetensors", prefixed(state, "backbone."))
    said = one_line(lambda: vit(path))
    assert f"take {bands} bands, but the model was built for 3: set encoder.backbone.channels={bands}" in said
    assert_has(vit(path, channels=bands), state)


def test_a_missing_file_names_the_path_that_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path / "no.pth") in one_line(lambda: vit(tmp_path / "no.pth"))
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "there.pth") in one_line(lambda: vit("there.pth"))
    assert str(tmp_path) in one_line(lambda: vit(tmp_path))  # a folder is no file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line_that_names_it(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path / f"vit{suffix}", random_state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    said = one_line(lambda: vit(path))
    assert str(path) in said
    assert "damaged" in said


@pytest.mark.parametrize("content", [{}, {"epoch": 3, "note": "nothing"}, [1, 2], "text"])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = saved(tmp_path / "empty.pth", content)
    assert "holds no tensors" in one_line(lambda: vit(path))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("raw", [False, True])
def test_what_a_pickle_says_is_not_run(tmp_path: Path, raw: bool) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "trap.pth"
    content = {"model": random_state(), "args": Trap(trace)}
    if raw:
        path.write_bytes(pickle.dumps({"args": Trap(trace)}))
    else:
        torch.save(content, path)
    said = one_line(lambda: vit(path))
    assert not trace.exists()
    assert str(path) in said
    assert "is not run" in said
    pickle.loads(pickle.dumps(Trap(trace)))  # the trap does work
    assert trace.exists()


def test_a_fingerprint_changes_with_any_weight_and_not_with_the_file(tmp_path: Path) -> None:
    state = random_state()
    one = vit(saved(tmp_path / "one.safetensors", state)).facts.weights
    assert one == vit(saved(tmp_path / "two.pth", {"model": prefixed(state, "module.")})).facts.weights
    state["blocks.1.mlp.fc2.bias"] = state["blocks.1.mlp.fc2.bias"].clone()
    state["blocks.1.mlp.fc2.bias"][3] += 1e-3
    assert one != vit(saved(tmp_path / "three.safetensors", state)).facts.weights
    assert vit(seed=3).facts.weights == "from-scratch-seed3"


def test_a_fingerprint_tells_names_shapes_and_types_apart() -> None:
    def made(**tensors: Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return fingerprint(module)

    x = torch.randn(6)
    variants = [made(a=x), made(b=x), made(a=x.view(2, 3)), made(a=x.double()), made(a=x, b=x), made(a=x.flip(0))]
    assert len(set(variants)) == len(variants)
    assert made(a=x) == made(a=x.clone())
    assert made(a=torch.arange(6.0).view(2, 3).t()) == made(a=torch.arange(6.0).view(2, 3).t().contiguous())


def test_a_last_norm_that_the_file_lacks_is_an_error_only_where_it_is_asked_for(tmp_path: Path) -> None:
    whole = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    kept = {name: value for name, value in whole.state_dict().items() if not name.startswith("norm.")}
    save_file(kept, tmp_path / "vit.safetensors")

    def build(norm: bool) -> ViTEncoder:
        options = {"embed_dim": 32, "depth": 2, "num_heads": 2}
        file = str(tmp_path / "vit.safetensors")
        backbone = timm_vit("vit_tiny_patch16_224", file, image_size=32, patch_size=8, options=options)
        return ViTEncoder(backbone, prepare=ImageInput(RGB), norm=norm)

    assert build(norm=False).backbone.norm is None
    with pytest.raises(BankError, match=r"have no last LayerNorm: set encoder\.norm=false"):
        build(norm=True)
