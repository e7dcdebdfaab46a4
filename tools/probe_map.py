"""Linear-probe accuracy of every (timestep, tap) of a feature store, as a table and a map.

    satdifuser extract store.path=probe.zarr store.keep=mean "store.splits=[train,val]" \\
        "encoder.timesteps=[1,21,61,161,301,501]" encoder.taps=satdifuser data=image_folder data.root=EuroSAT_RGB
    python tools/probe_map.py probe.zarr --output runs/probe

Writes OUTPUT.csv and OUTPUT.png; probes train on one split and are scored on another.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from satdifuser.analysis.probing import accuracy, pooled, probe_map
from satdifuser.bank import BankSpec, Tap
from satdifuser.engine.files import write_text
from satdifuser.report.figures import heatmap, save_figure, shorten, subplots
from satdifuser.report.tables import csv
from satdifuser.store import FeatureStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--output", default="runs/probe")
    parser.add_argument("--train", default="train", help="split that the probes train on")
    parser.add_argument("--test", default="val", help="split that they are scored on")
    parser.add_argument("--strength", type=float, default=0.1, help="scikit-learn's C")
    args = parser.parse_args()
    store = FeatureStore(args.store)
    train, test = (pooled(store.split(name)) for name in (args.train, args.test))
    found = probe_map(train, test, args.strength)
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output.with_suffix(".csv"), table(found))
    draw(store.spec, found, output.with_suffix(".png"))
    best = max(found, key=lambda tap: found[tap])
    whole = accuracy(*((part.all_taps(), part.classes) for part in (train, test)), args.strength)
    print(f"{len(train.classes)} samples of {args.train}, {len(test.classes)} of {args.test}")
    print(f"best: {best.name} at timestep {best.timestep}: {found[best]:.4f}; all taps together: {whole:.4f}")
    print(f"wrote {output.with_suffix('.csv')} and {output.with_suffix('.png')}")


def table(found: Mapping[Tap, float]) -> str:
    header = ["tap", "timestep", "channels", "accuracy"]
    return csv(header, [[tap.name, tap.timestep, tap.channels, f"{value:.4f}"] for tap, value in found.items()])


def draw(spec: BankSpec, found: Mapping[Tap, float], path: Path) -> None:
    """Rows are timesteps, columns taps in the order of computation."""
    names, steps = spec.names(), spec.timesteps
    values = [[100 * found[spec.find(name, step)] for name in names] for step in steps]
    figure, axis = subplots(figsize=(2.2 + 0.62 * len(names), 1.9 + 0.36 * len(steps)))
    labels = [f"{shorten(name)} ({spec.find(name, steps[0]).channels})" for name in names]
    span = (min(map(min, values)), max(map(max, values)))
    picture = heatmap(axis, values, steps, labels, span, "{:.1f}")
    axis.set_ylabel("timestep")
    axis.set_xlabel("tap (channels)")
    figure.colorbar(picture, ax=axis, shrink=0.9, label="linear-probe accuracy (%)")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
