"""Train an SAE into a run directory.

manifest.json             configuration, model and tokens
sae/                      the SAE in SAELens's format, written when training is done
log.csv, training.png     metrics during training, and a plot of them
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from tiltmeter.analysis.massive import count_massive, norms_of
from tiltmeter.data.token_set import TokenSet, TokensGiven
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import provenance
from tiltmeter.models.behaviour import check_behaviour
from tiltmeter.models.loading import LoadedModel, ModelGiven, load_model, tokens_for
from tiltmeter.models.positions import allowed, boundary_mask
from tiltmeter.models.sites import OF_WIDTH_D_MODEL, Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs import run_directory
from tiltmeter.runs.extras import is_installed
from tiltmeter.runs.progress import progress_bar
from tiltmeter.saes.evaluation import SAEMetrics, evaluate, keeping_massive, through
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.formats.saelens_export import saelens_files
from tiltmeter.saes.sae import LinearSAE
from tiltmeter.saes.training import trainer
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.plot import draw

MEDIAN_SEQUENCES = 64
"""Sequences by which the median norm at the site is known."""

CHECKPOINT = "checkpoint"

TRIED_STEPS = 3
"""Steps by which the time of a training is estimated."""


def train_sae(config: Training, model: ModelGiven, tokens: TokensGiven, out: str | Path) -> LinearSAE:
    """Train an SAE into the directory `out`, resuming from its last checkpoint if there is one.

    Args:
        config: configuration of the training.
        model: the model: what `load_model` returns or takes. Its weights are not changed.
        tokens: token sequences: a `TokenSet`, or what `load_tokens` takes. The first `config.evaluation` are held out
            for evaluation.
        out: the run directory, created if it does not exist.

    Returns:
        The SAE, as `tiltmeter.load_sae(out/sae)` returns it.

    Raises:
        TiltmeterError: invalid input; `out` is in use or belongs to another training; the loss is not finite.
    """
    loaded = load_model(model)
    tokens = tokens_for(loaded, tokens, config.sequences_to_load())
    task = make_task(config, loaded, tokens)
    width = loaded.model.activation(task.ids[:1], task.site).shape[-1]
    with run_directory.open_run(out, _identity(task, loaded, tokens), partial(_record, task, loaded, tokens)) as run:
        check_behaviour(run, loaded.model, tokens.ids[:2])
        state = trainer.begin(task, width)
        log = _go_on(run, state)
        sae = _train(task, tokens, run, state, log)
        metadata = _metadata(task, tokens, log[-1])
        for name, data in saelens_files(sae, metadata).items():
            run.write_bytes(f"sae/{name}", data)
    return sae


def try_training(config: Training, loaded: LoadedModel, tokens: TokenSet) -> float:
    """The seconds that a training takes, from a few of its steps and one evaluation. Nothing is stored.

    Raises:
        TiltmeterError: as `train_sae`, as far as that is seen before it trains.
    """
    task = make_task(config, loaded, tokens)
    state = trainer.begin(task, loaded.model.activation(task.ids[:1], task.site).shape[-1])
    trainer.advance(task, state)  # the first step is slower than the others
    began = time.monotonic()
    for _ in range(TRIED_STEPS):
        trainer.advance(task, state)
    step = (time.monotonic() - began) / TRIED_STEPS
    began = time.monotonic()
    _measure(task, tokens, state)
    return task.steps * step + -(-task.steps // config.every) * (time.monotonic() - began)


def make_task(config: Training, loaded: LoadedModel, tokens: TokenSet) -> trainer.Task:
    """Resolve the site names of a training, and check that there are enough tokens.

    Raises:
        TiltmeterError: a site does not exist; a downstream site does not lie after the SAE's; too few sequences or
            tokens.
    """
    model = loaded.model
    site = model.site(config.site)
    ids = _trained_on(config, tokens)
    if config.tokens < (step := config.batch * ids.shape[1]):
        raise TiltmeterError(
            f"{config.tokens} training tokens were requested, but one step of {config.batch} sequences uses {step}; "
            "request more tokens, or a smaller --batch."
        )
    above = _massive_above(config, model, site, ids, tokens.boundary)
    return trainer.Task(config, model, site, _downstream(config, loaded, site), ids, tokens.boundary, above)


def _massive_above(
    config: Training, model: SplitModel, site: Site, ids: Int[Tensor, "sequence position"], boundary: int | None
) -> float:
    """Return the norm above which activations are massive, by the first sequences; infinite if they are trained on."""
    if config.massive == "in":
        return math.inf
    ids = ids[:MEDIAN_SEQUENCES]
    norms = torch.cat([norms_of(model.activation(some, site)) for some in ids.split(config.at_once)])
    counted = allowed(boundary_mask(ids, boundary), "out")
    return count_massive(norms, counted if bool(counted.any()) else ~counted, config.massive_ratio).limit


def _trained_on(config: Training, tokens: TokenSet) -> Int[Tensor, "sequence position"]:
    """Return the sequences that are not held out, without those in which the loss would count no token."""
    kept_apart, others = tokens.ids[: config.evaluation], tokens.ids[config.evaluation :]
    if not bool(allowed(boundary_mask(kept_apart, tokens.boundary), "out").any()):
        raise TiltmeterError(
            f"The first {len(kept_apart)} sequences of {tokens.name}, which are held out for evaluation, contain "
            "only boundary positions; give longer sequences, or a larger --evaluation."
        )
    ids = others[allowed(boundary_mask(others, tokens.boundary), config.bos).any(-1)]
    if len(ids) < config.batch:
        raise TiltmeterError(
            f"{tokens.name} gave {len(tokens.ids)} sequences, {len(ids)} of which can be trained on, but training "
            f"needs {config.evaluation + config.batch}: {config.evaluation} for evaluation, {config.batch} per step; "
            "give more sequences, or a smaller --evaluation or --batch."
        )
    return ids


def _downstream(config: Training, loaded: LoadedModel, site: Site) -> tuple[Site, ...]:
    if config.kind != "e2e+ds":
        return ()
    model = loaded.model
    later = [Site(layer, "resid_pre") for layer in range(site.boundary + 1, model.n_layers)]
    found = [model.site(name) for name in config.downstream] or later
    if not found:
        raise TiltmeterError(
            f"e2e+ds needs a later site to match, and {site.name} is in the last layer of {model.name}; choose an "
            "earlier layer or the kind e2e."
        )
    if len(set(found)) < len(found):
        raise TiltmeterError("A downstream site is named twice; name each once.")
    for read in found:
        if not read.is_visible_from(site) or read == site:
            raise TiltmeterError(f"{read.name} does not lie after {site.name}; choose later downstream sites.")
    return tuple(found)


def _go_on(run: run_directory.Run, state: trainer.State) -> list[dict[str, float]]:
    """Restore the last checkpoint, if there is one, and return the log up to it."""
    arrays = run.load(CHECKPOINT)
    if arrays is None:
        return []
    log = pd.DataFrame({name.removeprefix("log."): v for name, v in arrays.items() if name.startswith("log.")})
    trainer.restore(state, {name: value for name, value in arrays.items() if not name.startswith("log.")})
    return [{str(key): float(value) for key, value in row.items()} for row in log.to_dict("records")]


def _train(
    task: trainer.Task, tokens: TokenSet, run: run_directory.Run, state: trainer.State, log: list[dict[str, float]]
) -> LinearSAE:
    config = task.config
    began = time.monotonic() - (log[-1]["seconds"] if log else 0.0)
    with progress_bar(task.steps, state.step, config.kind) as bar:
        while state.step < task.steps:
            trainer.advance(task, state)
            bar.update()
            if state.step % config.every and state.step < task.steps:
                continue
            _check_finite(state)
            metrics = _measure(task, tokens, state)
            log.append(_entry(task, state, metrics, time.monotonic() - began))
            bar.set_postfix_str(_said(metrics))
            _keep(run, state, log)
    return _freeze(task, state)


def _keep(run: run_directory.Run, state: trainer.State, log: list[dict[str, float]]) -> None:
    table = pd.DataFrame(log)
    columns = {f"log.{name}": table[name].to_numpy() for name in table}
    run.save(CHECKPOINT, trainer.to_arrays(state) | columns)
    run.write_text("log.csv", table.to_csv(index=False))
    if is_installed("matplotlib"):
        run.write_bytes("training.png", draw(table))


def _measure(task: trainer.Task, tokens: TokenSet, state: trainer.State) -> SAEMetrics:
    ids, sae = tokens.ids[: task.config.evaluation], _freeze(task, state).to(task.model.device, task.model.hf.dtype)
    return evaluate(
        task.model,
        keeping_massive(through(sae), task.massive_above),
        ids,
        tokens.boundary,
        task.site,
        task.config.bos,
        massive_above=task.massive_above,
    )


def _freeze(task: trainer.Task, state: trainer.State) -> LinearSAE:
    config = task.config
    centred = task.model.centred and task.site.kind in OF_WIDTH_D_MODEL
    facts = Facts(
        kind=config.kind,
        hook_name=task.site.name,
        model=task.model.name,
        processing="centred" if centred else "raw",
        prepend_bos=task.boundary is not None and bool((task.ids[:, 0] == task.boundary).all()),
    )
    return state.dictionary.frozen(f"{config.kind}-{config.sparsity:g}", facts)


def _check_finite(state: trainer.State) -> None:
    weights = [float(value.detach().abs().sum()) for value in state.dictionary.parameters()]
    if not all(map(math.isfinite, [*map(float, state.recent.values()), *weights])):
        raise TiltmeterError(
            f"The loss is not finite at step {state.step}; use a smaller --learning-rate, or --arithmetic float32."
        )


def _entry(task: trainer.Task, state: trainer.State, metrics: SAEMetrics, seconds: float) -> dict[str, float]:
    done = state.step * task.config.batch * task.ids.shape[1]
    terms = {f"term_{name}": float(value) for name, value in state.recent.items()}
    measured = {name: float(value) for name, value in asdict(metrics).items() if name != "tokens"}
    return {"step": float(state.step), "tokens": float(done), "seconds": seconds, **measured, **terms}


def _said(metrics: SAEMetrics) -> str:
    return (
        f"L0 {metrics.l0:.1f}, explained {metrics.explained_variance:.3f}, "
        f"CE +{metrics.loss_increase:.3f}, alive {metrics.alive}"
    )


def _identity(task: trainer.Task, loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    training = task.config.model_dump(mode="json") | {"site": task.site.name}
    return provenance.identity(loaded, tokens) | {"training": training}


def _record(task: trainer.Task, loaded: LoadedModel, tokens: TokenSet) -> dict[str, Any]:
    downstream = [site.name for site in task.downstream]
    return provenance.record(loaded, tokens) | {"purpose": "train-sae", "downstream": downstream}


def _metadata(task: trainer.Task, tokens: TokenSet, last: dict[str, float]) -> dict[str, Any]:
    """Entries of `cfg.json` beyond those SAELens needs. Metrics such as `l0` are from the last evaluation."""
    return {
        "context_size": tokens.ids.shape[1],
        "training_tokens": task.steps * task.config.batch * tokens.ids.shape[1],
        "dataset_path": tokens.name,
        "kind": task.config.kind,
        "sparsity": task.config.sparsity,
        "l0": last["l0"],
        "explained_variance": last["explained_variance"],
        "ce_increase": last["loss"] - last["clean_loss"],
        "alive": int(last["alive"]),
    }
