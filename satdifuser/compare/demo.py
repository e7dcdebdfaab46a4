"""`satdifuser demo`: a comparison on the built-in scenes, in minutes: extract, train, adapt, compare, report."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

WORKERS = 4  # at once: each needs more than a gigabyte of memory


def run(overrides: Sequence[str], config_dirs: Sequence[str] = (), trust: Sequence[str] = ()) -> list[Path]:
    """`satdifuser compare experiment=demo`, with as many runs at once as there are processors, and any overrides."""
    import torch

    from satdifuser.compare import command
    from satdifuser.compare.overrides import merged
    from satdifuser.engine.progress import say

    began = time.monotonic()
    workers = 1 if torch.cuda.is_available() else min(WORKERS, os.cpu_count() or 1)
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"] if workers > 1 else []
    words = merged(["experiment=demo", "output=demo-output", *launcher], overrides)
    paths = command.run(words, config_dirs, trust)
    if paths:
        say(f"in {time.monotonic() - began:.0f} s; open {paths[0]}")
    return paths
