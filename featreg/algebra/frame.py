"""Hand kernels their many arrays as one address, and kernels to each other by theirs.

A frame is the arrays of Program, Chunk and State in memory as numba lays out the tuple
of the three, so that taking them is a load, and a call from Python takes a number
instead of 35 arrays.  The caller keeps the arrays alive.  A kernel is compiled when
its address is first asked for, so only what a program uses is compiled, and once:
whoever walks a schedule calls the same machine code.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

from featreg.algebra.compiler import KernelCompiler
from featreg.algebra.schedule import Chunk, Program, State

ROW, TABLE, _BLOCK = (types.Array(types.int64, dimensions, "C") for dimensions in (1, 2, 3))
BYTES, BYTES_TABLE = types.Array(types.uint8, 1, "C"), types.Array(types.uint8, 2, "C")
PROGRAM = types.NamedTuple((TABLE, ROW, TABLE, TABLE, TABLE, _BLOCK, TABLE), Program)
CHUNK = types.NamedTuple((ROW, ROW, ROW, ROW, TABLE, BYTES_TABLE, BYTES, ROW), Chunk)
STATE = types.NamedTuple(
    (TABLE, TABLE, ROW, ROW, ROW, _BLOCK, ROW, ROW, ROW, BYTES, ROW, ROW, ROW, TABLE, BYTES_TABLE, ROW, BYTES, ROW, ROW), State
)
_BUNDLES = types.Tuple((PROGRAM, CHUNK, STATE))
_SIGNATURE = types.int64(types.int64, types.int64, types.int64, types.int64)


def frame_of(program: Program, chunk: Chunk, state: State) -> np.ndarray:
    """The words of a frame; its address is that of the first.  All arrays must be C-contiguous."""
    words: list[int] = []
    for array in (*program, *chunk, *state):
        assert array.flags.c_contiguous
        words += (0, 0, array.size, array.itemsize, array.__array_interface__["data"][0], *array.shape, *array.strides)
    return np.array(words, np.int64)


@intrinsic
def bundles(typing, address):
    """Program, Chunk and State of the frame at an address."""

    def load(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], context.get_value_type(_BUNDLES).as_pointer()))

    return _BUNDLES(types.int64), load


@intrinsic
def walk(typing, kernel, slot, op, n_ops, frame):
    """Let the kernel at an address walk the schedule of a frame from word `op` to `n_ops`; returns how far it came."""

    def call(context, builder, signature, arguments):
        word = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], ir.FunctionType(word, [word] * 4).as_pointer())
        return builder.call(pointer, arguments[1:])

    return types.int64(*[types.int64] * 5), call


class Kernel:
    """A function (slot, op, n_ops, frame's address) -> how far it came, that walks the schedule for one slot."""

    def __init__(self, function: Callable[[int, int, int, int], int]):
        self.function = function

    @cached_property
    def address(self) -> int:
        """Of its machine code, which is compiled now or taken from the cache."""
        self._kept = self.compile()
        return self._kept.address

    def compile(self):
        return cfunc(_SIGNATURE, cache=True, error_model="numpy", _nrt=False, pipeline_class=KernelCompiler)(self.function)
