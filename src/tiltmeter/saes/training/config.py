"""Training configuration: everything besides model, tokens and code that determines an SAE's weights."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from tiltmeter.analysis.massive import MASSIVE_RATIO
from tiltmeter.models.positions import InOrOut
from tiltmeter.models.site_names import check_site
from tiltmeter.runs.config import Configuration

SAEKind = Literal["local", "topk", "e2e", "e2e+ds"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _possible(site: str) -> str:
    """Refuse a name that can be no site of any model."""
    check_site(site)
    return site


SiteName = Annotated[str, AfterValidator(_possible)]


class Coefficients(NamedTuple):
    """Weights of the loss terms, from the GPT-2 configurations in the code release of Braun et al. 2024."""

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
    """Configuration of one SAE's training."""

    kind: SAEKind
    site: SiteName
    sparsity: Positive
    """λ, the coefficient of the sparsity term S. For `topk`, this is k instead."""
    latents: Count = 2048
    tokens: Count = 5_000_000
    """Training budget in tokens. A smaller token set is repeated, reshuffled, until the budget is spent."""
    batch: Count = 32
    """Sequences per optimizer step."""
    learning_rate: Positive = 5e-4
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of training over which the learning rate rises linearly. It then falls along a cosine to a tenth."""
    clip: Positive = 10.0
    """Gradients are clipped to this norm."""
    downstream: tuple[SiteName, ...] = ()
    """The sites H of `e2e+ds`. If empty, `hook_resid_pre` of every later layer."""
    bos: InOrOut = "in"
    """Whether boundary positions are trained on. `in` follows Braun et al. 2024. With `out`, no loss counts them and
    they keep their own activations when the SAE is spliced in."""
    massive: InOrOut = "out"
    """Whether massive activations are trained on. With `out`, no loss counts them and they keep their own values."""
    massive_ratio: Annotated[float, Field(gt=1)] = MASSIVE_RATIO
    """An activation is massive if its norm is above this multiple of the median norm at the site."""
    dead_after: Count = 200_000
    """For `topk`: a latent counts as dead after this many tokens without firing."""
    evaluation: Count = 64
    """Number of sequences held out of training for evaluation."""
    every: Count = 100
    """Steps between evaluations. Each evaluation also writes a checkpoint."""
    at_once: Count = 8
    """Sequences in memory at once. A step accumulates its gradient over pieces of this size."""
    arithmetic: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products. `bfloat16` trains several times faster on hardware that supports it; weights stay
    float32."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def coefficients(self) -> Coefficients:
        """Weights of the loss terms for this kind of SAE."""
        return COEFFICIENTS[self.kind]

    def sequences_to_load(self, length: int | None = None) -> int:
        """No more sequences than the training can use; without a length, they may be as short as one token."""
        return self.evaluation + self.batch + self.tokens // (length or 1)

    @model_validator(mode="after")
    def _fits(self) -> Training:
        if self.kind == "topk" and (self.sparsity != int(self.sparsity) or self.sparsity > self.latents):
            raise ValueError(f"k of a top-k SAE must be a whole number up to {self.latents}, not {self.sparsity:g}")
        if self.downstream and self.kind != "e2e+ds":
            raise ValueError(f"downstream sites apply only to e2e+ds, not to {self.kind}")
        return self
