"""A measurement that can be repeated and resumed: its directory, configuration, hashes, random numbers, progress."""
