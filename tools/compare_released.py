"""How far features lie from the released code's, and by which of its differences.

    python tools/compare_released.py
    python tools/compare_released.py encoder=diffusionsat encoder.backbone.weights=FOLDER data=... [more overrides]

Each line is one difference alone: the relative distance of all maps of a timestep, over the images, from those of
`encoder.compat=released`. Without overrides the network is a small random one, whose VAE's posterior says nothing.
"""

from __future__ import annotations

import argparse

import torch

from satdifuser.bank import FeatureBank
from satdifuser.build import build_data, build_encoder
from satdifuser.config import compose
from satdifuser.data.batches import collate
from satdifuser.report.tables import markdown

RANDOM = (
    *("encoder=diffusionsat", "encoder.backbone.weights=random", "encoder.backbone.architecture=tiny"),
    *("encoder.image_size=128", "data.splits.test.length=8"),
)
WALK = ["encoder.compat=ours", "encoder.mode=inversion", "encoder.posterior=sample"]
POSTERIOR = "the mean of the VAE's posterior for a draw"
DIFFERENCES = {  # what is ours; the prediction is said, for a random network has no right one
    "none: encoder.compat=released": [],
    "v for epsilon in the steps": ["encoder.prediction=v_prediction"],
    "level 0 for no noise in the first call": [*WALK, "encoder.prediction=epsilon"],
    "both: encoder.mode=inversion": [*WALK, "encoder.prediction=v_prediction"],
    POSTERIOR: ["encoder.posterior=mean"],
}


def distance(bank: FeatureBank, released: FeatureBank, timestep: int) -> float:
    """Of all maps of a timestep together."""
    apart = size = 0.0
    for tap in (tap for tap in released.spec.taps if tap.timestep == timestep):
        theirs = released[tap].double()
        apart += float((bank[tap].double() - theirs).square().sum())
        size += float(theirs.square().sum())
    return (apart / size) ** 0.5


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("overrides", nargs="*", default=[])
    args = parser.parse_args()
    words = [*(args.overrides or RANDOM), "encoder.precision=float32"]
    data = build_data(compose("extract", words).data, "test")
    batch = collate([data[index] for index in range(min(args.images, len(data)))])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, FeatureBank] = {}
    for name, own in DIFFERENCES.items():
        if name == POSTERIOR and not args.overrides:
            continue
        settings = compose("extract", [*words, "encoder.compat=released", *own])
        encoder = build_encoder(settings.encoder).to(device)
        found[name] = encoder(batch["image"].to(device), sample_ids=batch["id"], metadata=batch.get("metadata"))
    released = next(iter(found.values()))
    timesteps = [int(t) for t in released.spec.timesteps if t is not None]
    rows = [[name, *(f"{distance(bank, released, t):.2e}" for t in timesteps)] for name, bank in found.items()]
    print(markdown(["ours for theirs", *(f"t = {t}" for t in timesteps)], rows))


if __name__ == "__main__":
    main()
