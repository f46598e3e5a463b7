"""Benchmarks, run by hand: `python -m tests.benchmarks.NAME`.  Kernels are not what is timed: they are compiled once, for all of them."""

import tempfile
from pathlib import Path

from featreg.kernels import use_cache

use_cache(Path(tempfile.gettempdir()) / "featreg-benchmarks")
