"""Which settings each command has."""

from __future__ import annotations

from satdifuser.settings.base import Settings
from satdifuser.settings.commands import (
    CompareSettings,
    DataSettings,
    EvalSettings,
    ExtractSettings,
    TapsSettings,
    TrainSettings,
)
from satdifuser.settings.pretraining import PretrainSettings
from satdifuser.settings.scenes import EmbedSettings, EvaluateMapSettings, PredictSettings
from satdifuser.settings.studies import CkaSettings, ProbeSettings

COMMANDS: dict[str, type[Settings]] = {
    "extract": ExtractSettings,
    "train": TrainSettings,
    "eval": EvalSettings,
    "taps": TapsSettings,
    "data": DataSettings,
    "compare": CompareSettings,
    "pretrain": PretrainSettings,
    "probe": ProbeSettings,
    "cka": CkaSettings,
    "predict": PredictSettings,
    "embed": EmbedSettings,
    "evaluate-map": EvaluateMapSettings,
}
