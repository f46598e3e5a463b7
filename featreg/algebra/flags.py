"""Flags for functions that only kernels call, and for those that Python calls.

Without reference counts (a kernel's arrays outlive it) and without wrappers for
Python, a call costs what it costs in C; such a function may allocate nothing.
"""

from featreg.algebra import undisturbed as _  # noqa: F401  before the first kernel is compiled or loaded
from featreg.algebra.compiler import KernelCompiler, PartCompiler

_PLAIN = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cfunc_wrapper": True}
INTERNAL = {**_PLAIN, "no_cpython_wrapper": True, "pipeline_class": PartCompiler}
ENTRY = {**_PLAIN, "cache": True, "pipeline_class": KernelCompiler}  # what Python calls
ALLOCATING = {**ENTRY, "_nrt": True}  # and makes arrays
