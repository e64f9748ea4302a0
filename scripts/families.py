"""Which families of models can be measured, and where: writes docs/models.md.

    OMP_NUM_THREADS=1 python scripts/families.py [--only NAME ...]

Builds a tiny random model of every class that transformers loads as a causal or image-text language model, pushes it
along a random direction at each kind of site, and compares the mean KL with that of plain torch hooks on the full
forward pass in float64 (in float32 where the class knows no other). Each family is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.positions import Positions, parse_positions
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.self_check import check_additive, check_split
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiny_families import LENGTH, NoDecoderError, NotTextError, build, families, tokens

PAGE = Path(__file__).parents[1] / "docs" / "models.md"

LAYER = 1
"""The layer that is pushed."""

SECONDS = 120
"""Longest time that one family may take."""

KINDS = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z")
"""Kinds of site in the table. Others exist in some families only."""

ASKED = ("all", "5")
PRECISIONS: dict[str, type[SplitModel]] = {"float32-difference": ExactModel, "float32": SplitModel}

CLOSE = 0.02
"""Largest relative error of a mean KL that is called right."""


@dataclass
class Result:
    """What was found for one family."""

    family: str
    cells: dict[str, str] = field(default_factory=dict)
    """For each kind of site, what happened."""
    note: str = ""
    """Why there is no cell, or how the layers after the site are run."""


def check(family: str, name: str) -> Result:
    """Build a family and try every cell."""
    try:
        hf = build(family, name)
    except NotTextError as error:
        return Result(family, note=f"not a text-only language model: {error}")
    except NoDecoderError:
        return Result(family, note="not decoder-only")
    except Exception as error:
        return Result(family, note=f"not built: {error}")
    return check_model(family, hf)


def check_model(family: str, hf: Any) -> Result:
    """Try every kind of site of a model at each position in each precision."""
    batch = tokens()
    try:
        models = {precision: made(hf, family) for precision, made in PRECISIONS.items()}
    except TiltmeterError as error:
        return Result(family, note=f"refused: {error}")
    obstacle = models["float32-difference"].obstacle()  # type: ignore[attr-defined]
    whole = _reference_model(hf, batch)
    cells = {}
    for kind in KINDS:
        site, outcomes = Site(LAYER, kind), {}
        for precision, model in models.items():
            for asked in ASKED:
                refused = obstacle if precision == "float32-difference" else None
                outcomes[precision, asked] = "refused" if refused else cell(model, whole, batch, site, asked)
        cells[kind] = _told(outcomes)
    return Result(family, cells, note=_speed(models["float32"]))


def _speed(model: SplitModel) -> str:
    """How runs from layer 1 at one position are made, where that is not the fastest way."""
    try:
        way = model.way(Site(LAYER, "resid_pre"), parse_positions(ASKED[1], LENGTH).span)
    except TiltmeterError:
        return ""
    return {"suffix": "", "layers": "runs all positions", "model": "runs the whole model"}[way]


def cell(model: SplitModel, whole: Any, batch: Tensor, site: Site, asked: str) -> str:
    """Compare one mean KL with that of plain hooks: `right`, `refused`, `WRONG`, or a raw exception's type."""
    positions = parse_positions(asked, LENGTH)
    try:
        clean = model.start(batch, site, (), positions.span)
        check_split(model, clean)
        check_additive(model, batch, site)
        x = positions.span.cut(clean.activation)
        move = 0.3 * x.norm(dim=-1).median() * _direction(x.shape[-1])
        index = torch.tensor(positions.perturbed) - positions.span.first
        change = torch.zeros(1, *x.shape).index_fill(2, index, 1) * move
        late = model.changes(clean, change)
        found = float(compute_readouts(model, clean, late, [Readout("kl")], positions.read)["kl"].mean())
    except TiltmeterError:
        return "refused"
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}"
    expected = reference(whole, model, batch, site, positions, move)
    return "right" if abs(found - expected) <= CLOSE * expected else f"WRONG {found / expected:.2f}x"


def _direction(width: int) -> Tensor:
    direction = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return direction / direction.norm()


@torch.no_grad()
def reference(whole: Any, model: SplitModel, batch: Tensor, site: Site, positions: Positions, move: Tensor) -> float:
    """Mean KL in nats at the read positions, by plain hooks on two full passes."""
    # What is added to the stream after attention may as well be added to what attention writes.
    place = model.tap(Site(site.layer, "attn_out") if site.kind == "resid_mid" else site)
    name = next(name for name, one in model.hf.named_modules() if one is place.module)
    clean = whole(input_ids=batch, use_cache=False).logits
    handle = _push(whole.get_submodule(name), place.side, positions, move)
    try:
        moved = whole(input_ids=batch, use_cache=False).logits
    finally:
        handle.remove()
    p, q = (logits[:, list(positions.read)].double().log_softmax(-1) for logits in (clean, moved))
    return float((p.exp() * (p - q)).sum(-1).mean())


