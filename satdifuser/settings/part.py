"""A part of the path: a class, or a function that makes one, and the settings that it is made with."""

from __future__ import annotations

import copy
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from satdifuser.errors import UserError, nearest
from satdifuser.kinds import check, hints_of, must_be, parameters_of
from satdifuser.settings.trust import check_sensor, find, trusting

TARGET, MISSING = "_target_", "???"
ABSTRACT = (".FusionHead", ".Decoder", ".Task", ".Loss", ".Augmentation", ".TemporalHead")
GIVEN = {
    "temporal": ("spec",),
    "fusion": ("spec",),
    "decoder": ("pyramid", "outputs", "dense"),
    "task": ("labels",),
    "loss": ("task",),
    "augmentation": ("seed", "ignore_index", "sensor"),
}


class Part:
    """`_target_` and the rest of a group's YAML, read and checked; `build` calls the class.

    What the code gives when it builds (labels, a bank's spec) is not among the settings. A setting that has a
    `_target_` is a part itself. A required one that is not given yet (`???`) is an error only where it is built.
    """

    def __init__(
        self, values: Mapping[str, Any], name: str, kind: Any = None, names: Mapping[str, str] | None = None
    ) -> None:
        if TARGET not in values:
            raise UserError(f"{name} has no {TARGET}: give the path of its class, or choose one, as {name}=...")
        self.name, self.kind, self._names = name, kind, names or {}
        self.target = find(values[TARGET], f"{name}.{TARGET}")
        self.path = str(values[TARGET])
        _check_kind(self.target, kind, f"{name}.{TARGET}", self.path)
        read = self._read({key: value for key, value in values.items() if key != TARGET})
        settled = getattr(self.target, "settled", None)  # by a class of which a setting decides what others left open
        self.settings = read if settled is None else settled(read)

    def _read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        hints = hints_of(self.target)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters_of(self.target).values())
        read = {}
        for key, value in values.items():
            name = self._name(key)
            if key in GIVEN.get(self.name, ()):
                raise UserError(f"{name} is not a setting: {self.label} is given it when it is built")
            if key not in hints and not takes_any:
                raise self._unknown(key)
            read[key] = _value(value, hints.get(key, Any), name)
        return read

    def _unknown(self, setting: str) -> UserError:
        close = nearest(setting, hints_of(self.target))
        return UserError(f"{self._name(setting)}: {self.label} has no such setting{close}")

    def _name(self, setting: str) -> str:
        return self._names.get(setting, f"{self.name}.{setting}")

    @property
    def package(self) -> str:
        return self.path.partition(".")[0]

    @property
    def label(self) -> str:
        """The class's own name."""
        return self.path.rpartition(".")[2]

    def build(self, **given: Any) -> Any:
        """Make it, with errors that a user can mend passed on in their own words."""
        from satdifuser.bank import BankError

        missing = next((key for key, value in self.settings.items() if value == MISSING), None)
        if missing is not None:
            raise UserError(f"{self._name(missing)} is not set: give it, as {self._name(missing)}=...")
        settings = {key: built(value) for key, value in self.settings.items()}
        try:
            return self.target(**{**settings, **given})
        except BankError as error:  # bank.py and deflect stand alone and have an error of their own
            raise UserError(str(error)) from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.label} does not take these settings: {' '.join(str(error).split())}") from error

    def but(self, **changes: Any) -> Self:
        """The same with some settings changed."""
        with trusting([self.package]):  # as it was when it was read
            return type(self)({**self.plain(), **changes}, self.name, self.kind)

    def plain(self) -> dict[str, Any]:
        return {TARGET: self.path, **{key: plain(value) for key, value in self.settings.items()}}

    def usual(self) -> dict[str, Any]:
        """The class's defaults, and those of the parts inside, as plain values."""
        known = parameters_of(self.target).values()
        found = {p.name: plain(p.default) for p in known if p.default is not p.empty}
        return found | {key: value.usual() for key, value in self.settings.items() if isinstance(value, Part)}

    def get(self, setting: str, default: Any = None) -> Any:
        return self.settings.get(setting, default)

    def __getitem__(self, setting: str) -> Any:
        return self.settings[setting]

    def __contains__(self, setting: object) -> bool:
        return setting in self.settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash((self.path, self.name))

    def __repr__(self) -> str:
        return f"Part({self.name}: {self.label})"


def _value(value: Any, hint: Any, name: str) -> Any:
    if value == MISSING:
        return value
    if isinstance(value, Part):
        return value
    if isinstance(value, Mapping) and TARGET in value:
        wanted = _class_in(hint)
        if wanted is None and hint is not Any:
            raise UserError(must_be(name, value, hint))
        return Part(value, name, wanted)
    if isinstance(value, Mapping):
        read = {str(key): _value(inner, Any, f"{name}.{key}") for key, inner in value.items()}
        return check(read, hint, name) if not _has_part(read) else read
    if isinstance(value, list | tuple) and any(isinstance(v, Mapping) and TARGET in v for v in value):
        return [_value(inner, Any, f"{name}.{place}") for place, inner in enumerate(value)]
    if isinstance(value, str) and name.rpartition(".")[2] == "sensor":
        return check_sensor(value, name)
    return check(value, hint, name)


