"""Like dual numbers, but for finite differences: pairs (value, exact δ).

Subtracting two runs of a model loses every digit that they share, and near the clean activation they share nearly all.
Here the difference is never formed by subtraction. It is carried through the network together with the clean value:
each operation f has a rule that computes the difference of its result, f(x + δ) - f(x), from x and δ without
cancellation. Dual numbers do the same for infinitesimal δ; here δ may have any size. The derivations are in
docs/differences.md.
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
