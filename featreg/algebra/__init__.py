"""Aggregations: how a partial is laid out, folded, merged and finalized.  Begin with table.py."""
