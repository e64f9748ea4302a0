"""Right and spoilt SAEs, and what the load check says of them: the tables of docs/saes.md.

    python scripts/sae_traps.py --out traps.jsonl
    python scripts/sae_traps.py --model models/smollm2 --tokens english.txt sae-2 sae-15 --out traps-smollm2.jsonl
    python scripts/sae_traps.py --table traps.jsonl traps-smollm2.jsonl

Each SAE is used as it should be, in several ways (`RIGHT`), and spoilt in ways that happen when files are moved, read
or used (`SPOILT`). The check sees it once without L0 and explained variance, as where weights are alone, and once with
them. SAEs are named as for `--sae`; without names, nano's own are used. A killed campaign goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

import tiltmeter as tm
from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.sites import STREAM, Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes import diagnosis, load_check
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import evaluate_each
from tiltmeter.saes.fits import fits
from tiltmeter.saes.loading import list_embedded
from tiltmeter.saes.sae import JumpReLU, LinearSAE, TopK
from tiltmeter.saes.trials import near_trials

SEQUENCES = 4
"""Sequences of a check. A run uses 4,096 tokens; fewer are a harder test, and a quicker one."""

MEAN = 0.5
"""Mean over d_model that is added to the raw stream, in units of its root mean square: nano's own is near zero."""

HARM = 1.1
"""An SAE is harmed if it leaves more than this many times as much unexplained as when it is used rightly."""


class Use(NamedTuple):
    """An SAE, and the model, site and tokens that it is used with."""

    sae: LinearSAE
    model: SplitModel
    site: Site
    tokens: TokenSet


Way = Callable[[Use], Use | None]


def with_ids(use: Use, ids: torch.Tensor) -> Use:
    """On other tokens."""
    return use._replace(tokens=replace(use.tokens, ids=ids))


def begun(use: Use) -> Use | None:
    """The first token replaced by the boundary token."""
    if use.tokens.boundary is None:
        return None
    ids = use.tokens.ids.clone()
    ids[:, 0] = use.tokens.boundary
    return with_ids(use, ids)


def other_convention(use: Use) -> Use | None:
    """b_dec subtracted where it is not, and the reverse."""
    sae = use.sae
    other = torch.zeros_like(sae.b_dec) if bool(sae.input_bias.any()) else sae.b_dec
    return use._replace(sae=replace(sae, input_bias=other))


def moved(use: Use, layers: int) -> Use | None:
    """Used in another layer."""
    layer = use.site.layer + layers
    return use._replace(site=use.site._replace(layer=layer)) if 0 <= layer < use.model.n_layers else None


@cache
def _with_mean(model: SplitModel, site: Site) -> tuple[SplitModel, float]:
    """The same function of the tokens, with a mean in its residual stream; and that mean at the site."""
    hf = copy.deepcopy(model.hf)
    x = model.activation(torch.arange(8)[None], site)
    mean = MEAN * float(x.square().mean().sqrt())
    hf.transformer.wpe.weight.data += mean
    return SplitModel(hf, model.name), mean


def has_streams(use: Use) -> bool:
    """Whether the model is blind to the mean, and is known to have embeddings of positions to add it to."""
    return use.model.centred and use.site.kind in STREAM and hasattr(use.model.hf, "transformer")


def raw_for_centred(use: Use) -> Use | None:
    """Of the centred stream, used in the raw one."""
    return use._replace(model=_with_mean(use.model, use.site)[0].measured_in("raw")) if has_streams(use) else None


def of_raw(use: Use) -> Use | None:
    """The same SAE of the raw stream, used there."""
    if not has_streams(use):
        return None
    model, mean = _with_mean(use.model, use.site)
    sae = use.sae
    noise = torch.randn(sae.W_enc.shape[1], generator=torch.Generator().manual_seed(0))
    reads = sae.W_enc + sae.W_enc.norm(dim=0) * noise / len(sae.W_enc)  # of the mean, as much as of any direction
    shift = mean * reads.sum(0) if not bool(sae.input_bias.any()) else torch.zeros_like(sae.b_enc)
    input_bias = sae.input_bias + mean if bool(sae.input_bias.any()) else sae.input_bias
    shifted = replace(sae, W_enc=reads, b_enc=sae.b_enc - shift, b_dec=sae.b_dec + mean, input_bias=input_bias)
    return use._replace(sae=shifted, model=model.measured_in("raw"))


def centred_for_raw(use: Use) -> Use | None:
    """Of the raw stream, used in the centred one."""
    raw = of_raw(use)
    return raw and raw._replace(model=_with_mean(use.model, use.site)[0].measured_in("centred"))


def factor(use: Use) -> float:
    """√d over the mean norm."""
    x = use.model.activation(use.tokens.ids, use.site)[:, 1:]
    return math.sqrt(x.shape[-1]) / float(x.norm(dim=-1).median())


def unscaled(use: Use, *names: str) -> Use:
    """These weights are those for activations scaled to a norm of √d."""
    s = factor(use)
    return use._replace(sae=replace(use.sae, **{name: getattr(use.sae, name) * s for name in names}))


