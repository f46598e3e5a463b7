"""Hand a kernel its many arrays as one: a call costs a fraction of a microsecond for every array it is given.

A frame is int64 words, four for each array of Program, Chunk and State in their order:
address, then up to three lengths.  The caller keeps the arrays alive.
"""

from collections.abc import Iterable

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

from featreg.algebra.schedule import Chunk, Program, State
from featreg.sweep.execute import answer

WORDS = 4


def frame_of(*bundles: Iterable[np.ndarray]) -> np.ndarray:
    """The frame of the arrays of Program, Chunk and State; all must be C-contiguous."""
    arrays = [array for bundle in bundles for array in bundle]
    frame = np.zeros((len(arrays), WORDS), np.int64)
    for row, array in zip(frame, arrays):
        assert array.flags.c_contiguous
        row[0] = array.ctypes.data
        row[1 : 1 + array.ndim] = array.shape
    return frame


@intrinsic
def _words_at(typing, address):
    signature = types.CPointer(types.int64)(address)

    def cast(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, cast


@intrinsic
def _bytes_at(typing, address):
    signature = types.CPointer(types.uint8)(address)

    def cast(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, cast


@njit(cache=True, nogil=True)
def _row(frame, i):
    return carray(_words_at(frame[i, 0]), (frame[i, 1],))


@njit(cache=True, nogil=True)
def _table(frame, i):
    return carray(_words_at(frame[i, 0]), (frame[i, 1], frame[i, 2]))


@njit(cache=True, nogil=True)
def _block(frame, i):
    return carray(_words_at(frame[i, 0]), (frame[i, 1], frame[i, 2], frame[i, 3]))


@njit(cache=True, nogil=True)
def _bytes_row(frame, i):
    return carray(_bytes_at(frame[i, 0]), (frame[i, 1],))


@njit(cache=True, nogil=True)
def _bytes_table(frame, i):
    return carray(_bytes_at(frame[i, 0]), (frame[i, 1], frame[i, 2]))


@njit(cache=True, nogil=True)
def answer_framed(frame, words, starts, heads, head_starts, more, cutoffs):
    """`answer`, with Program, Chunk and State in a frame."""
    program = Program(
        _table(frame, 0), _row(frame, 1), _table(frame, 2), _table(frame, 3), _table(frame, 4), _block(frame, 5), _table(frame, 6)
    )
    chunk = Chunk(
        _row(frame, 7), _row(frame, 8), _row(frame, 9), _row(frame, 10), _table(frame, 11), _bytes_table(frame, 12), _bytes_row(frame, 13),
        _row(frame, 14),
    )  # fmt: skip
    state = State(
        _table(frame, 15), _table(frame, 16), _row(frame, 17), _row(frame, 18), _row(frame, 19), _block(frame, 20), _row(frame, 21),
        _row(frame, 22), _row(frame, 23), _bytes_row(frame, 24), _row(frame, 25), _row(frame, 26), _row(frame, 27), _table(frame, 28),
        _bytes_table(frame, 29), _row(frame, 30), _bytes_row(frame, 31), _row(frame, 32), _row(frame, 33),
    )  # fmt: skip
    return answer(program, chunk, state, words, starts, heads, head_starts, more, cutoffs)
