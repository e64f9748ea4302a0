"""SAEBench's custom classes (`sae_bench.custom_saes`), which have no format: their weights saved, and as objects."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from small_saes import LATENTS
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.object_options import wrap_sae
from tiltmeter.saes.sae import LinearSAE, reconstruct
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import WIDTH, tiny

K = 3


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@dataclass
class Config:
    """As `CustomSAEConfig`, of which this is a part."""

    model_name: str = "gpt2"
    d_in: int = WIDTH
    d_sae: int = LATENTS
    hook_name: str = "blocks.1.hook_resid_pre"
    hook_layer: int = 1
    architecture: str = ""
    dtype: str = "float32"


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.W_enc = nn.Parameter(draw(WIDTH, LATENTS, seed=0) / WIDTH**0.5)
        self.W_dec = nn.Parameter(draw(LATENTS, WIDTH, seed=1) / 4)
        self.b_enc = nn.Parameter(draw(LATENTS, seed=2) / 4)
        self.b_dec = nn.Parameter(draw(WIDTH, seed=3) / 2)
        self.cfg = Config()

    def pre(self, x):
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    def decode(self, latents):
        return latents @ self.W_dec + self.b_dec

    def forward(self, x):
        return self.decode(self.encode(x))


class ReluSAE(Base):
    def encode(self, x):
        return self.pre(x).relu()


class TopKSAE(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("k", torch.tensor(K, dtype=torch.int))

    def encode(self, x):
        top = self.pre(x).relu().topk(self.k, sorted=False, dim=-1)
        return torch.zeros(*x.shape[:-1], LATENTS).scatter(-1, top.indices, top.values)


class BatchTopKSAE(TopKSAE):
    """Also the top-k SAE with `use_threshold`."""

    def __init__(self, threshold=0.7):
        super().__init__()
        self.register_buffer("threshold", torch.tensor(threshold))

    def encode(self, x):
        latents = self.pre(x).relu()
        return latents * (latents > self.threshold)


class JumpReluSAE(Base):
    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(draw(LATENTS, seed=4).abs())

    def encode(self, x):
        pre = x @ self.W_enc + self.b_enc
        return (pre > self.threshold) * pre.relu()


class GatedSAE(Base):
    def __init__(self):
        super().__init__()
        self.r_mag = nn.Parameter(draw(LATENTS, seed=5) / 4)
        self.b_mag = nn.Parameter(draw(LATENTS, seed=6) / 4)
        self.gate_bias = nn.Parameter(draw(LATENTS, seed=7) / 4)
        del self.b_enc

    def encode(self, x):
        x = (x - self.b_dec) @ self.W_enc
        return (x + self.gate_bias > 0) * (self.r_mag.exp() * x + self.b_mag).relu()


SAID = {
    ReluSAE: "?apply_b_dec_to_input=true&activation=relu",
    TopKSAE: "?apply_b_dec_to_input=true",
    BatchTopKSAE: "?apply_b_dec_to_input=true",
    JumpReluSAE: "?apply_b_dec_to_input=false",
    GatedSAE: "",
}
"""What the weights of each class do not tell."""


@pytest.mark.parametrize("kind", SAID)
def test_saved_weights_and_an_option(kind, tmp_path):
    own, x = kind().requires_grad_(False), 2 * draw(40, WIDTH, seed=9)
    torch.save(own.state_dict(), tmp_path / "sae.pt")
    sae, latents = load_sae(f"{tmp_path / 'sae.pt'}{SAID[kind]}"), own.encode(x)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(sae.encode(x), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(sae, x), own(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SAID)
def test_an_object_says_all_but_its_convention_which_is_compared(kind):
    tokens = token_set(sequences=8)
    options = {"apply_b_dec_to_input": False} if kind is JumpReluSAE else {}
    sweep = Sweep(
        site="resid_pre:1",
        path=Straight(lengths=(0, 1)),
        sequences=4,
        directions=("sae-error",),
        saes={"mine": wrap_sae(kind(), **options)},
    )
    placed = make_plan(sweep, SplitModel(tiny("gpt2")).measured_in("centred"), tokens).saes["mine"].sae
    assert isinstance(placed, LinearSAE)


def test_a_threshold_that_was_never_set_is_refused(tmp_path):
    torch.save(BatchTopKSAE(threshold=-1.0).state_dict(), tmp_path / "sae.pt")
    with pytest.raises(TiltmeterError, match=r"has the threshold -1 for all latents, which was not set yet"):
        load_sae(f"{tmp_path / 'sae.pt'}{SAID[BatchTopKSAE]}")
