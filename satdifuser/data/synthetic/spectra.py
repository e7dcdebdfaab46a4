"""What the built-in scenes are made of: endmember spectra and the look of each land cover.

Values are plausible surface reflectances (B01 to B12), written by hand after the shapes known from the literature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = ("water", "wetland", "broadleaf", "conifer", "cropland", "grassland", "bare soil", "built-up")
COLOURS = ("#2b6cb0", "#4fa8a8", "#2f7d32", "#1b4332", "#e0b83f", "#9bcf63", "#b08968", "#c0392b")
IGNORE = 255
BUILTUP = CLASSES.index("built-up")

# fmt: off
_ENDMEMBERS: dict[str, tuple[float, ...]] = {
    "water": (0.050, 0.045, 0.040, 0.025, 0.020, 0.015, 0.014, 0.012, 0.011, 0.008, 0.001, 0.006, 0.004),
    "turbid": (0.070, 0.075, 0.090, 0.075, 0.060, 0.035, 0.030, 0.025, 0.022, 0.012, 0.001, 0.010, 0.006),
    "broadleaf": (0.030, 0.031, 0.060, 0.033, 0.090, 0.270, 0.340, 0.370, 0.390, 0.360, 0.002, 0.190, 0.085),
    "conifer": (0.025, 0.026, 0.046, 0.027, 0.060, 0.170, 0.215, 0.230, 0.240, 0.220, 0.002, 0.110, 0.048),
    "crop": (0.035, 0.038, 0.080, 0.036, 0.120, 0.330, 0.420, 0.450, 0.470, 0.430, 0.003, 0.210, 0.100),
    "grass": (0.038, 0.042, 0.080, 0.048, 0.125, 0.260, 0.310, 0.330, 0.350, 0.320, 0.003, 0.250, 0.140),
    "reed": (0.033, 0.034, 0.062, 0.038, 0.095, 0.220, 0.270, 0.290, 0.300, 0.270, 0.002, 0.120, 0.055),
    "litter": (0.050, 0.060, 0.080, 0.090, 0.110, 0.130, 0.150, 0.160, 0.175, 0.170, 0.003, 0.190, 0.130),
    "soil": (0.070, 0.085, 0.115, 0.155, 0.180, 0.200, 0.215, 0.230, 0.245, 0.250, 0.004, 0.310, 0.260),
    "clay": (0.060, 0.070, 0.105, 0.170, 0.195, 0.205, 0.220, 0.240, 0.255, 0.260, 0.004, 0.330, 0.270),
    "sand": (0.110, 0.140, 0.190, 0.240, 0.265, 0.280, 0.295, 0.310, 0.320, 0.320, 0.005, 0.400, 0.350),
    "asphalt": (0.070, 0.076, 0.084, 0.090, 0.094, 0.098, 0.102, 0.106, 0.108, 0.106, 0.003, 0.125, 0.115),
    "concrete": (0.110, 0.125, 0.150, 0.168, 0.178, 0.188, 0.196, 0.206, 0.212, 0.212, 0.004, 0.230, 0.215),
    "tile": (0.070, 0.078, 0.105, 0.180, 0.205, 0.220, 0.232, 0.245, 0.255, 0.256, 0.004, 0.285, 0.240),
}
# fmt: on
SPECTRA = np.asarray(list(_ENDMEMBERS.values()))
SHADE = {name: number for number, name in enumerate(_ENDMEMBERS)}
CLOUD = (0.70, 0.68, 0.66, 0.65, 0.66, 0.67, 0.67, 0.67, 0.66, 0.50, 0.05, 0.45, 0.35)
HAZE = (1.2, 1.0, 0.7, 0.45, 0.38, 0.32, 0.28, 0.24, 0.22, 0.18, 0.05, 0.06, 0.03)


@dataclass(frozen=True)
class Look:
    """The range of the vegetation share, the grounds beneath it, and how strong each scale of texture is."""

    vegetation: tuple[float, float]
    ground: tuple[int, ...]
    fine: float = 0.0
    clumps: float = 0.0
    broad: float = 0.0
    rows: float = 0.0


def _grounds(*names: str) -> tuple[int, ...]:
    return tuple(SHADE[name] for name in names)


COVER = {
    "water": Look((0.0, 0.03), _grounds("water", "turbid"), broad=0.3),
    "wetland": Look((0.4, 0.95), _grounds("water", "litter", "turbid"), clumps=0.35, broad=0.2),
    "broadleaf": Look((0.7, 1.0), _grounds("litter"), fine=0.35, clumps=0.8),
    "conifer": Look((0.7, 1.0), _grounds("litter"), fine=0.9, clumps=0.25),
    "cropland": Look((0.05, 1.0), _grounds("soil", "clay"), fine=0.1, rows=0.22),
    "grassland": Look((0.35, 1.0), _grounds("soil", "litter"), fine=0.12, clumps=0.15, broad=0.35),
    "bare soil": Look((0.0, 0.3), _grounds("soil", "clay", "sand"), fine=0.15, clumps=0.2, broad=0.4),
    "built-up": Look((0.2, 0.9), _grounds("concrete", "tile", "concrete", "asphalt"), fine=0.2),
}
VEGETATED = {
    name: SHADE[plant]
    for name, plant in zip(
        CLASSES, ("reed", "reed", "broadleaf", "conifer", "crop", "grass", "grass", "broadleaf"), strict=True
    )
}
# Of each class's vegetation: the share that is left in winter, the day of the year when all of it is there, and so many
# days before and after it when winter's share is reached.
SEASONS = {
    "water": (1.0, 180, 1),
    "wetland": (0.4, 190, 120),
    "broadleaf": (0.25, 200, 130),
    "conifer": (1.0, 180, 1),
    "cropland": (0.1, 160, 90),
    "grassland": (0.5, 140, 150),
    "bare soil": (0.5, 120, 60),
    "built-up": (0.5, 190, 140),
}
