"""What a sweep's manifest and its curves say of it: what determines its numbers, and facts for readers."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

from tiltmeter.models import provenance
from tiltmeter.models.clean_run import PERTURBED_RUNS
from tiltmeter.models.fingerprint import fingerprint_sha256
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import OF_WIDTH_D_MODEL
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.transcoder_directions import TRANSCODER_DIRECTIONS
from tiltmeter.runs.progress import progress
from tiltmeter.saes.at_site import DictionaryAtSite, RowsAtSite, SAEAtSite, TranscoderAtSite
from tiltmeter.saes.latent_statistics import SAEWithStatistics
from tiltmeter.saes.load_check import LoadCheck, check_on_load
from tiltmeter.saes.transcoder_check import check_transcoder
from tiltmeter.sweeps.cautions import cautions
from tiltmeter.sweeps.plan import Plan

_log = logging.getLogger(__name__)

_checked: dict[tuple[Any, ...], LoadCheck] = {}
"""Cache of load checks: a study uses one SAE in many sweeps, and each check costs forward passes."""


def identity(plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Collect everything that determines the numbers of a run."""
    used: dict[str, RowsAtSite] = {**plan.saes, **plan.dictionaries}
    return provenance.identity(loaded, plan.tokens) | {
        "sweep": plan.sweep.model_dump(mode="json", exclude={"saes"})
        | {"site": plan.site.name, "readouts": [readout.name for readout in plan.readouts]},
        "saes": {label: at.sae.about.sha256 for label, at in used.items()},
        # Stored arrays follow these orders, so the same SAEs in another order are a different run.
        "order": {"directions": [str(name) for name in plan.directions], "saes": list(used)},
        "vectors": {str(name): one.identity for name, one in plan.own.items()},
        "readout_functions": {one.name: one.own.identity for one in plan.readouts if one.own is not None},
    }


def record(plan: Plan, loaded: LoadedModel, purpose: str) -> dict[str, Any]:
    """Collect facts for readers of the manifest that do not affect the numbers."""
    centred = plan.model.centred and plan.site.kind in OF_WIDTH_D_MODEL
    model = fingerprint_sha256(loaded.model) if plan.saes else ""
    return provenance.record(loaded, plan.tokens) | {
        "purpose": purpose,
        "policies": {
            "stream": "centred: x minus its mean over d_model" if centred else "raw",
            "kl": "KL(clean ‖ perturbed), nats, from the difference of logits, of terms that cannot cancel",
            "boundary positions": plan.sweep.bos.model_dump(),
            "massive activations": plan.sweep.massive.model_dump(),
            "perturbed runs": PERTURBED_RUNS[plan.model.way(plan.site, plan.positions.span)],
            "perturbed positions": list(plan.positions.perturbed),
            "read positions": list(plan.positions.read),
        },
        "saes": {label: _sae_record(plan, model, at) for label, at in progress(list(plan.saes.items()), "load check")}
        | {label: _dictionary_record(plan, label, at) for label, at in plan.dictionaries.items()},
    }


def _sae_record(plan: Plan, model: str, at: SAEAtSite) -> dict[str, Any]:
    """Describe an SAE, including its load check on the model of this hash, and log the check's warnings."""
    place = (at.sae.about.sha256, at.site, plan.sweep.stream, model, plan.tokens.sha256())
    if place not in _checked:
        _checked[place] = check_on_load(plan.model, at, plan.tokens)
        for warning in _checked[place].warnings:
            _log.warning("warning: %s", warning)
    return _about(at) | {"load_check": _checked[place].to_json()}


def _dictionary_record(plan: Plan, label: str, at: DictionaryAtSite) -> dict[str, Any]:
    """Describe a dictionary, including the load check of a transcoder whose error is measured; log its warnings."""
    found = _about(at) | {"what": at.what}
    asked = any(name.argument == label and name.kind in TRANSCODER_DIRECTIONS for name in plan.directions)
    if not asked or not isinstance(at, TranscoderAtSite):
        return found
    check = check_transcoder(plan.model, at, plan.tokens)
    for warning in check.warnings:
        _log.warning("warning: %s", warning)
    return found | {"load_check": check.to_json()}


def _about(at: RowsAtSite) -> dict[str, Any]:
    return {name: value for name, value in asdict(at.sae.about).items() if value is not None}


def attributes(
    plan: Plan, statistics: SiteStatistics, saes: dict[str, SAEWithStatistics], manifest: dict[str, Any]
) -> dict[str, str | float]:
    """Collect the provenance stored with the curves. It has no timestamps, so equal runs write equal files."""
    return {
        "model": plan.model.name,
        "site": plan.site.name,
        "tokens": plan.tokens.name,
        "positions": plan.sweep.positions,
        "path_unit": plan.sweep.path.unit,
        "pair_distance": float(statistics.pair_distance),
        "mean_norm": float(statistics.norm),
        "massive": json.dumps(statistics.massive._asdict()),
        "covariance": json.dumps(statistics.spectrum._asdict()),
        "cautions": json.dumps(cautions(plan, statistics)),
        "statistics": f"{statistics.count} activations of width {len(statistics.mean)}; pool of {len(statistics.pool)}",
        "base": plan.sweep.base,
        "saes": json.dumps(
            {label: _sae_attrs(sae, manifest["record"]["saes"][label]) for label, sae in saes.items()}
            | {label: {"kind": None, "latents": at.size} for label, at in plan.dictionaries.items()}
        ),
        "manifest": json.dumps({key: manifest[key] for key in ("identity", "record")}, sort_keys=True),
    }


def _sae_attrs(sae: SAEWithStatistics, recorded: dict[str, Any]) -> dict[str, Any]:
    """Collect an SAE's metrics for figures: from its latent statistics if computed, else from the load check."""
    kind, size, latents = sae.at.sae.about.kind, sae.at.size, sae.counted
    if latents is None:
        figures = recorded["load_check"]["metrics"]
        wanted = ("l0", "explained_variance", "distance", "tokens")
        return {"kind": kind, "latents": size} | {name: figures[name] for name in wanted}
    return {
        "kind": kind,
        "l0": latents.l0,
        "explained_variance": latents.explained_variance,
        "distance": latents.distance,
        "alive": int(latents.alive.sum()),
        "latents": size,
        "tokens": latents.count,
    }
