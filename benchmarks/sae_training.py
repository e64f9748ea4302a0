"""SAE training: tokens per second of training a local SAE, with tiltmeter's trainer and with SAELens's.

    python -m benchmarks.sae_training --out sae-training.json

Both train the same SAE on the same tokens in float32, in batches of 32 sequences of 128 tokens. `steps` times training
steps on given activations, `pipeline` the model's forward pass too. The cost depends on how many latents fire, so each
is timed in two states: fresh, where half of the latents fire, and learned. The learning rate is so small that the state
does not change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import tiltmeter as tm
from benchmarks import saelens_trainer
from benchmarks.paired_timing import Clocks, timed
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs import run_directory
from tiltmeter.saes.training import local_gradient, trainer
from tiltmeter.saes.training.config import Training

LENGTH = 128
SEQUENCES = 256
L0 = 50
"""Latents that fire on a token in the simulated learned SAE."""


@dataclass(frozen=True)
class Case:
    """A model and an SAE to be trained on it, fresh or learned."""

    name: str
    task: trainer.Task
    state: trainer.State
    x: Float[Tensor, "sequence position d_site"]
    """The activations of the first batches."""

    def batches(self) -> Iterator[Float[Tensor, "batch position d_site"]]:
        """The activations batch by batch, in an endless cycle."""
        size = self.task.config.batch
        parts = self.x.split(size)
        return (parts[i % len(parts)] for i in count())


def nano(latents: int, learned: bool) -> Case:
    """Model nano, with its embedded SAE at the middle layer (L0 31) or a freshly initialised one."""
    loaded = tm.load_model("nano")
    ids = loaded.load_tokens("nano-train", at_most=SEQUENCES).ids
    case = _case("nano", loaded.model, "resid_pre:3", ids, latents)
    if learned:
        sae = tm.load_sae(str(Path(tm.__file__).parent / "models" / "nano" / "saes" / "local-3-l0-31"))
        _set_weights(case, {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")})
    return case


def wide(latents: int, learned: bool) -> Case:
    """GPT-2 small with random weights, at its middle layer.

    Here `learned` only shifts the encoder's bias, such that about `L0` latents fire on a token.
    """
    torch.manual_seed(0)
    model = SplitModel(GPT2LMHeadModel(GPT2Config()), "gpt2-random")
    case = _case("gpt2-random", model, "resid_pre:6", torch.randint(50_000, (SEQUENCES, LENGTH)), latents)
    if learned:
        with torch.no_grad():
            pre = case.state.dictionary.pre(case.x[:2].flatten(0, 1))
            case.state.dictionary.b_enc.sub_(pre.topk(L0, dim=-1).values[:, -1].mean())
    return case


CASES: dict[str, tuple[Callable[[int, bool], Case], int]] = {"nano": (nano, 2048), "gpt2-random": (wide, 6144)}
"""The cases by name, each with its default number of latents."""


def _case(name: str, model: SplitModel, site: str, ids: Int[Tensor, "sequence position"], latents: int) -> Case:
    settings = {"tokens": 10**12, "learning_rate": 1e-7, "warm_up": 0}
    config = Training(kind="local", site=site, sparsity=2.5, latents=latents, **settings)
    task = trainer.Task(config, model, model.site(site), (), ids, None)
    x = torch.cat([model.activation(some, task.site) for some in ids[: 4 * config.batch].split(config.at_once)])
    return Case(name, task, trainer.begin(task, x.shape[-1]), x)


def _set_weights(case: Case, weights: dict[str, Tensor]) -> None:
    if len(weights["b_enc"]) != case.task.config.latents:
        raise TiltmeterError(f"nano's learned SAE has {len(weights['b_enc'])} latents; leave --latents out.")
    case.state.dictionary.load_state_dict(weights)


def steps(case: Case, pairs: int, block: int) -> Clocks:
    """Seconds per step on given activations."""
    config, state = case.task.config, case.state
    theirs = _their_trainer(case, None)
    mine, others = case.batches(), case.batches()
    return timed(
        lambda: _our_step(config, state, next(mine)),
        lambda: saelens_trainer.step(theirs, next(others).flatten(0, 1)),
        pairs,
        block,
    )


def pipeline(case: Case, pairs: int, block: int) -> Clocks:
    """Seconds per step, including the model's forward pass."""
    task = case.task
    config = _their_config(case)
    store = saelens_trainer.store(task.model, config, task.ids)
    theirs = _their_trainer(case, store)
    return timed(
        lambda: trainer.advance(task, case.state), lambda: saelens_trainer.step(theirs, next(store)), pairs, block
    )


