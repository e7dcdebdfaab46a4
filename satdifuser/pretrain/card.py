"""The model card beside exported weights: what they learned from, how, how well, and what they are not good for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satdifuser.optional import without
from satdifuser.pretrain.export import loaded_by
from satdifuser.report.figures import save_figure, subplots
from satdifuser.report.tables import markdown

Row = Mapping[str, Any]

CARD = """\
---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [remote-sensing, diffusion, feature-extraction]
license: {licence}
---
# {title}

{size} M parameters, {space}. It is there to be read, not to paint: its inner maps are features for classification and
segmentation. `satdifuser` loads it with `{overrides}`,
diffusers with `{network}.from_pretrained(FOLDER, subfolder="unet")`{whose}.

## Data
{data}

Input: bands {bands}; {scaling}; {pixels} px.

## Recipe
{recipe}

`provenance.json` has every setting and version.

## Loss
Mean squared error of the prediction on held-out images, by timestep (0 is clean, the last is noise):

{table}
{losses}{samples}
## What it is not good for
{limits}
"""
# of a data set's identity: where it lay, and digests that tell one version from another
UNSAID = (
    *("name", "root", "names and sizes", "sizes of files", "contents", "table", "names", "answers"),
    *("samples", "alpha", "nan", "label"),
)
LIMITS = (
    "Pictures: nothing that it paints was ever seen by a satellite.",
    "Other sensors, bands, resolutions or places than those of its data: how its features do there is not known.",
    "Decisions about people or land without a test on labels of one's own.",
)


def write_card(folder: Path, about: Mapping[str, Any], rows: Sequence[Row], grid: Path | None) -> Path:
    """README.md, losses.png and samples.png in an exported model's folder; `rows` are the run's log."""
    losses = samples = ""
    if not without("matplotlib", "the model card has no figure of its losses"):
        draw_losses(rows, folder / "losses.png")
        losses = "\n![losses](losses.png)\n"
    if grid is not None:
        shutil.copyfile(grid, folder / "samples.png")
        samples = "\n![samples](samples.png)\n\nPainted from noise in 50 DDIM steps, none of them chosen.\n"
    card, prepare, patched = about["card"], about["prepare"], _patched(folder)
    text = CARD.format(
        title=card["title"],
        licence=card["licence"],
        size=f"{about['parameters'] / 1e6:.1f}",
        network="PatchUNet2DModel" if patched else "UNet2DModel",
        whose=" (of `satdifuser.diffusion.patched`)" if patched else "",
        overrides=loaded_by("unconditional", "FOLDER", prepare),
        space="of pixels" if about["vae"]["weights"] is None else "of the latents of a VAE (`vae/`)",
        data=_list([*(_source(*pair) for pair in zip(about["data"], about["held_out"], strict=True)), *card["data"]]),
        bands=", ".join(prepare["bands"]),
        scaling=_scaling(prepare),
        pixels=about["data"][0].get("size", "any"),
        recipe=_recipe(about),
        table=_table(about["loss_on_held_out_images"]),
        losses=losses,
        samples=samples,
        limits=_list([*card["limits"], *LIMITS]),
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _patched(folder: Path) -> bool:
    """Whether the UNet that lies there reads patches, which diffusers has no class for."""
    config = folder / "unet" / "config.json"
    return config.is_file() and "patch_size" in json.loads(config.read_text(encoding="utf-8"))


def _scaling(prepare: Mapping[str, Any]) -> str:
    reflectance = f"reflectance {_numbers(prepare['low'])} to {_numbers(prepare['high'])}"
    mean, std = (prepare.get(name, 0.5) for name in ("mean", "std"))
    if mean == std == 0.5:
        return f"{reflectance} becomes -1 to 1"
    return (
        f"{reflectance} becomes 0 to 1, of which {_numbers(mean)} is subtracted; then it is divided by {_numbers(std)}"
    )


def _numbers(value: Any) -> str:
    """One number, or one for each band."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def draw_losses(rows: Sequence[Row], path: Path) -> Path:
    """The training loss, smoothed, and the held-out loss at each level, over the steps."""
    figure, (left, right) = subplots(1, 2, figsize=(8.0, 3.2))
    train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    smooth, curve = 0.0, []
    for number, (_, loss) in enumerate(train, start=1):
        smooth += (loss - smooth) / min(number, 100)  # a plain mean at first, then one that forgets
        curve.append(smooth)
    left.plot([step for step, _ in train], curve, linewidth=1.2, color="#1f5673")
    left.set_title("training (weighted, mean of about 100 steps)", fontsize=9)
    levels = [name for name in rows[-1] if name.startswith("val/")]
    for place, name in enumerate(levels):
        points = [(row["step"], row[name]) for row in rows if name in row]
        shade = 0.15 + 0.7 * place / max(len(levels) - 1, 1)
        colour = _viridis(shade)
        right.plot(*zip(*points, strict=True), marker=".", linewidth=1.2, color=colour, label=name.removeprefix("val/"))
    right.set_title("held-out images, by timestep", fontsize=9)
    right.legend(fontsize=7, title="timestep", title_fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    for axis in (left, right):
        axis.set_yscale("log")
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(which="both", labelsize=7)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
    return save_figure(figure, path)


def _viridis(place: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](place)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def _source(data: Mapping[str, Any], held_out: Mapping[str, Any]) -> str:
    """A line of the list of data sets; what is known of a data set is its identity."""
    known = {key: value for key, value in data.items() if key not in UNSAID and isinstance(value, int | float | str)}
    details = ", ".join(f"{key} {value}" for key, value in known.items())
    return f"{data['name']}: {details}; held out to measure the loss: {held_out['images']} images"


def _recipe(about: Mapping[str, Any]) -> str:
    recipe, schedule = about["recipe"], about["schedule"]
    weighting = "every level alike" if about["min_snr"] is None else f"min-SNR-{about['min_snr']:g}"
    average = "no average of weights" if recipe["ema"] is None else f"exponential average of weights ({recipe['ema']})"
    mixed = f", of which {about['mix_share']:.3g} from the second data set" if len(about["data"]) > 1 else ""
    levels = "" if about.get("level_power", 1.0) == 1.0 else f" of levels drawn as u^{about['level_power']:g}"
    whole = (
        f"{about['steps']} steps of {recipe['batch_size']} images{mixed}; {schedule['prediction_type']}{levels},"
        f" {weighting}; AdamW, learning rate {recipe['lr']:g} after {recipe['warmup']} steps, then a cosine to"
        f" {recipe['min_lr']:g};"
        f" {average}; seed {about['seed']}; {about['minutes']} minutes on {about['machine']}."
    )
    return "\n\n".join([whole, *_beside(about)])


def _beside(about: Mapping[str, Any]) -> list[str]:
    """What the network began with and learned beside denoising: who reads of its features has to know."""
    found = []
    if about.get("init"):
        found.append("It began with the weights of a model that was there.")
    align, teacher = about.get("align") or {}, about.get("teacher")
    if teacher:
        kind = str(teacher["_target_"]).rpartition(".")[2]
        given = ", ".join(f"{key} {teacher[key]}" for key in ("filters", "kernel", "features") if key in teacher)
        said = f"{kind}{f' ({given})' if given else ''}"
        found.append(
            f"Beside denoising, `{align['tap']}` learned to foretell the maps of {said}, weight {align['weight']:g}."
        )
    if align.get("views"):
        found.append(
            f"Two views of an image were made alike at `{align['tap']}` and kept unlike those of other images (VICReg,"
            f" weight {align['views']:g})."
        )
    return found


def _table(losses: Mapping[str, float]) -> str:
    """Rows are the data sets, columns the levels."""
    levels = list(dict.fromkeys(name.partition("/")[2] for name in losses))
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in losses))
    rows = []
    for kind in kinds:
        name = kind.removeprefix("val").removeprefix("-") or "first data set"
        rows.append([name, *(f"{losses[f'{kind}/{level}']:.4f}" for level in levels)])
    return markdown(["", *levels], rows)
