"""Say what a verb will read and run, as values: nothing here runs."""
