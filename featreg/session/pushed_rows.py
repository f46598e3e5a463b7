"""Put the rows of records of a push log together, in the columns that their source declares now."""

from collections.abc import Sequence

import pyarrow as pa

from featreg.define import EventSource
from featreg.registry.push_log import Pushed
from featreg.sweep.words import arrow_type


def rows_of(records: Sequence[Pushed], source: EventSource) -> pa.Table:
    """All rows, in order; a column that was declared after they were pushed is NULL in them."""
    table = together(records)
    there = {name.lower() for name in table.column_names}
    for name, kind in source.columns:
        if name.lower() not in there:
            table = table.append_column(name, pa.nulls(table.num_rows, arrow_type(kind)))
    return table


def together(records: Sequence[Pushed]) -> pa.Table:
    """All rows, in order, in the columns that they had when they were pushed."""
    return pa.concat_tables([record.rows for record in records], promote_options="permissive")
