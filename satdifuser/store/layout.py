"""Where things lie in a feature store: a Zarr v3 group that other tools open without our code.

One array `[sample, channel, y, x]` for each tap, named like the tap; `id`, `split` and the labels are arrays beside
them; the bank's spec, the data's identity and its classes are attributes of the group.
"""

from __future__ import annotations

from satdifuser.bank import BankSpec, Tap

VERSION = 1
SHARD_BYTES = 64 * 2**20  # one file of a tap holds about this much
DTYPES = ("float16", "float32")


def dimensions(spec: BankSpec, tap: Tap) -> tuple[str, str, str, str]:
    """Dimension names of a tap's array: taps of one shape share theirs, as xarray wants it."""
    channels, height, width = spec.shape(tap)
    return "sample", f"channel_{channels}", f"y_{height}", f"x_{width}"


def bytes_per_sample(spec: BankSpec, itemsize: int) -> int:
    """Bytes that one sample's maps take on disk.

    >>> spec = BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (32, 32))
    >>> bytes_per_sample(spec, itemsize=2)
    128
    """
    total = 0
    for tap in spec.taps:
        channels, height, width = spec.shape(tap)
        total += channels * height * width * itemsize
    return total


def samples_per_shard(spec: BankSpec, tap: Tap, itemsize: int) -> int:
    channels, height, width = spec.shape(tap)
    return max(1, SHARD_BYTES // (channels * height * width * itemsize))
