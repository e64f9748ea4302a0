"""Run a model from a site on, and read how its output changed."""
