"""Say what a change of a field means: other values, another way to store them, or neither.

Every field of every model in `define` carries exactly one `Layer` in its
annotation; a test fails for a field without one.
"""

from enum import Enum


class Layer(Enum):
    MEANING = "meaning"  # decides values, so it is in the definition id
    LAYOUT = "layout"  # how data is found, checked and stored; never a value
    META = "meta"  # for people: names, owner, description, tags


MEANING = Layer.MEANING
LAYOUT = Layer.LAYOUT
META = Layer.META
