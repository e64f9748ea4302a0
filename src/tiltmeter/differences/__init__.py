"""A small number system of its own: values that know the clean value they are near, and the exact difference from it.

Subtracting two runs of a model loses every digit that they share, and near the clean activation they share nearly all.
Here the difference is never formed by subtraction: it is carried through the network beside the clean value, and every
operation has a rule that gives the difference of its result, rule(x, δ) = f(x + δ) - f(x), from x and δ without
cancellation. The derivations are in docs/differences.md.
"""

from tiltmeter.differences import arithmetic, attention, networks, shapes  # importing them registers their rules
from tiltmeter.differences.products import operands
from tiltmeter.differences.shifted import Shifted
from tiltmeter.differences.tape import Tape

__all__ = ["Shifted", "Tape", "arithmetic", "attention", "networks", "operands", "shapes"]
