"""satdifuser from Python: an encoder by its name, a trained run as a module, and a run on the Hugging Face hub."""

from satdifuser.api.encoders import Encoder, list_encoders, load_encoder
from satdifuser.api.runs import TrainedRun, load_run

__all__ = ["Encoder", "TrainedRun", "list_encoders", "load_encoder", "load_run"]
