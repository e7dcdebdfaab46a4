"""A model of diffusers with settings of its own: its configuration is read by the signature of `__init__`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

Init = Callable[..., None]


def extending(model: type, *names: str) -> Callable[[Init], Init]:
    """State in an `__init__` the parameters of the `model` that it extends, and those of its own that are named."""

    def stated(init: Init) -> Init:
        inherited = inspect.signature(model.__init__).parameters.values()  # type: ignore[misc]
        own = inspect.signature(init).parameters
        parameters = [*inherited, *(own[name] for name in names)]
        init.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return init

    return stated
