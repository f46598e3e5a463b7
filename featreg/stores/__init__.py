"""Keep bytes by key: one module per store, all under contract.py; none knows what a feature is."""
