"""satdifuser: diffusion features as representations, and their fair comparison with discriminative models.

    encoder = satdifuser.load_encoder("small")
    bank = encoder(images)
    run = satdifuser.load_run("runs/latest")
    classes = run.predict(images)

See docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satdifuser.lazily import lazily

if TYPE_CHECKING:
    from satdifuser.api import Encoder as Encoder
    from satdifuser.api import TrainedRun as TrainedRun
    from satdifuser.api import list_encoders as list_encoders
    from satdifuser.api import load_encoder as load_encoder
    from satdifuser.api import load_run as load_run
    from satdifuser.bank import BankSpec as BankSpec
    from satdifuser.bank import FeatureBank as FeatureBank
    from satdifuser.bank import Tap as Tap
    from satdifuser.errors import UserError as UserError
    from satdifuser.store import FeatureStore as FeatureStore

__version__ = "0.1.0"

ROOMS = {
    **dict.fromkeys(("Encoder", "TrainedRun", "list_encoders", "load_encoder", "load_run"), "satdifuser.api"),
    **dict.fromkeys(("BankSpec", "FeatureBank", "Tap"), "satdifuser.bank"),
    "FeatureStore": "satdifuser.store",
    "UserError": "satdifuser.errors",
}
__all__ = [
    "BankSpec",
    "Encoder",
    "FeatureBank",
    "FeatureStore",
    "Tap",
    "TrainedRun",
    "UserError",
    "list_encoders",
    "load_encoder",
    "load_run",
]

__getattr__, __dir__ = lazily(__name__, ROOMS)
