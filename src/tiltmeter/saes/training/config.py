"""What is trained: everything that decides an SAE's weights besides model, tokens and code."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from tiltmeter.models.positions import InOrOut
from tiltmeter.runs.config import Configuration

SAEKind = Literal["local", "topk", "e2e", "e2e+ds"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Coefficients(NamedTuple):
    """Coefficients of a loss (Braun et al. 2024; GPT-2 configurations of the released code)."""

    reconstruction: float
    kl: float
    downstream: float


COEFFICIENTS: dict[SAEKind, Coefficients] = {
    "local": Coefficients(1.0, 0.0, 0.0),
    "topk": Coefficients(1.0, 0.0, 0.0),
    "e2e": Coefficients(0.0, 1.0, 0.0),
    "e2e+ds": Coefficients(0.0, 0.5, 2.5),
}


class Training(Configuration):
    """One SAE's training."""

    kind: SAEKind
    site: str
    sparsity: Positive
    """λ, the coefficient of S; for `topk`, k."""
    latents: Count = 2048
    tokens: Count = 5_000_000
    """Training budget; where there are fewer, they are gone through again."""
    batch: Count = 32
    """Sequences a step."""
    learning_rate: Positive = 5e-4
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Part of the training in which the learning rate rises; then it falls along a cosine to a tenth."""
    clip: Positive = 10.0
    """Largest norm of a step's gradient."""
    downstream: tuple[str, ...] = ()
    """The sites H of `e2e+ds`; none: `hook_resid_pre` of every later layer."""
    bos: InOrOut = "in"
    """Boundary positions in the training, as in Braun et al. 2024, or out of it: then no loss counts them and they keep
    their activations when the SAE is spliced in."""
    dead_after: Count = 200_000
    """`topk`: tokens without firing after which a latent counts as dead."""
    evaluation: Count = 64
    """Sequences that are kept out of the training to measure on."""
    every: Count = 100
    """Steps between measurements, each with a checkpoint."""
    at_once: Count = 8
    """Sequences in memory at once: a step goes through its batch in such pieces."""
    arithmetic: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products. `bfloat16` trains several times faster where a machine has it; weights stay float32."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def coefficients(self) -> Coefficients:
        """The loss's coefficients."""
        return COEFFICIENTS[self.kind]

    @model_validator(mode="after")
    def _fits(self) -> Training:
        if self.kind == "topk" and (self.sparsity != int(self.sparsity) or self.sparsity > self.latents):
            raise ValueError(f"k of a top-k SAE is a whole number up to {self.latents}, not {self.sparsity:g}")
        if self.downstream and self.kind != "e2e+ds":
            raise ValueError(f"downstream sites belong to e2e+ds, not to {self.kind}")
        return self
