"""Training an SAE into a run directory: what is looked up, what is logged, what is left on the disk.

manifest.json             what is trained, on what
sae/                      the SAE in SAELens's format, written when the training is done
log.csv, training.png     what was measured on the way, and a picture of it
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import provenance
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.runs import run_directory
from tiltmeter.runs.progress import progress_bar
from tiltmeter.saes.evaluation import SAEMetrics, evaluate, through
from tiltmeter.saes.formats.four_weights import Facts
from tiltmeter.saes.formats.saelens_export import saelens_files
from tiltmeter.saes.sae import LinearSAE
from tiltmeter.saes.training import trainer
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.plot import draw

CHECKPOINT = "checkpoint"


def train_sae(config: Training, loaded: LoadedModel, tokens: TokenSet, out: str | Path) -> LinearSAE:
    """Train an SAE into the directory `out`, going on where an earlier process of the same training stopped.

    Args:
        config: what is trained.
        loaded: the model; its weights stay as they are.
        tokens: token sequences. The first `config.evaluation` are measured on and never trained on.
        out: the run directory, made if it is not there.

    Returns:
        The SAE, as `tiltmeter.load_sae(out/sae)` gives it.

    Raises:
        TiltmeterError: wrong input; `out` is in use or belongs to another training; the loss is not finite.
    """
    task = make_task(config, loaded, tokens)
    width = loaded.model.activation(task.ids[:1], task.site).shape[-1]
    with run_directory.open_run(out, _identity(task, loaded, tokens), partial(_record, task, loaded, tokens)) as run:
        state = trainer.begin(task, width)
        log = _go_on(run, state)
        sae = _train(task, tokens, run, state, log)
        metadata = _metadata(task, tokens, log[-1])
        for name, data in saelens_files(sae, metadata).items():
            run.write_bytes(f"sae/{name}", data)
    return sae


def make_task(config: Training, loaded: LoadedModel, tokens: TokenSet) -> trainer.Task:
    """Look up every name of a training.

    Raises:
        TiltmeterError: a site that does not exist or that a later one cannot follow; too few sequences or tokens.
    """
    model = loaded.model
    site = model.site(config.site)
    ids = _trained_on(config, tokens)
    if config.tokens < (step := config.batch * ids.shape[1]):
        raise TiltmeterError(
            f"{config.tokens} training tokens were asked for, and one step of {config.batch} sequences takes {step}; "
            "ask for more tokens, or smaller steps (--batch)."
        )
    return trainer.Task(config, model, site, _downstream(config, loaded, site), ids, tokens.boundary)


def _trained_on(config: Training, tokens: TokenSet) -> Int[Tensor, "sequence position"]:
    """Sequences behind those that are measured on; not ones of which the loss would count nothing."""
    kept_apart, others = tokens.ids[: config.evaluation], tokens.ids[config.evaluation :]
    if not bool(allowed(boundary_mask(kept_apart, tokens.boundary), "out").any()):
        raise TiltmeterError(
            f"The first {len(kept_apart)} sequences of {tokens.name}, which are measured on, have none but boundary "
            "positions; give longer sequences, or a larger --evaluation."
        )
    ids = others[allowed(boundary_mask(others, tokens.boundary), config.bos).any(-1)]
    if len(ids) < config.batch:
        raise TiltmeterError(
            f"{tokens.name} gave {len(tokens.ids)} sequences, {len(ids)} of which can be trained on, but training "
            f"needs {config.evaluation + config.batch}: {config.evaluation} to measure on and {config.batch} a step; "
            "give more, or smaller --evaluation and --batch."
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
    """Restore a checkpoint, where there is one; the log so far."""
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
    run.write_bytes("training.png", draw(table))


def _measure(task: trainer.Task, tokens: TokenSet, state: trainer.State) -> SAEMetrics:
    ids, sae = tokens.ids[: task.config.evaluation], _freeze(task, state).to(task.model.device, task.model.hf.dtype)
    return evaluate(task.model, through(sae), ids, tokens.boundary, task.site, task.config.bos)


def _freeze(task: trainer.Task, state: trainer.State) -> LinearSAE:
    config = task.config
    centred = task.model.centred and task.site.kind != "z"
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
            f"The loss is not finite at step {state.step}; take a smaller --learning-rate, or --arithmetic float32."
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
    """What `cfg.json` says besides what SAELens needs; `l0` and the like are of the last measurement."""
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