def no_encoder_bias(use: Use) -> Use | None:
    """b_enc is zero."""
    return use._replace(sae=replace(use.sae, b_enc=torch.zeros_like(use.sae.b_enc))) if use.sae.b_enc.any() else None


def another_model(use: Use) -> Use:
    """Dimensions in another order, as in an SAE of another model."""
    order = torch.randperm(len(use.sae.b_dec), generator=torch.Generator().manual_seed(0))
    sae = use.sae
    mixed = replace(
        sae,
        W_enc=sae.W_enc[order],
        W_dec=sae.W_dec[:, order],
        b_dec=sae.b_dec[order],
        input_bias=sae.input_bias[order],
    )
    return use._replace(sae=mixed)


def rescaled_rows(use: Use) -> Use:
    """Decoder rows multiplied by factors from 0.3 to 3, mostly, and the encoder not divided by them."""
    noise = torch.randn(len(use.sae.W_dec), generator=torch.Generator().manual_seed(0))
    return use._replace(sae=replace(use.sae, W_dec=use.sae.W_dec * (0.7 * noise).exp()[:, None]))


def as_relu(use: Use) -> Use | None:
    """A top-k SAE without its k."""
    return use._replace(sae=_said(use.sae, torch.relu)) if isinstance(use.sae.activation, TopK) else None


def with_threshold(use: Use, times: int) -> Use | None:
    """A top-k SAE with the threshold of a batch-top-k one, for this many times its k."""
    if not isinstance(use.sae.activation, TopK):
        return None
    x = use.model.activation(use.tokens.ids, use.site)[:, 1:].flatten(0, 1)
    pre = replace(use.sae, activation=torch.relu).encode(x)
    k = use.sae.activation.k * times
    threshold = pre.flatten().topk(k * len(x)).values[-1].clamp(min=1e-6)
    sae = _said(use.sae, JumpReLU(threshold.expand(pre.shape[-1]).clone()))
    return use._replace(sae=sae)


def _said(sae: LinearSAE, activation: Any) -> LinearSAE:
    architecture = "jumprelu" if isinstance(activation, JumpReLU) else "standard"
    return replace(sae, about=replace(sae.about, architecture=architecture), activation=activation)


def in_float64(use: Use) -> Use:
    """The SAE in double precision."""
    return use._replace(sae=use.sae.to(torch.device("cpu"), torch.float64))


RIGHT: Mapping[str, Way] = {
    "as stated": lambda use: use,
    "other tokens": lambda use: with_ids(use, use.tokens.ids.roll(SEQUENCES, 0)),
    "short sequences, double precision": lambda use: in_float64(with_ids(use, use.tokens.ids.reshape(-1, 16))),
    "boundary token prepended": begun,
    "of the raw stream": of_raw,
    "batch-top-k": partial(with_threshold, times=1),
}
"""Ways to use an SAE rightly. (Unless it was trained otherwise, prepending a boundary token changes little.)"""

SPOILT: Mapping[str, tuple[Way, str]] = {
    "b_dec in the other convention": (other_convention, "b_dec is"),
    "one layer too late": (partial(moved, layers=1), "it belongs to"),
    "one layer too early": (partial(moved, layers=-1), "it belongs to"),
    "two layers too late": (partial(moved, layers=2), "it belongs to"),
    "two layers too early": (partial(moved, layers=-2), "it belongs to"),
    "raw stream for centred": (raw_for_centred, "expects the centred stream"),
    "centred stream for raw": (centred_for_raw, "expects the raw residual stream"),
    "scale of activations left out": (lambda use: unscaled(use, "b_enc", "b_dec", "input_bias"), "scaled"),
    "b_dec alone of another scale": (lambda use: unscaled(use, "b_dec", "input_bias"), "its b_dec, unlike"),
    "b_enc alone of another scale": (lambda use: unscaled(use, "b_enc"), "its b_enc, unlike"),
    "encoder bias lost": (no_encoder_bias, "encoder bias"),
    "decoder rows scaled": (rescaled_rows, "decoder rows were scaled"),
    "an SAE of another model": (another_model, "No likely cause"),
    "top-k or thresholds lost": (as_relu, "top-k SAE|latents fire"),
    "batch-top-k, 4 k": (partial(with_threshold, times=4), "latents fire"),
}
"""Each way to spoil an SAE, and the words (a regular expression) by which its cause is named."""


class Said(NamedTuple):
    """What the check says of a use, without and with published values, and what it measured."""

    bare: str
    stated: str
    explained: float
    gains: dict[str, float]
    """For each kind of trial the most that the use leaves unexplained, as a multiple of what the trial leaves. Trials
    in which the SAE explains well have names that end in `+`."""