def _our_step(config: Training, state: trainer.State, x: Float[Tensor, "batch position d_site"]) -> None:
    tokens = x[..., 0].numel()
    pieces = (piece.flatten(0, 1) for piece in x.split(config.at_once))
    terms, active = local_gradient.add_gradient(state.dictionary, config.sparsity, pieces, tokens)
    trainer.update(config, state, active, config.learning_rate, tokens)
    state.recent = terms


def _their_config(case: Case) -> Any:
    task = case.task
    made = saelens_trainer.sae(case.state.dictionary, task.config.sparsity)
    return saelens_trainer.runner_config(made, task.site, task.ids, task.config.batch, task.config.learning_rate)


def _their_trainer(case: Case, data: Any) -> Any:
    made = saelens_trainer.sae(case.state.dictionary, case.task.config.sparsity)
    return saelens_trainer.trainer(made, _their_config(case), data)


def agreement(case: Case) -> float:
    """Relative difference of the two trainers' losses on a batch, at the same weights."""
    config, dictionary, x = case.task.config, case.state.dictionary, next(case.batches()).flatten(0, 1)
    terms, _ = local_gradient.add_gradient(dictionary, config.sparsity, [x], len(x))
    expected = saelens_trainer.step(_their_trainer(case, None), x).loss.item()
    return abs(float(trainer.weighted(config, terms)) * x.shape[-1] / expected - 1)


def mean_l0(case: Case) -> float:
    """Mean number of latents that fire on a token."""
    return float((case.state.dictionary.pre(case.x[:4].flatten(0, 1)) > 0).float().sum(-1).mean())


def measure(name: str, latents: int | None, learned: bool, pairs: int, block: int) -> list[dict[str, Any]]:
    """Time `steps` and `pipeline` of one case in one state; one row of the table each."""
    make, default = CASES[name]
    case = make(latents or default, learned)
    loss_difference = agreement(case)
    rows = []
    for what, measurement in (("steps", steps), ("pipeline", pipeline)):
        l0, (seconds, processor) = mean_l0(case), measurement(case, pairs, block)
        tokens = case.task.config.batch * LENGTH
        rows.append(
            {
                "model": name,
                "measured": what,
                "state": "learned" if learned else "fresh",
                "width": case.x.shape[-1],
                "latents": case.task.config.latents,
                "batch_tokens": tokens,
                "l0": [l0, mean_l0(case)],
                "loss_difference": loss_difference,
                "seconds": {"tiltmeter": seconds.ours, "sae_lens": seconds.theirs},
                "tokens_per_second": {
                    "tiltmeter": tokens / sorted(seconds.ours)[pairs // 2],
                    "sae_lens": tokens / sorted(seconds.theirs)[pairs // 2],
                },
                "ratio": seconds.ratio,
                "ratios": seconds.ratios,
                "processor_seconds": {"tiltmeter": processor.ours, "sae_lens": processor.theirs},
                "processor_ratio": processor.ratio,
                "processor_ratios": processor.ratios,
            }
        )
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the printed Markdown table."""
    speed = row["tokens_per_second"]
    return (
        f"| {row['model']} | {row['width']} | {row['latents']} | {row['state']}, L0 {row['l0'][0]:.0f} "
        f"| {row['measured']} | {speed['tiltmeter']:,.0f} | {speed['sae_lens']:,.0f} "
        f"| {row['ratio']:.2f} ({min(row['ratios']):.2f}–{max(row['ratios']):.2f}) "
        f"| {row['processor_ratio']:.2f} ({min(row['processor_ratios']):.2f}–{max(row['processor_ratios']):.2f}) |"
    )


HEAD = (
    "| model | d | latents | state | measured | tiltmeter, tokens/s | SAELens, tokens/s "
    "| ratio (min–max) | of processor time |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CASES, action="append", help="repeat for several; default all")
    parser.add_argument(
        "--state", choices=("fresh", "learned"), action="append", help="repeat for several; default both"
    )
    parser.add_argument("--latents", type=int, help="number of latents, instead of the model's default")
    parser.add_argument("--pairs", type=int, default=7, help="number of pairs of blocks, odd")
    parser.add_argument("--steps", type=int, default=3, help="steps per block")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(HEAD, flush=True)
    for name in args.model or CASES:
        for state in args.state or ("fresh", "learned"):
            found = measure(name, args.latents, state == "learned", args.pairs, args.steps)
            rows += found
            print(*map(line, found), sep="\n", flush=True)
            args.out.write_text(json.dumps({**_record(), "rows": rows}, indent=1))


def _record() -> dict[str, Any]:
    versions = {**run_directory.versions(), "sae_lens": saelens_trainer.library().__version__}
    return {"machine": {**run_directory.machine(), "threads": torch.get_num_threads()}, "versions": versions}


if __name__ == "__main__":
    main()
