"""Walk rows sorted by key and instant through a sweep program: the one evaluator, offline and online."""
