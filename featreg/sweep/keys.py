"""Number the keys of sorted rows, and check that the engine really sorted them."""

import numpy as np
from numba import njit

from featreg.algebra.flags import ENTRY
from featreg.algebra.pools import compare_text


@njit(**ENTRY)
def number_keys(keys, valid, texts, pool, instant, spine_row, key_index):
    """Write each row's key number, ascending from 0, and return how many keys there are.

    keys, valid [parts, n]: key words, NULL below every value · texts [parts]: whether a part is text in `pool`.
    Returns -(row + 1) at the first row that steps back in (key, instant, spine before events).
    """
    n, number = key_index.shape[0], np.int64(0)
    for row in range(n):
        order = np.int64(0)
        if row > 0:
            for part in range(keys.shape[0]):
                here, before = np.int64(valid[part, row]), np.int64(valid[part, row - 1])
                if here != before:
                    order = here - before
                elif here and texts[part]:
                    order = compare_text(pool, keys[part, row], pool, keys[part, row - 1])
                elif here:
                    order = np.int64(keys[part, row] > keys[part, row - 1]) - np.int64(keys[part, row] < keys[part, row - 1])
                if order != 0:
                    break
            if order > 0:
                number += 1
            elif order < 0 or instant[row] < instant[row - 1]:
                return -(row + 1)
            elif instant[row] == instant[row - 1] and spine_row[row] >= 0 and spine_row[row - 1] < 0:
                return -(row + 1)
        key_index[row] = number
    return number + 1 if n > 0 else 0