def _push(module: nn.Module, side: str, positions: Positions, move: Tensor) -> Any:
    """Add `move` at the perturbed positions to what enters or leaves a module."""

    def pushed(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, list(positions.perturbed)] += move.to(x)
        return x

    def enter(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (pushed(args[0]), *args[1:]), kwargs
        key = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        return args, kwargs | {key: pushed(kwargs[key])}

    def leave(_: nn.Module, __: tuple, output: Any) -> Any:
        return type(output)((pushed(output[0]), *output[1:])) if type(output) in (tuple, list) else pushed(output)

    if side == "input":
        return module.register_forward_pre_hook(enter, with_kwargs=True)
    return module.register_forward_hook(leave)


def _reference_model(hf: Any, batch: Tensor) -> Any:
    """The model in float64, or in float32 if its class cannot run in float64, or not to a finite end."""
    try:
        whole = copy.deepcopy(hf).double()
        works = bool(torch.isfinite(whole(input_ids=batch, use_cache=False).logits).all())
    except Exception:
        works = False
    return whole if works else copy.deepcopy(hf)


def _told(outcomes: dict[tuple[str, str], str]) -> str:
    """One word for equal outcomes; else each outcome with where it holds."""
    if bad := sorted({f"{what} ({', '.join(at)})" for at, what in outcomes.items() if what[0].isupper()}):
        return "; ".join(bad)
    whole = {what for what in outcomes.values()}
    if len(whole) == 1:
        return whole.pop()
    by_precision = {one: {outcomes[one, asked] for asked in ASKED} for one in PRECISIONS}
    if by_precision == {"float32-difference": {"refused"}, "float32": {"right"}}:
        return "float32"
    return "right: " + ", ".join(" ".join(at) for at, what in outcomes.items() if what == "right")


def in_a_process(work: Callable[[str, str], Result], family: str, name: str) -> Result:
    """Run in a child process; a family that takes too long, or ends the process, is one row of the table too."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)

    def child() -> None:
        its.send(work(family, name))

    process = context.Process(target=child)
    process.start()
    its.close()
    try:
        if mine.poll(SECONDS):
            return mine.recv()
        return Result(family, note=f"not built: took more than {SECONDS} s")
    except EOFError:
        return Result(family, note="not built: the process ended")
    finally:
        process.kill()
        process.join()


def page(results: list[Result]) -> str:
    """docs/models.md: one row per family, grouped by equal result."""
    tried = [one for one in results if one.cells]
    tried.sort(key=lambda one: (_rank(one), tuple(one.cells.values()), one.note, one.family))
    head = f"| family | {' | '.join(KINDS)} | |\n|{'---|' * (len(KINDS) + 2)}\n"
    rows = [row(one) for one in tried]
    rest = [row(one) for one in results if not one.cells]
    return INTRODUCTION.format(count=len(tried), version=transformers.__version__) + (
        head
        + "\n".join(rows)
        + "\n\n## Refused, or not tried\n\n| family | why |\n|---|---|\n"
        + "\n".join(rest)
        + "\n"
    )


def row(result: Result) -> str:
    """One line of a table of docs/models.md."""
    return "| " + " | ".join([result.family, *result.cells.values(), result.note.replace("|", "/")]) + " |"


def _rank(result: Result) -> int:
    """Families that are right everywhere first."""
    return sum({"right": 0, "float32": 1}.get(cell, 20) for cell in result.cells.values())


INTRODUCTION = """# Models

Tiny random models of {count} families (transformers {version}), perturbed along a random direction at layer 1 at all
positions and at one in the middle; the mean KL compared with plain hooks on the full forward pass. Where a family
has several kinds of layers, the four layers hold each kind in turn.
`python scripts/families.py` writes this page.
Other kinds of site are not in the table. `resid_mid` exists where attention comes before the MLP, and the MLP (or the
norm before it) reads the stream with attention's output added; `mlp_post` and `mlp_pre` where the MLP's output is that
of a single matrix, so not in mixtures of experts; `q`, `k`, `v` and single heads where columns were found that act as
such. Other families refuse them. In OPT only `z`, `q`, `k`, `v` and the stream can be measured: its MLP is computed on
all tokens in one list [batch · position, width], in which a token's sequence and position are not known.

- `right`: within 2 % in both precisions of `auto`, at all positions and at one.
- `float32`: right with `--precision float32`, which `auto` falls back to; carried differences are refused.
- `right: PRECISION POSITIONS`: right in these, refused in the others.
- `refused`: a sentence says why; no number is given.
- *runs all positions*: the model's cache cannot hold what earlier positions leave, so perturbed runs begin at
  position 0. *runs the whole model*: its layers cannot be run without those before the site. Slower, but the
  same numbers.

"""


def main() -> None:
    """Try the families and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="print the rows of these families, and write nothing")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    results = []
    for family, name in families().items():
        if only and family not in only:
            continue
        begin = time.perf_counter()
        results.append(in_a_process(check, family, name))
        told = " | ".join(results[-1].cells.values())
        print(f"{family} | {told} | {results[-1].note} | {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    if not only:
        PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
