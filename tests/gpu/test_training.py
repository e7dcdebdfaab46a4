"""Training on the device, as the command does it: the CPU's first loss, mixed precision near float32, exact resume."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # peft, of timm's own LayerNorm
]
DATA = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=3", "data.splits.test.length=3"]
TRAINER = ["trainer=quick", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.eval_every=2"]
HEAD = ["fusion.projection_dim=16", "task=classification"]
TIMM = ["encoder=small_vit", "encoder.backbone.image_size=16", "encoder.blocks=four"]
# what trains, and the libraries that it takes
MODELS: dict[str, tuple[list[str], list[str]]] = {
    "a head": (["fusion=moe", "fusion.experts=4", "fusion.warmup_steps=2", "task=segmentation"], []),
    "a UNet's lora": (["adapter=lora"], ["peft"]),
    "a ViT's lora": ([*TIMM, "adapter=lora"], ["timm", "peft"]),
    "a deflected ViT": ([*TIMM, "adapter=deflect"], ["timm", "spyndex"]),
    "a UNet from scratch": (["encoder=unet", "encoder.width=8", "encoder.levels=3", "fusion=mean"], []),
}
NEEDED = ("accelerate", "diffusers", "hydra", "torchmetrics", "zarr")


@pytest.fixture(autouse=True)
def _libraries() -> None:
    for name in NEEDED:
        pytest.importorskip(name)


@pytest.fixture
def trained(tmp_path: Path, device: torch.device) -> Callable[..., list[dict[str, float]]]:
    """`trained(name, words)`: a run in a folder of that name; the rows of its log."""
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("accelerate takes the GPU that is there")

    def run(name: str, words: list[str]) -> list[dict[str, float]]:
        from accelerate import PartialState

        from satdifuser.commands import train
        from satdifuser.config import compose
        from satdifuser.engine.run import RunFolder

        folder = tmp_path / name
        config = compose("train", [*DATA, *TRAINER, *HEAD, *words, f"run={folder}"])
        result = train.run(config, quiet=True, draw=False)
        assert PartialState().device.type == device.type
        assert math.isfinite(result["test"]["loss"])
        return RunFolder(folder).rows()

    return run


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in rows]


def first_loss(words: list[str], exactly: Any) -> float:
    """Of the first batch, in float64 on the CPU and without the trainer."""
    from satdifuser.build import build_model, open_split
    from satdifuser.config import compose
    from satdifuser.data.batches import ShuffledBatches, collate

    config = compose("train", [*DATA, *TRAINER, *HEAD, *words])
    data = open_split(config, "train")
    model = build_model(config, data)
    batch = collate([data[index] for index in next(iter(ShuffledBatches(len(data), 4, config.seed)))])
    model.encoder = exactly(model.encoder)
    model.fusion.double()
    model.decoder.double()
    vit = not hasattr(model.encoder, "network")
    bank = model.encoder(batch["image"].double() if vit else batch["image"], sample_ids=batch["id"])
    fused = model.fusion.train()(bank)
    logits = model.decoder(fused.maps, model.task.size(batch))
    loss = model.task.loss_sum(logits, batch) / model.task.count(batch)
    return float((loss if fused.aux_loss is None else loss + fused.aux_loss).detach())


@pytest.mark.parametrize("model", MODELS)
def test_training_begins_with_the_loss_of_the_cpu_and_mixed_precision_stays_near_it(
    model: str, trained: Any, device: torch.device, exactly: Any, agree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = functools.partial(torch.amp.GradScaler, init_scale=2.0**10)  # else it leaves out steps until it has come down
    monkeypatch.setattr(torch.amp, "GradScaler", low)
    words, libraries = MODELS[model]
    for name in libraries:
        pytest.importorskip(name)
    wanted = torch.tensor(first_loss(words, exactly))
    plain = losses(trained("plain", words))
    agree(torch.tensor(plain[0]), wanted)
    assert len(plain) == 4
    assert plain[-1] != plain[0]
    for precision, word in (("bfloat16", "bf16"), ("float16", "fp16")):
        if word == "fp16" and device.type == "cpu":
            continue  # accelerate refuses it there
        mixed = losses(trained(word, [*words, f"trainer.mixed_precision={word}"]))
        agree(torch.tensor(mixed[0]), wanted, precision)
        agree(torch.tensor(mixed), torch.tensor(plain), tolerance=0.1)  # curves whose steps are rounded part slowly


@pytest.mark.parametrize("precision", ["no", "fp16"])
@pytest.mark.parametrize("model", ["a head", "a UNet's lora"])
def test_a_checkpoint_written_on_the_device_goes_on_there_with_the_same_losses(
    model: str,
    precision: str,
    trained: Any,
    tmp_path: Path,
    device: torch.device,
    agree: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from satdifuser.engine.trainer import Trainer

    words, libraries = MODELS[model]
    for name in libraries:
        pytest.importorskip(name)
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("accelerate has no fp16 on a CPU")
    words = [*words, f"trainer.mixed_precision={precision}"]
    save = Trainer._save

    def copying(trainer: Trainer) -> None:
        save(trainer)
        if trainer.state.step == 2:
            shutil.copytree(trainer.run.path, tmp_path / "halfway")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", copying)
        whole = trained("whole", words)
    resumed = trained("halfway", [*words, "resume=true"])
    assert [row["step"] for row in resumed if row["step"] > 2] == [3, 4]
    got, wanted = (torch.tensor(losses([row for row in rows if row["step"] > 2])) for rows in (resumed, whole))
    if device.type == "cpu":
        assert torch.equal(got, wanted)
    else:  # a GPU adds up slopes of resized maps in any order, and Adam makes steps of small slopes too
        agree(got[:1], wanted[:1])
        agree(got, wanted, tolerance=1e-3)
