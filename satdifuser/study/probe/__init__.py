"""Probes: how much of a task can be read, linearly or from neighbours, at each place of a network."""

from satdifuser.study.probe.flow import probed

__all__ = ["probed"]
