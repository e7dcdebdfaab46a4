"""`on_error=skip`: look at every sample first, leave the bad ones out, and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satdifuser.data.joined import JoinedSplits
    from satdifuser.store import Processes


def without_faults(
    data: JoinedSplits, check: Any, workers: int, processes: Processes
) -> tuple[JoinedSplits, list[dict[str, str]]]:
    """Look at every sample once: which rows there are must be known before the first is written."""
    from satdifuser.data.batches import OrderedBatches, faults
    from satdifuser.engine.progress import bar

    found: list[tuple[int, str]] = []
    batches = OrderedBatches(len(data), 32, processes.rank, processes.world)
    with bar("images", quiet=not processes.main) as progress:
        task = progress.add_task("looking for bad samples", total=len(batches) * 32)
        for bad in faults(data, batches, workers, check):
            found += bad
            progress.advance(task, 32)
    reasons = dict(sorted(processes.gathered(found)))
    skipped = [{"id": data.sample_id(row), "reason": reason} for row, reason in reasons.items()]
    return data.without(set(reasons)), skipped


def list_skipped(skipped: list[dict[str, str]], where: str) -> None:
    from satdifuser.engine.progress import say

    shown = 20
    if skipped:
        say(f"skipped {len(skipped)} samples (all of them in {where}):")
    for sample in skipped[:shown]:
        say(f"  {sample['reason']}")
    if len(skipped) > shown:
        say(f"  and {len(skipped) - shown} more")
