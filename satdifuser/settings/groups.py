"""The parts of the path as kinds of settings: what the class of each has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from satdifuser.errors import UserError
from satdifuser.settings.part import DataPart, Part, part


class EncoderPart(Part):
    """An encoder, which may have an adapter put on it."""

    def _unknown(self, setting: str) -> UserError:
        if setting != "adapter":
            return super()._unknown(setting)
        return UserError(
            f"adapter= is for vision transformers (encoder=small_vit, scalemae, vit, ...) and diffusion UNets:"
            f" {self.label} takes none"
        )


if TYPE_CHECKING:
    Encoder: TypeAlias = EncoderPart
    Fusion: TypeAlias = Part
    Decoder: TypeAlias = Part
    Task: TypeAlias = Part
    Loss: TypeAlias = Part
    Input: TypeAlias = Part
    Data: TypeAlias = DataPart
    Augmentation: TypeAlias = Part
    Temporal: TypeAlias = Part
else:
    Encoder = part("torch.nn.Module", EncoderPart)
    Fusion = part("satdifuser.fusion.base.FusionHead")
    Decoder = part("satdifuser.decoders.base.Decoder")
    Task = part("satdifuser.tasks.base.Task")
    Loss = part("satdifuser.losses.base.Loss")
    Data = part("satdifuser.data.base.MapStyle", DataPart)
    Input = part("satdifuser.data.inputs.ImageInput")
    Augmentation = part("satdifuser.augment.Augmentation")
    Temporal = part("satdifuser.temporal.base.TemporalHead")

__all__ = ["Augmentation", "Data", "Decoder", "Encoder", "Fusion", "Input", "Loss", "Task", "Temporal"]
