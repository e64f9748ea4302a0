"""One SAE of nano in every format, swept along its error: the table of docs/saes.md.

    python scripts/sae_formats_sweep.py

The SAE is a ReLU one that does not subtract b_dec from its input. Where a format has another convention or activation,
its weights are written so that the function is the same: b_dec is folded into b_enc, top-k keeps all latents, and
thresholds are tiny. The formats of SAEs that normalise each token have no such SAE, and are left out.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiltmeter as tm
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.saelens_export import saelens_files
from tiltmeter.saes.sae import LinearSAE

NAME, SITE = "nano:local-3-l0-31", "resid_pre:3"
LENGTHS, SEQUENCES = (5.0, 20.0), 4
TINY = 1e-30
HOOK, HOOK_BEFORE = "blocks.3.hook_resid_pre", "blocks.2.hook_resid_post"

Weights = Mapping[str, Tensor]
Write = Callable[[Path, "Source"], str]


@dataclass(frozen=True)
class Source:
    """The SAE that is written."""

    weights: Weights

    @property
    def d(self) -> int:
        """Width of the activations."""
        return len(self.weights["b_dec"])

    @property
    def latents(self) -> int:
        """Number of latents."""
        return len(self.weights["b_enc"])

    @property
    def subtracting(self) -> Weights:
        """The same SAE for formats that subtract b_dec from the input."""
        w = self.weights
        return {**w, "b_enc": w["b_enc"] + w["b_dec"] @ w["W_enc"]}

    @property
    def thresholds(self) -> Tensor:
        """Thresholds that change nothing."""
        return torch.full((self.latents,), TINY)

    def named(self, weights: Weights, names: str) -> dict[str, Tensor]:
        """Weights under other names, of W_enc, b_enc, W_dec, b_dec in turn; matrices of `nn.Linear` are transposed."""
        found = {}
        for theirs, (ours, weight) in zip(names.split(), weights.items(), strict=True):
            across = theirs.endswith(".weight") and ours.startswith("W_")
            found[theirs] = (weight.T if across else weight).contiguous()
        return found


LINEAR = "encoder.weight encoder.bias decoder.weight "


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a configuration."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def saelens(folder: Path, source: Source, kind: str = "standard", dtype: torch.dtype = torch.float32) -> str:
    """SAELens's folder."""
    weights = dict(source.weights)
    more = {"threshold": source.thresholds} if kind == "jumprelu" else {}
    convention = Convention(False, source.latents if kind == "topk" else None)
    files = saelens_files(linear_sae("", weights | more, convention, Facts(hook_name=HOOK)), {}, dtype)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if kind == "gated":
        write_json(folder / "cfg.json", json.loads(files["cfg.json"]) | {"architecture": "gated"})
        bias = weights.pop("b_enc")
        gates = {"b_gate": bias, "b_mag": bias.clone(), "r_mag": torch.zeros_like(bias)}
        save_file(weights | gates, folder / "sae_weights.safetensors")
    return str(folder)


def sparsify(folder: Path, source: Source) -> str:
    """EleutherAI's folder."""
    write_json(folder / "cfg.json", {"d_in": source.d, "num_latents": source.latents, "k": source.latents})
    save_file(source.named(source.subtracting, "encoder.weight encoder.bias W_dec b_dec"), folder / "sae.safetensors")
    return str(folder)


def dictionary_learning(folder: Path, source: Source, kind: str) -> str:
    """dictionary_learning's folder."""
    ours, subtracting = dict(source.weights), dict(source.subtracting)
    pre = subtracting["b_enc"]
    linear = source.named(subtracting, LINEAR + "b_dec")
    buffers = {"k": torch.tensor(source.latents, dtype=torch.int), "threshold": torch.tensor(TINY)}
    gated = {key: linear[key] for key in ("encoder.weight", "decoder.weight")}
    gated |= {"gate_bias": pre, "mag_bias": pre, "r_mag": torch.zeros_like(pre), "decoder_bias": ours["b_dec"]}
    weights = {
        "AutoEncoder": source.named(subtracting, LINEAR + "bias"),
        "AutoEncoderNew": source.named(ours, LINEAR + "decoder.bias"),
        "GatedAutoEncoder": gated,
        "JumpReluAutoEncoder": ours | {"threshold": source.thresholds},
        "AutoEncoderTopK": linear | buffers,
        "BatchTopKSAE": linear | buffers,
        "MatryoshkaBatchTopKSAE": subtracting | buffers | {"group_sizes": torch.tensor([source.latents])},
    }[kind]
    write_json(folder / "config.json", {"trainer": {"dict_class": kind, "layer": 2}})
    torch.save(weights, folder / "ae.pt")
    return str(folder)


