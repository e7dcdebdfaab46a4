"""Views: what of a tap's map a probe reads. From whole maps, or from what a store has pooled of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError, nearest
from satdifuser.pooling import NAMES, WHOLE, Pooling, held_of, is_pooling

TOKEN = ".class"  # what follows a block's name in that of its class token
READ_TOKEN = ("class", "both")
PIXELS = "pixels"


def check_views(views: Sequence[str]) -> None:
    for view in views:
        if view not in READ_TOKEN and not is_pooling(view):
            known = (*READ_TOKEN, *NAMES)
            raise UserError(f"probe.views names {view!r}: it can be {', '.join(known)}{nearest(view, known)}")


@dataclass(frozen=True)
class Column:
    """A view of a tap; `token` is the tap of its class token, where the view reads it."""

    tap: Tap
    view: str
    token: Tap | None = None
    held: str | None = None  # how the map is pooled already
    token_held: str | None = None
    each: int = 1  # how many numbers of a channel the view reads

    @property
    def taps(self) -> list[Tap]:
        """Those that are read."""
        own = [] if self.view == "class" else [self.tap]
        return own if self.token is None else [*own, self.token]

    @property
    def width(self) -> int:
        """Numbers of each sample."""
        channels = self.tap.channels // WHOLE.get(str(self.held), 1)
        if self.view == "both":
            return 2 * channels
        return channels * self.each

    def rows(self, bank: FeatureBank) -> Tensor:
        """[samples, width], float32."""
        if self.view == "class":
            return _mean(bank[self._token()], self.token_held)
        if self.view == "both":
            return cat((_mean(bank[self.tap], self.held), _mean(bank[self._token()], self.token_held)), 1)
        if self.view == "mean":
            return _mean(bank[self.tap], self.held)
        maps = bank[self.tap]
        return (maps.float() if self.held == self.view else Pooling(self.view).maps(maps)).flatten(1)

    def _token(self) -> Tap:
        assert self.token is not None
        return self.token


def _mean(maps: Tensor, held: str | None) -> Tensor:
    """Of a map, or of what is held of it; of a class token the mean of its one pixel is the token."""
    times = WHOLE.get(str(held), 1)
    if times > 1:  # the means come first
        return maps[:, : maps.shape[1] // times].float().flatten(1)
    return Pooling("mean").maps(maps).flatten(1)


def is_token(tap: Tap) -> bool:
    return tap.name.endswith(TOKEN)


def columns(spec: BankSpec, chosen: BankSpec, views: Sequence[str]) -> list[Column]:
    """Every view of every tap chosen; the class tokens, which may be any of the whole spec's, are read beside them.

    Where a view reads them, class tokens are no places of their own.
    """
    check_views(views)
    held = dict(spec.settings).get("pooled")
    for view in views:
        _check_held(view, held, any(map(is_token, spec.taps)))
    reads = any(view in READ_TOKEN for view in views)
    there = {(tap.name, tap.timestep): tap for tap in spec.taps}
    found = []
    for tap in chosen.taps:
        if reads and is_token(tap):
            continue
        token = there.get((f"{tap.name}{TOKEN}", tap.timestep))
        for view in dict.fromkeys(views):
            if view in READ_TOKEN and token is None:
                raise UserError(
                    f"probe.views: {view} needs the class token of {tap}, which these features do not have: set"
                    " encoder.class_token=true (when a store is extracted), of a ViT that has one"
                )
            read = token if view in READ_TOKEN else None
            of_token = None if read is None else held_of(spec, read)
            found.append(Column(tap, view, read, held_of(spec, tap), of_token, _each(spec, tap, view)))
    if not found:
        raise UserError("select chooses class tokens alone, which are read beside their blocks: choose these, too")
    return found


def _each(spec: BankSpec, tap: Tap, view: str) -> int:
    """How many numbers of a channel a view reads; quantiles of a value that is alone are the value."""
    if view in READ_TOKEN:
        return 1
    held = held_of(spec, tap)
    if held is None:
        return Pooling(view).numbers_of(spec, tap)
    return 1 if held == "mean" else Pooling(view).numbers


def _check_held(view: str, held: str | None, tokens: bool) -> None:
    with_token = READ_TOKEN if tokens else ()
    from_held = {
        "mean": ("mean", *with_token),
        "moments": ("moments", "mean", *with_token),
        "quantiles": ("quantiles", "mean", *with_token),
        "max": ("max",),
    }
    offered = from_held.get(str(held), (held,))
    if held is not None and view not in offered and (tokens or view not in READ_TOKEN):
        raise UserError(
            f"probe.views: {view} needs maps, and these features are pooled already (store.keep={held}), which gives"
            f" {', '.join(map(str, offered))}: set probe.views, or extract them with store.keep=maps"
        )


def maps_of(spec: BankSpec, chosen: BankSpec) -> list[Column]:
    """The places whose pixels can be read: every tap chosen that has a map."""
    held = dict(spec.settings).get("pooled")
    if held in WHOLE:
        raise UserError(
            f"probes of pixels need maps, and these features are pooled (store.keep={held}): extract them with"
            " store.keep=maps"
        )
    found = [Column(tap, PIXELS, held=held) for tap in chosen.taps if not is_token(tap)]
    if not found:
        raise UserError("select chooses class tokens alone, which have no pixels to probe: choose taps with maps")
    return found
