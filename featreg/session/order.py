"""Put derived features behind those they use."""

from featreg.compile import CompiledSet
from featreg.expressions import Typed


def in_order(compiled: CompiledSet) -> list[tuple[str, Typed]]:
    """A set's derived features in an order in which each uses earlier ones only."""
    waiting = {name: typed for name, typed, _ in compiled.derived}
    ordered = []
    while waiting:
        ready = [name for name, typed in waiting.items() if not typed.columns & waiting.keys()]
        ordered += [(name, waiting.pop(name)) for name in ready]
    return ordered
