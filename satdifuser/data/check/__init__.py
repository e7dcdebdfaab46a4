"""What a reader sees, checked before anybody trains on it: the cure for the field's silent bugs."""

from satdifuser.data.check.findings import Finding, worst
from satdifuser.data.check.whole import Checked, check, first_look

__all__ = ["Checked", "Finding", "check", "first_look", "worst"]
