"""An encoder by its name is the one that extraction builds; what is misspelt is told with what was meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import satdifuser
from satdifuser.build import build_encoder
from satdifuser.config import compose
from satdifuser.errors import UserError

HEAVY = {"torch", "diffusers", "hydra", "zarr", "torchgeo", "matplotlib", "rasterio", "peft", "spyndex", "timm"}


def test_importing_the_packages_loads_no_heavy_library() -> None:
    code = f"import sys, satdifuser, deflect; assert not ({HEAVY!r} & set(sys.modules)), {HEAVY!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_promised_name_is_there_and_another_is_an_attribute_error() -> None:
    for name in satdifuser.__all__:
        assert getattr(satdifuser, name).__name__ == name
        assert name in dir(satdifuser)
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        satdifuser.load_model  # noqa: B018


def test_the_encoder_is_the_one_of_the_command_line() -> None:
    words = ["encoder=small_vit", "data.size=16", "encoder.prepare.high=0.5", "encoder.blocks=[0, 3]", "seed=3"]
    theirs = build_encoder(compose("extract", words).encoder).eval()
    ours = satdifuser.load_encoder("small_vit", {"prepare.high": 0.5}, blocks=[0, 3], size=16, seed=3)
    images = torch.rand(2, 13, 16, 16)
    assert ours.spec == theirs.spec
    assert not ours.training
    for tap, maps in theirs(images).items():
        torch.testing.assert_close(ours(images)[tap], maps, rtol=0, atol=0)


def test_settings_may_be_keywords_mappings_or_dotted_names() -> None:
    made = [
        satdifuser.load_encoder("colours", prepare={"bands": ["nir"], "high": 0.5}, size=16),
        satdifuser.load_encoder("colours", {"prepare.bands": ["nir"], "prepare": {"high": 0.5}}, size=16),
        satdifuser.load_encoder("colours", {"prepare.bands": ["nir"], "prepare.high": 0.5}, size=16),
    ]
    assert made[0].spec == made[1].spec == made[2].spec
    assert dict(made[0].spec.settings)["bands"] == "B08"
    assert dict(made[0].spec.settings)["high"] == 0.5


def test_sensor_size_and_adapter_are_those_that_are_asked_for() -> None:
    encoder = satdifuser.load_encoder("colours", sensor="LANDSAT8", size=24)
    assert encoder.spec.image_size == (24, 24)
    assert "Landsat" in str(dict(encoder.spec.settings)["sensor"])
    adapted = satdifuser.load_encoder("small_vit", size=16, adapter="bitfit")
    assert {name.rpartition(".")[2] for name, p in adapted.named_parameters() if p.requires_grad} == {"bias"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("smal", {}), "no encoder 'smal': .*did you mean small"),
        (("small", {"timestep": [0]}), "encoder.timestep: .*did you mean timesteps"),
        (("small", {"prepare.hihg": 1}), "encoder.prepare.hihg: .*did you mean high"),
        (("small", {"prepar.high": 1}), "no setting encoder.prepar.high: encoder has .*did you mean prepare"),
        (("small", {"sensor": "SENTINAL2"}), "SENTINAL2.*did you mean SENTINEL2"),
        (("small_vit", {"adapter": "lor"}), "no adapter 'lor': .*did you mean lora"),
        (("small", {"timesteps": "x"}), "encoder.timesteps is 'x': it must be a list"),
        (("colours", {"size": "a"}), "it must be a whole number"),
        (("colours", {"prepare.policy": "standardise"}), "takes its numbers from the training images"),
    ],
)
def test_what_is_not_there_is_told_with_what_was_meant(asked: tuple[str, dict], said: str) -> None:
    name, settings = asked
    given = {key: settings.pop(key) for key in ("sensor", "size", "adapter") if key in settings}
    with pytest.raises(UserError, match=said) as error:
        satdifuser.load_encoder(name, settings, **given)
    assert "\n" not in str(error.value)


def test_an_encoder_of_ones_own_is_found_in_ones_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "halves.yaml").write_text(
        "_target_: halves_of_mine.Halves\nprepare:\n  _target_: satdifuser.data.inputs.ImageInput\n"
        "  sensor: ${data.sensor}\nimage_size: ${data.size}\n"
    )
    (tmp_path / "halves_of_mine.py").write_text(
        "from satdifuser.baselines import ColourStatistics\n\nclass Halves(ColourStatistics):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "halves" not in satdifuser.list_encoders()
    encoder = satdifuser.load_encoder("halves", size=16, config_dirs=[str(tmp_path)])
    assert type(encoder).__name__ == "Halves"


def test_encoders_and_heads_are_importable_from_their_packages() -> None:
    import deflect
    from satdifuser import baselines, decoders, diffusion, fusion

    assert issubclass(diffusion.DiffusionEncoder, torch.nn.Module)
    for package in (baselines, decoders, deflect, diffusion, fusion):
        for name in package.__all__:
            assert getattr(package, name) is not None
            assert name in dir(package)
        with pytest.raises(AttributeError, match="NoSuch"):
            package.NoSuch  # noqa: B018
