"""Number the instructions of a finish program: what `finish` writes and `finish_loop` reads.

An instruction is three int64: kind, operation, operand.  The kind says what it
takes from the stack, the operation what it does; the operand is its parameter.

numba keys the compiled loop by the stamp of `finish_loop.py` alone: who changes a
number here changes `NUMBERING` there, else an old cache runs the old numbers.
"""

# kinds
SLOT = 0  # push slot `operand`
WIDE = 1  # push the DECIMAL in slots `operand` (low word) and `operand + 1` (high) as DOUBLE; operation is its scale
CONSTANT = 2  # push constants[operand]
NULL_VALUE = 3  # push NULL
UNARY = 4  # one value, strict: NULL and error pass through
BINARY = 5  # two values, strict
MANY = 6  # `operand` values
STORE = 7  # pop into slot `operand`

# UNARY on a whole number (BIGINT, BOOLEAN, unscaled DECIMAL, DATE, TIMESTAMP)
NEGATE, ABSOLUTE, NOT, TO_DOUBLE, TO_BOOLEAN, DECIMAL_TO_DOUBLE, SCALE_UP, ROUND_DOWN_TO, FLOOR_TO, CEIL_TO, WITHIN, DATE_TO_TIMESTAMP = (
    range(12)
)
EPOCH, EPOCH_MS, EPOCH_US = range(12, 15)
# UNARY on a DOUBLE
F_NEGATE, F_ABSOLUTE, F_ROUND, F_FLOOR, F_CEIL, F_SQRT, F_LN, F_EXP, F_TO_BIGINT, F_TO_BOOLEAN, F_SCALE = range(20, 31)

# BINARY on whole numbers
ADD, SUBTRACT, MULTIPLY, DIVIDE, REMAINDER, EQUAL, UNEQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL = range(11)
# BINARY on DOUBLEs, in the same order
F_ADD, F_SUBTRACT, F_MULTIPLY, F_WHOLE_DIVIDE, F_REMAINDER, F_EQUAL, F_UNEQUAL, F_LESS, F_LESS_EQUAL, F_GREATER, F_GREATER_EQUAL = range(
    20, 31
)
F_DIVIDE, F_POWER = 31, 32

# MANY
AND, OR, IN, F_IN, COALESCE, NULLIF, F_NULLIF, LEAST, F_LEAST, GREATEST, F_GREATEST, CASE, IS_NULL = range(13)

# what a slot's `valid` says
IS_NOTHING, IS_VALUE, IS_ERROR = 0, 1, 2
