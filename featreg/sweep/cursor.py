"""Say where a program stands in a chunk: what `State.cursor` holds."""

CURSOR_GROUP, CURSOR_ROW, CURSOR_OPS, CURSOR_SLOT, CURSOR_OP, CURSOR_ROWS = range(6)
CURSOR_FIRST, CURSOR_BEHIND = 6, 7  # of a read: the first key of those at hand, and the one behind the last
CURSOR_FIELDS = 8
