"""Numbers as people read them: 1.2 M, 3.4 GFLOPs, 12 s, 85 MB; "-" where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping

NAMES = {
    **{"miou": "mIoU", "r2": "R²", "rmse": "RMSE", "mae": "MAE"},
    **{"macro_f1": "macro F1", "micro_f1": "micro F1", "released_f1": "released F1"},
}
LESS_IS_BETTER = {"rmse", "mse", "mae", "loss", "error"}


def known(value: float | None) -> bool:
    """Whether there is a number.

    >>> known(0), known(None), known(float("nan"))
    (True, False, False)
    """
    return value is not None and math.isfinite(value)


def metric_name(name: str) -> str:
    """A metric as it is printed.

    >>> metric_name("macro_f1"), metric_name("top_5")
    ('macro F1', 'top 5')
    """
    return NAMES.get(name, name.replace("_", " "))


def score(value: float | None, sign: bool = False) -> str:
    """Three decimals, or four digits of a large number.

    >>> score(0.81234), score(-0.5, sign=True), score(0.02, sign=True), score(12345.6), score(float("nan"))
    ('0.812', '-0.500', '+0.020', '1.235e+04', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    plus = "+" if sign else ""
    text = format(value, f"{plus}.3f" if abs(value) < 1000 else f"{plus}.4g")
    return text.replace("-", "") if text == "-0.000" and not sign else text


def converged(ended: Mapping[str, int]) -> str:
    """Whether training ended by itself, or at the most steps that it was given.

    >>> converged({"patience": 3}), converged({"patience": 2, "max_steps": 1}), converged({"max_steps": 3})
    ('yes', '2 of 3', 'no')
    """
    every, cut = sum(ended.values()), ended.get("max_steps", 0)
    if not every:
        return "-"
    return "yes" if not cut else "no" if cut == every else f"{every - cut} of {every}"


def count(value: float | None) -> str:
    """A number of things.

    >>> count(850), count(12_345), count(1_234_567), count(999_999), count(None)
    ('850', '12.3 k', '1.23 M', '1 M', '-')
    """
    return _scaled(value, ("", "k", "M", "G", "T", "P"))


def flops(value: float | None) -> str:
    """Floating-point operations.

    >>> flops(3.4e9), flops(None)
    ('3.4 GFLOPs', '-')
    """
    return _scaled(value, ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs"))


def size(value: float | None) -> str:
    """Bytes, in powers of 1000 as disks are sold.

    >>> size(85e6), size(0), size(1023)
    ('85 MB', '0 B', '1.02 kB')
    """
    return _scaled(value, ("B", "kB", "MB", "GB", "TB", "PB"))


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(0.0123), seconds(12), seconds(59.7), seconds(200), seconds(7200), seconds(None)
    ('0.012 s', '12 s', '60 s', '3.3 min', '2 h', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    number, unit = (value, "s") if value < 60 else (value / 60, "min") if value < 7200 else (value / 3600, "h")
    return (f"{number:.0f}" if number >= 10 else f"{number:.2g}") + f" {unit}"


def probability(value: float | None) -> str:
    """A p-value.

    >>> probability(0.03456), probability(0.0004), probability(1.0), probability(None)
    ('0.035', '<0.001', '1', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if value < 0.001:
        return "<0.001"
    text = f"{value:.3f}"
    if text == "0.050" and value < 0.05:  # which side of the bar it is on must be seen
        return "<0.050"
    return text.rstrip("0").rstrip(".") if text == "1.000" else text


def percent(value: float) -> str:
    """A label budget.

    >>> percent(10.0), percent(0.5)
    ('10 %', '0.5 %')
    """
    return f"{value:g} %"


def plural(number: int, word: str) -> str:
    """A count and its noun.

    >>> plural(1, "model"), plural(3, "seed")
    ('1 model', '3 seeds')
    """
    return f"{number} {word}" + ("" if number == 1 else "s")


def _scaled(value: float | None, units: tuple[str, ...]) -> str:
    """Three digits and the unit, each a thousand of the one before."""
    if value is None or not math.isfinite(value):
        return "-"
    power, number = 0, float(value)
    while float(f"{abs(number):.3g}") >= 1000 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    digits = f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return f"{digits} {units[power]}".rstrip()
