"""What a group of settings is: typed, complete, and checked when it is made."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from satdifuser.errors import UserError, nearest
from satdifuser.kinds import STRICT, Place, Seed, check_finite, must_be


class Settings(BaseModel):
    """Settings that belong together. Each field's kind is its check, its error and its line in `--help`.

    A value that is of the wrong kind, out of range, NaN or infinite is refused by name when the object is made; nothing
    that has one is ever handed on.
    """

    model_config = ConfigDict(**STRICT, extra="forbid", frozen=True, validate_default=True)
    group: ClassVar[str] = ""  # how the configuration calls them together; "": a command's own

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(self._explained(error, values)) from None

    @model_validator(mode="before")
    @classmethod
    def _groups(cls, values: Any) -> Any:
        """Make the groups inside first: from plain values, each with the names of its own in its errors."""
        if not isinstance(values, Mapping):
            return values
        found = dict(values)
        for name, inner in inner_groups(cls).items():
            if isinstance(found.get(name), Mapping):
                found[name] = inner(**found[name])
        return found

    @model_validator(mode="after")
    def _finite(self) -> Self:
        """What is free in its kind, as the settings of a library's own class, has no NaN either."""
        for name, value in self:
            if not isinstance(value, Settings):
                check_finite(value, self.dotted(name))
        return self

    @classmethod
    def _explained(cls, error: ValidationError, values: Mapping[str, Any]) -> str:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        path = cls.dotted(name)
        if first["type"] == "extra_forbidden":
            return f"there is no setting {path!r}{nearest(name, cls.model_fields)}"
        if first["type"] == "missing":
            return f"{path} is not set: give it, as {path}=..."
        return must_be(path, values.get(name), kinds_of(cls).get(name, Any))

    @classmethod
    def dotted(cls, name: str) -> str:
        """The dotted name of a setting."""
        return f"{cls.group}.{name}" if cls.group else name

    def plain(self) -> dict[str, Any]:
        """As plain values, of which the same settings can be made again."""
        return self.model_dump(mode="python")

    def usual(self) -> dict[str, Any]:
        """What each setting that may be left out is where nothing is said of it, as plain values."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if hasattr(value, "usual"):
                found[name] = value.usual()
            elif not field.is_required():
                default = field.get_default(call_default_factory=True)
                found[name] = default.plain() if hasattr(default, "plain") else default
        return found

    def yaml(self) -> str:
        """As text, of which the same settings can be read again."""
        from omegaconf._utils import get_omega_conf_dumper  # it quotes what the loader would take for a number

        return str(yaml.dump(self.plain(), Dumper=get_omega_conf_dumper(), sort_keys=False, allow_unicode=True))

    def but(self, **changes: Any) -> Self:
        """The same settings with some of them changed, and checked again."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


class RunSettings(Settings):
    """What every command that fills the folder of a run is told."""

    run: Place
    seed: Seed = 0
    resume: bool = False
    overwrite: bool = False


@functools.cache
def kinds_of(settings: type[Settings]) -> dict[str, Any]:
    """Setting -> its kind."""
    found = typing.get_type_hints(settings, include_extras=True)
    return {name: found[name] for name in settings.model_fields}


@functools.cache
def inner_groups(settings: type[Settings]) -> dict[str, type[Settings]]:
    """The settings that are groups themselves."""
    return {n: kind for n, kind in kinds_of(settings).items() if isinstance(kind, type) and issubclass(kind, Settings)}
