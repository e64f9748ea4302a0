"""A small number system of its own: values that know the clean value they are near, and the exact difference from it.

Subtracting two runs of a model loses every digit that they share, and near the clean activation they share nearly all.
Here the difference is never formed by subtraction: it is carried through the network beside the clean value, and every
operation has a rule that gives the difference of its result, rule(x, δ) = f(x + δ) - f(x), from x and δ without
cancellation. The derivations are in docs/differences.md.
"""

from tiltmeter.models.differences import (  # importing them registers their rules
    arithmetic,
    attention,
    layers,
    reshaping,
)
from tiltmeter.models.differences.products import operand_precision
from tiltmeter.models.differences.shifted import Shifted
from tiltmeter.models.differences.tape import Tape

__all__ = ["Shifted", "Tape", "arithmetic", "attention", "layers", "operand_precision", "reshaping"]
