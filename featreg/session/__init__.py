"""The verbs: what programs, the command line and servers call."""

from featreg.session.registry import Registry, open_registry
from featreg.session.training_set import TrainingSet

open = open_registry

__all__ = ["Registry", "TrainingSet", "open"]
