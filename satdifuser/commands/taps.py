"""`satdifuser taps`: every place where a backbone's features can be read, without loading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.settings.commands import TapsSettings


def run(settings: TapsSettings) -> None:
    """Print the taps in the order of computation, with those that the configuration chooses marked."""
    from rich.console import Console
    from rich.table import Table

    encoder = settings.encoder
    if encoder.get("backbone") is None or encoder.get("timesteps") is None:
        raise UserError("satdifuser taps lists the taps of a diffusion backbone: encoder=small, diffusionsat, ...")
    from satdifuser.diffusion.loading import SHIPPED
    from satdifuser.diffusion.schedule import NoiseSchedule
    from satdifuser.diffusion.selection import choose_taps, kind_of, list_taps

    backbone = encoder["backbone"].build(blueprint=True)
    size = int(encoder["image_size"])
    chosen = choose_taps(backbone, encoder["taps"], size)
    timesteps = NoiseSchedule(backbone.scheduler).resolve(encoder["timesteps"], encoder["save_steps"], encoder["steps"])
    names = {tap.name for tap in chosen}
    table = Table("", "tap", "kind", "channels", "stride", f"map at {size} px", box=None, header_style="bold")
    for tap in list_taps(backbone, size, every=settings.all):
        side = size // tap.stride
        mark = "*" if tap.name in names else ""
        table.add_row(mark, tap.name, kind_of(tap.name), str(tap.channels), str(tap.stride), f"{side} x {side}")
    console = Console(width=None if Console().is_terminal else 120)
    weights = str(encoder["backbone"]["weights"])
    if weights not in (*SHIPPED, "random") and not Path(weights).expanduser().is_dir():
        architecture = encoder["backbone"].get("architecture")
        console.print(f"no folder {weights}: these are the taps of the architecture {architecture}\n", highlight=False)
    console.print(table)
    numbers = len(timesteps) * sum(tap.channels * (size // tap.stride) ** 2 for tap in chosen)
    console.print(
        f"\n* {len(chosen)} taps are chosen (encoder.taps) at {len(timesteps)} timesteps:"
        f" {numbers / 1e6:.2f} M numbers an image, {2 * numbers / 1e6:.1f} MB in 16 bits",
        highlight=False,
        soft_wrap=True,
    )
