"""The words of a grid: overrides of `satdifuser train`, one after the other and in every combination."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from satdifuser.config import groups
from satdifuser.errors import UserError


def merged(*parts: Iterable[str]) -> list[str]:
    """Overrides one after the other; a later choice of a group forgets the earlier one and what was set of it since.

    >>> merged(["decoder=upernet", "decoder.channels=32"], ["decoder=linear"])
    ['decoder=linear']
    >>> merged(["fusion.projection_dim=64", "seed=1"], ["fusion=moe", "seed=2"])
    ['fusion.projection_dim=64', 'fusion=moe', 'seed=2']
    """
    found: list[str] = []
    for override in itertools.chain(*parts):
        key = key_of(override)
        before = next((place for place, other in enumerate(found) if key_of(other) == key), None)
        if before is not None:
            gone = _settings_of(key)
            found = found[:before] + [other for other in found[before + 1 :] if not key_of(other).startswith(gone)]
        found.append(override)
    return found


def _settings_of(key: str) -> tuple[str, ...]:
    """How settings of what a group chooses begin; none where the key is no group."""
    if key not in groups() and "/" not in key:
        return ()
    return (f"{key.replace('/', '.')}.", *(("encoder.adapter.",) if key == "adapter" else ()))


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def sweep(override: str) -> tuple[str, list[str]]:
    """The key of an override and its choices in Hydra's own grammar (`a=1,2`, `a=range(3)`), each an override.

    >>> sweep("fusion=gw,lw")
    ('fusion', ['fusion=gw', 'fusion=lw'])
    >>> sweep("select.taps=[a,b]")[1]
    ['select.taps=[a,b]']
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return parsed.key_or_group, [override]
        name = override.partition("=")[0]
        return parsed.key_or_group, [f"{name}={value}" for value in parsed.sweep_string_iterator()]
    except HydraException as error:
        raise UserError(f"{override!r} is not an override that makes a grid: {str(error).splitlines()[0]}") from None


def product(choices: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Every combination under its own name; one choice in a group goes by its value alone."""
    if not choices:
        return {}
    return {
        " ".join(short(override) for override in combination): list(combination)
        for combination in itertools.product(*choices.values())
    }


def short(override: str) -> str:
    key, _, value = override.partition("=")
    return value if key in groups() else f"{key.rpartition('.')[2]}={value}"