def _has_part(values: Mapping[str, Any]) -> bool:
    return any(
        isinstance(value, Part) or (isinstance(value, Mapping) and _has_part(value)) for value in values.values()
    )


def built(value: Any) -> Any:
    """A setting as the class gets it."""
    if isinstance(value, Part):
        return value.build()
    if isinstance(value, Mapping):
        return {key: built(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [built(inner) for inner in value]
    return copy.copy(value)


def plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _class_in(hint: Any) -> Any:
    """The class that a setting declares, if it does: what a part in its place has to be."""
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(hint) is not None:
        return next((found for part in get_args(hint) if (found := _class_in(part)) is not None), None)
    return hint if inspect.isclass(hint) and hint not in (Any, type(None), int, float, str, bool, object) else None


def _check_kind(target: Any, kind: Any, name: str, path: str) -> None:
    """Refuse what is not of the kind that belongs there (a class that says nothing of it takes modules of torch)."""
    wanted = pkgutil.resolve_name(kind) if isinstance(kind, str) else kind
    if wanted is None:
        wanted = pkgutil.resolve_name("torch.nn.Module")
    made = target if inspect.isclass(target) else hints_of_result(target)
    if isinstance(kind, str) and made is wanted and kind.endswith(ABSTRACT):
        raise UserError(f"{name} is {path}, which is only what all of its kind have in common: choose one of them")
    if isinstance(kind, str) and kind.endswith(".MapStyle") and not inspect.isclass(target):
        raise UserError(f"{name} is {path}: what belongs there is a class of samples")
    if getattr(wanted, "_is_protocol", False):
        lacks = [n for n in vars(wanted) if not n.startswith("_") and not hasattr(made, n)]
        fits = inspect.isclass(made) and not lacks
    else:
        fits = inspect.isclass(made) and issubclass(made, wanted)
    if not fits:
        raise UserError(f"{name} is {path}: what belongs there is a {wanted.__name__}")


def hints_of_result(function: Any) -> Any:
    """What a function says that it makes; None where it says nothing."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return getattr(inspect.getmodule(function), str(function.__annotations__.get("return")).strip("'"), None)


def part(kind: str, of: type[Part] = Part) -> Any:
    """The kind of a setting that is a part: what its class has to be, by its dotted path."""

    def read(values: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if isinstance(values, Part):
            return values
        if not isinstance(values, Mapping):
            raise UserError(f"{name} is {values!r}: choose one of its group, as {name}=...")
        return of(values, name, kind)

    return Annotated[of, PlainValidator(read), PlainSerializer(lambda value: value.plain())]


class DataPart(Part):
    """A data set and its splits: the settings of each are those of `data` and its own, `data.splits.<split>`."""

    def __init__(self, values: Mapping[str, Any], name: str, kind: Any = None) -> None:
        splits = values.get("splits")
        if not isinstance(splits, Mapping) or not all(isinstance(own, Mapping) for own in splits.values()):
            raise UserError(
                f"{name}.splits must name the splits, as {{train: {{split: train}}, test: {{split: test}}}}"
            )
        common = {key: value for key, value in values.items() if key != "splits"}
        self.sensor = common.get("sensor")
        if TARGET in common and "sensor" not in hints_of(find(common[TARGET], f"{name}.{TARGET}")):
            common.pop("sensor", None)  # it is the encoder's to know
        if self.sensor not in (None, MISSING):
            check_sensor(self.sensor, f"{name}.sensor")
        super().__init__(common, name, kind)
        self.own = {str(split): {str(key): value for key, value in own.items()} for split, own in splits.items()}
        self.splits = {
            split: Part({**common, **own}, name, kind, {key: f"{name}.splits.{split}.{key}" for key in own})
            for split, own in self.own.items()
        }

    def split(self, name: str) -> Any:
        """One split of the data."""
        if name not in self.splits:
            raise UserError(
                f"{self.name} has no split {name!r}: it has {', '.join(self.splits)}{nearest(name, self.splits)}"
            )
        data = self.splits[name].build()
        lacks = [what for what in ("identity", "labels", "sample_id") if not hasattr(data, what)]
        if lacks:
            raise UserError(f"{self.name}: {self.label} has no {lacks[0]}: satdifuser/data/base.py says what it needs")
        return data

    def plain(self) -> dict[str, Any]:
        sensor = {} if self.sensor is None else {"sensor": self.sensor}
        own = {n: {key: plain(part.settings[key]) for key in self.own[n]} for n, part in self.splits.items()}
        return {**super().plain(), **sensor, "splits": own}
