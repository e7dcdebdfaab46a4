"""The feature store: banks on disk, extracted once, read many times."""

from satdifuser.store.background import BackgroundWriter
from satdifuser.store.forms import Form
from satdifuser.store.loading import StoreLoader, collate
from satdifuser.store.plan import StorePlan
from satdifuser.store.processes import Processes
from satdifuser.store.reader import FeatureStore, StoredFeatures
from satdifuser.store.writer import StoreWriter
from satdifuser.store.xarrays import open_xarray

__all__ = [
    "BackgroundWriter",
    "FeatureStore",
    "Form",
    "Processes",
    "StoreLoader",
    "StorePlan",
    "StoreWriter",
    "StoredFeatures",
    "collate",
    "open_xarray",
]
