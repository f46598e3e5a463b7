"""Say where a program stands in a chunk: what `State.cursor` holds."""

CURSOR_GROUP, CURSOR_ROW, CURSOR_OPS, CURSOR_SLOT, CURSOR_OP, CURSOR_ROWS = range(6)
CURSOR_FIELDS = 6
