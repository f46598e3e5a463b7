"""The verbs: what programs, the command line and servers call.

Resolved on first use: the profile alone needs no engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featreg.session.registry import Registry
    from featreg.session.registry import open_registry as open
    from featreg.session.training_set import TrainingSet

__all__ = ["Registry", "TrainingSet", "open"]

_HOMES = {"Registry": ("registry", "Registry"), "open": ("registry", "open_registry"), "TrainingSet": ("training_set", "TrainingSet")}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featreg.session' has no attribute '{name}'")
    module, called = _HOMES[name]
    value = globals()[name] = getattr(import_module(f"featreg.session.{module}"), called)
    return value
