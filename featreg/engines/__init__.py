"""Scan, filter, shuffle and sort: one module per engine; none knows what a feature is."""