def said(use: Use, tokens: int) -> Said:
    """Check a use twice. All is measured once: only what the files state differs."""
    measured: dict[Any, Any] = {}

    def once(function: Callable, key: Callable) -> Callable:
        def call(*given: Any) -> Any:
            name = key(*given)
            if name not in measured:
                measured[name] = function(*given)
            return measured[name]

        return call

    about = use.sae.about
    bare = replace(about, l0=None, explained_variance=None, kind=None, processing=None)
    remembered = once(fits, lambda _, at, ids, __: (len(at), *ids.shape, int(ids.sum())))
    texts = []
    with (
        patch.object(load_check, "evaluate_each", once(evaluate_each, lambda *_: "metrics")),
        patch.object(diagnosis, "fits", remembered),
    ):
        for facts in (bare, replace(about, processing=None)):
            at = SAEAtSite(replace(use.sae, about=facts), use.site, partial(use.model.centre, site=use.site))
            found = load_check.check_on_load(use.model, at, use.tokens, tokens)
            texts.append(" ".join(found.warnings))
        ids = use.tokens.ids[: max(1, min(tokens, load_check.TRIED) // use.tokens.ids.shape[1])]
        trials = near_trials(use.model, at, found.metrics.norm)
        used, *tried = remembered(use.model, [at, *(trial.at for trial in trials)], ids, use.tokens.boundary)
    gains: dict[str, float] = {}
    for trial, fit in zip(trials, tried, strict=True):
        name = trial.kind + ("+" if fit.explained_variance >= diagnosis.WELL else "")
        gain = float(used.unexplained.mean() / fit.unexplained.mean())
        gains[name] = max(gain, gains.get(name, 0.0)) if math.isfinite(gain) else gains.get(name, 0.0)
    return Said(texts[0], texts[1], found.metrics.explained_variance, gains | {"slope": used.slope})


def cases(use: Use) -> Iterator[tuple[str, bool, Use]]:
    """Each use of an SAE with its name, and whether it is right."""
    for name, way in RIGHT.items():
        if (other := way(use)) is not None:
            yield name, True, other
    for name, (way, _) in SPOILT.items():
        if (other := way(use)) is not None:
            yield name, False, other


def campaign(model_name: str, tokens_name: str, names: list[str], out: Path, sequences: int) -> None:
    """Check all uses of these SAEs, and write a line for each."""
    loaded = tm.load_model(model_name)
    model = loaded.model.measured_in("centred")
    tokens = loaded.load_tokens(tokens_name, at_most=2 * SEQUENCES)
    done = {(line["sae"], line["kind"]) for line in _lines(out)} if out.exists() else set()
    for name in names:
        sae = tm.load_sae(name)
        assert isinstance(sae, LinearSAE)
        for kind, right, use in cases(Use(sae, model, model.site(str(sae.about.hook_name)), tokens)):
            if (name, kind) in done:
                continue
            found = said(use, sequences * tokens.ids.shape[1])
            with out.open("a") as file:
                file.write(json.dumps({"sae": name, "kind": kind, "right": right, **found._asdict()}) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(lines: list[dict[str, Any]]) -> str:
    """The table of docs/saes.md."""
    rows = [
        "| | SAEs | harmed | warned of | harmed and warned of | cause right | wrong | with published values: warned of "
        "| cause right | wrong |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    right = {line["sae"]: line["explained"] for line in lines if line["kind"] == "as stated"}
    for kind in (*RIGHT, *SPOILT):
        some = [line for line in lines if line["kind"] == kind]
        harmed = [line for line in some if not 1 - line["explained"] <= HARM * (1 - right[line["sae"]])]
        cells = [len(some), len(harmed), _count(some, "bare"), _count(harmed, "bare"), *_named(some, kind, "bare")]
        cells += [_count(some, "stated"), *_named(some, kind, "stated")]
        rows.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _count(lines: list[dict[str, Any]], key: str) -> int:
    return sum(bool(line[key]) for line in lines)


def _named(lines: list[dict[str, Any]], kind: str, key: str) -> tuple[int, int]:
    """How often the check names the cause, and how often it names another."""
    texts = [line[key][line[key].index("ikely cause") - 4 :] for line in lines if "ikely cause" in line[key]]
    words = SPOILT[kind][1] if kind in SPOILT else "$."
    right = [text for text in texts if re.search(words, text)]
    wrong = [text for text in texts if text not in right and "No likely cause" not in text]
    return len(right), len(wrong)


def calibration(lines: list[dict[str, Any]]) -> str:
    """The largest gain of each kind of trial over all SAEs that are used rightly, and which SAE it is of."""
    found: dict[str, tuple[float, str, str]] = {}
    for line in lines:
        for name, gain in line["gains"].items() if line["right"] else ():
            sign = -1 if name == "slope" else 1
            found[name] = max(found.get(name, (-math.inf, "", "")), (sign * gain, line["sae"], line["kind"]))
    return "\n".join(f"{name}: {abs(gain):.3f}, {sae}, {kind}" for name, (gain, sae, kind) in sorted(found.items()))


def main() -> None:
    """Run a campaign, or print the tables of finished ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saes", nargs="*")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tokens", default="nano")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="sequences of a check")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, nargs="+", help="files of campaigns")
    args = parser.parse_args()
    if args.table:
        lines = [line for path in args.table for line in _lines(path)]
        print(table(lines), "\n\n", calibration(lines), sep="")
        return
    if args.out is None:
        parser.error("give --out or --table")
    campaign(args.model, args.tokens, args.saes or [*list_embedded()], args.out, args.sequences)


if __name__ == "__main__":
    main()
