"""Perturbations: directions, the sources they are drawn from, and the paths along them."""
