"""How a scene is read: as the training images of a run were, unless the command says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from satdifuser.data.bands import NOT_GIVEN, Sensor, find_sensor
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Reading

if TYPE_CHECKING:
    from satdifuser.settings.part import DataPart
    from satdifuser.settings.scenes import ReadingSettings

MISSING = "???"


def reading_of(data: DataPart | None, given: ReadingSettings, needed: Sequence[str] | None = None) -> Reading:
    """Sensor, scaling and no data are those of the run's data, or what `given` says. `needed`: None is all bands."""
    trained = {} if data is None else {**data.settings, "sensor": data.sensor or data.settings.get("sensor")}
    named = given.sensor if given.sensor is not None else _of(trained, "sensor")
    if named is None or named == NOT_GIVEN:
        raise UserError("the bands of the scene are not known: set reading.sensor, as SENTINEL2 or LANDSAT8")
    sensor = find_sensor(named) if given.sensor is None else sensor_of(given.sensor)
    told = given.scaling is not None
    words = given.scaling if told else _of(trained, "scaling")
    scaling = Scaling.of("auto" if words is None else words, "reading.scaling" if told else "data.scaling")
    if told:
        scaling.check_bands(sensor)
    nodata = given.nodata if given.nodata is not None else _of(trained, "nodata")
    names = _of(trained, "bands") if given.sensor is None else None
    return Reading(
        sensor,
        sensor.names if needed is None else tuple(sensor.names[place] for place in sorted(set(sensor.index(needed)))),
        scaling,
        bands=given.bands,
        nodata=tuple(nodata) if isinstance(nodata, list) else () if nodata is None else (nodata,),
        nan=given.nan or _of(trained, "nan") or "error",
        resampling=given.resampling,
        told=told,
        unnamed=tuple(map(str, names)) if isinstance(names, list) else (),
    )


def sensor_of(asked: Sensor | str) -> Sensor:
    """The sensor that `reading.sensor` names."""
    try:
        return find_sensor(asked)
    except UserError as error:
        raise UserError(str(error).replace("data.sensor", "reading.sensor")) from error


def _of(trained: dict[str, Any], name: str) -> Any:
    found = trained.get(name)
    return None if found == MISSING else found