def openai(folder: Path, source: Source) -> str:
    """OpenAI's file of version 1."""
    weights = source.named(source.subtracting, "encoder.weight latent_bias decoder.weight pre_bias")
    torch.save(weights | {"activation": "ReLU"}, folder / "3.pt")
    return str(folder / "3.pt")


def gemma_scope(folder: Path, source: Source) -> str:
    """Gemma Scope's folder."""
    np.savez(folder / "params.npz", threshold=source.thresholds, **source.weights)  # type: ignore[arg-type]
    return str(folder)


def gemma_scope_2(folder: Path, source: Source) -> str:
    """Gemma Scope 2's folder."""
    folder = folder / "resid_post" / "layer_2_width_2k"
    write_json(folder / "config.json", {"architecture": "jump_relu"})
    weights = source.named(source.weights, "w_enc b_enc w_dec b_dec") | {"threshold": source.thresholds}
    save_file(weights, folder / "params.safetensors")
    return str(folder)


NORM = 5.0
"""A mean norm by which OpenMOSS's libraries scale activations."""


def openmoss(folder: Path, source: Source, kind: str) -> str:
    """Folders of OpenMOSS; activations are multiplied by a scale, so biases are too."""
    scale, config = math.sqrt(source.d) / NORM, {"d_model": source.d, "d_sae": source.latents, "hook_point_in": HOOK}
    weights = {key: one * scale if key.startswith("b_") else one for key, one in source.weights.items()}
    config |= {"hook_point_out": HOOK, "norm_activation": "dataset-wise"}
    if kind == "Llama Scope":
        norms = {"dataset_average_activation_norm": {"in": NORM, "out": NORM}}
        write_json(folder / "hyperparams.json", config | norms | {"act_fn": "jumprelu", "jump_relu_threshold": TINY})
        (folder / "checkpoints").mkdir()
        save_file(source.named(weights, LINEAR + "decoder.bias"), folder / "checkpoints" / "final.safetensors")
    else:
        write_json(folder / "config.json", config | {"act_fn": "jumprelu"})
        named = source.named(weights, "W_E b_E W_D b_D") | {"log_jumprelu_threshold": source.thresholds.log()}
        named[f"dataset_average_activation_norm.{HOOK}"] = torch.tensor(NORM)
        save_file(named, folder / "sae_weights.safetensors")
    return str(folder)


def braun(folder: Path, source: Source) -> str:
    """Braun et al.'s folder; its decoder has unit columns when it is used."""
    names = "encoder.0.weight encoder.0.bias decoder.weight decoder.bias"
    weights = source.named(source.weights, names)
    torch.save({f"{HOOK.replace('.', '-')}.{key}": one for key, one in weights.items()}, folder / "samples_9.pt")
    return str(folder)


def act_name(folder: Path, source: Source, file: str, beside: str) -> str:
    """Files of Kissane & Krzyzanowski and Nanda, and of Bussmann."""
    write_json(folder / beside, {"act_size": source.d, "dict_size": source.latents, "act_name": HOOK})
    torch.save(dict(source.subtracting), folder / file)
    return str(folder / file)


