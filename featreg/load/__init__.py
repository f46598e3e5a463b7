"""Spec readers: Python and SQL to `Definitions`, and nothing is ever run."""

from featreg.load.definitions import Definitions, Placed
from featreg.load.files import SPEC_FOLDER, is_spec, load_directory, load_files

__all__ = ["SPEC_FOLDER", "Definitions", "Placed", "is_spec", "load_directory", "load_files"]