def published(folder: Path, source: Source, file: str) -> str:
    """Files that are known by their names."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    weights = source.named(source.weights, LINEAR + "decoder.bias")
    if "Qwen" in file:
        weights = {key: one.T.contiguous() if one.ndim == 2 else one for key, one in source.weights.items()}
    if "Llama-3.1" in file:
        names = "encoder_linear.weight encoder_linear.bias decoder_linear.weight decoder_linear.bias"
        weights = source.named(source.weights, names)
    torch.save(weights, folder / file)
    return str(folder / file)


def bare(folder: Path, source: Source, suffix: str) -> str:
    """Weights alone."""
    file, weights = folder / f"sae.{suffix}", dict(source.weights)
    save = {"pt": torch.save, "safetensors": save_file, "npz": lambda found, path: np.savez(path, **found)}[suffix]
    save(weights, file)
    return f"{file}?activation=relu&apply_b_dec_to_input=false"


FORMATS: Mapping[str, Write] = {
    "SAELens, standard": saelens,
    **{f"SAELens, {kind}": partial(saelens, kind=kind) for kind in ("topk", "jumprelu", "gated")},
    "SAELens, standard, bfloat16": partial(saelens, dtype=torch.bfloat16),
    "sparsify": sparsify,
    **{
        f"dictionary_learning, {kind}": partial(dictionary_learning, kind=kind)
        for kind in (
            "AutoEncoder",
            "AutoEncoderNew",
            "GatedAutoEncoder",
            "JumpReluAutoEncoder",
            "AutoEncoderTopK",
            "BatchTopKSAE",
            "MatryoshkaBatchTopKSAE",
        )
    },
    "OpenAI, version 1": openai,
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
    **{kind: partial(openmoss, kind=kind) for kind in ("Llama Scope", "llamascopium")},
    "Braun et al.": braun,
    "Kissane & Krzyzanowski": partial(act_name, file="run.pt", beside="run_cfg.json"),
    "Bussmann": partial(act_name, file="sae.pt", beside="config.json"),
    "Goodfire": partial(published, file="Llama-3.1-8B-Instruct-SAE-l19.pth"),
    "DeepSeek-R1": partial(published, file="DeepSeek-R1-Distill-Llama-8B-SAE-l2.pt"),
    "Qwen-Scope": partial(published, file="SAE-Res-Qwen3-W2K-L0_2048/layer2.sae.pt"),
    **{f"weights alone, {suffix}": partial(bare, suffix=suffix) for suffix in ("safetensors", "npz", "pt")},
}


class Module(torch.nn.Module):
    """The SAE as a module of torch."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def __init__(self, source: Source) -> None:
        super().__init__()
        for name, weight in source.weights.items():
            self.register_parameter(name, torch.nn.Parameter(weight.clone()))

    def encode(self, x: Tensor) -> Tensor:
        """Latents."""
        return (x @ self.W_enc + self.b_enc).relu()

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstructions."""
        return latents @ self.W_dec + self.b_dec


def everything(source: Source) -> Iterator[tuple[str, Any]]:
    """The SAE in every format, loaded, and as objects."""
    for name, write in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            sae = tm.load_sae(write(Path(folder), source))
        # Formats state the models that their publishers used, and in which stream.
        yield name, replace(sae, about=replace(sae.about, model=None, processing=None, hook_name=HOOK))  # type: ignore[type-var]
    yield "a module, rebuilt from its weights", tm.wrap_sae(Module(source), apply_b_dec_to_input=False)
    yield "a module, its own functions", tm.wrap_sae(Module(source), version="1")


def measure(loaded: tm.LoadedModel, tokens: tm.TokenSet, sae: Any) -> np.ndarray:
    """KL along the SAE's error, [length, sequence]."""
    sweep = tm.Sweep(
        site=SITE,
        saes={"sae": sae},
        directions=("sae-error",),
        path=tm.Straight(lengths=LENGTHS),
        sequences=SEQUENCES,
        statistics_sequences=SEQUENCES,
    )
    with tempfile.TemporaryDirectory() as out:
        return tm.run_sweep(sweep, loaded, tokens, Path(out) / "run").kl.values[0]


def main() -> None:
    """Print the table."""
    loaded = tm.load_model("nano")
    tokens = loaded.load_tokens("nano", at_most=SEQUENCES)
    original = tm.load_sae(NAME)
    assert isinstance(original, LinearSAE)
    source = Source({key: getattr(original, key) for key in ("W_enc", "b_enc", "W_dec", "b_dec")})
    expected = measure(loaded, tokens, NAME)
    print(f"| format | KL at {LENGTHS[0]:g} | KL at {LENGTHS[1]:g} | largest relative difference |\n|---|---|---|---|")
    rows = ((name, measure(loaded, tokens, sae)) for name, sae in everything(source))
    for name, found in [(NAME, expected), *rows]:
        apart = np.abs(found / expected - 1).max()
        low, high = found.mean(1)
        print(f"| {name} | {low:.6f} | {high:.6f} | {apart:.1e} |".replace("0.0e+00", "0"), flush=True)


if __name__ == "__main__":
    main()
