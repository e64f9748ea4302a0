"""Folders of dictionary_learning (Marks, Karvonen & Mueller): `ae.pt` and a `config.json` with the class's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import Choice, crosscoder, is_crosscoder, refuse_choice
from tiltmeter.saes.formats.hook_names import transformer_lens_name
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.names import canonical, scheme_of
from tiltmeter.saes.formats.tensors import read_json, read_tensors
from tiltmeter.saes.sae import LinearSAE

CONFIG, FILE = "config.json", "ae.pt"


class Class(NamedTuple):
    """What a class of the library does with its weights."""

    subtracts: bool
    """Whether the decoder's bias is subtracted from the input."""
    activation: str = "relu"
    """`relu`, `topk`, `threshold` or `gated`."""


CLASSES: Mapping[str, Class] = {
    "AutoEncoder": Class(True),
    "AutoEncoderNew": Class(False),
    "GatedAutoEncoder": Class(True, "gated"),
    "JumpReluAutoEncoder": Class(False, "threshold"),
    "AutoEncoderTopK": Class(True, "topk"),
    "BatchTopKSAE": Class(True, "threshold"),
    "MatryoshkaBatchTopKSAE": Class(True, "threshold"),
}
"""Batch-top-k SAEs use a threshold once they are trained."""


def is_dictionary_learning(folder: Path) -> bool:
    """Whether a folder is one of dictionary_learning's."""
    return (folder / CONFIG).is_file() and (folder / FILE).is_file()


def load_dictionary_learning(folder: Path, name: str, choice: Choice) -> LinearSAE | Dictionary:
    """Load the SAE of a folder, or the decoder rows of one layer or model of a crosscoder.

    Raises:
        TiltmeterError: its class is another than `CLASSES` or a crosscoder, its threshold was not set in training, or
            it is damaged.
    """
    trainer = read_json(folder / CONFIG, name).get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    tensors = read_tensors(folder / FILE, name).tensors
    if is_crosscoder(tensors):
        return crosscoder(name, tensors, choice, _facts(trainer))
    refuse_choice(name, choice)
    kind = CLASSES.get(str(trainer.get("dict_class")))
    if kind is None:
        raise TiltmeterError(
            f"{CONFIG} of {name} gives the class {trainer.get('dict_class')!r}; tiltmeter reads {', '.join(CLASSES)}."
        )
    scheme = scheme_of(name, tensors)
    weights = canonical(name, tensors, scheme)
    weights.pop("threshold", None)
    if kind.activation == "threshold":
        weights["threshold"] = _threshold(name, tensors)
    k = _k(name, tensors, trainer) if kind.activation == "topk" else None
    return linear_sae(name, weights, Convention(kind.subtracts, k), _facts(trainer))


def _threshold(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    found = tensors.get("threshold")
    if found is None or (found.ndim == 0 and bool(found < 0)):  # a JumpReLU SAE has one for each latent, of any sign
        raise TiltmeterError(
            f"{name} has no threshold, which batch-top-k SAEs get late in their training: its latents would depend on "
            "the batch; give an SAE that was trained to the end."
        )
    return found


def _k(name: str, tensors: Mapping[str, Tensor], trainer: Mapping[str, Any]) -> int:
    k = int(tensors["k"]) if "k" in tensors else trainer.get("k")
    if not isinstance(k, int):
        raise TiltmeterError(f"{name} is a top-k SAE, and neither {FILE} nor {CONFIG} has its k.")
    return k


def _facts(trainer: Mapping[str, Any]) -> Facts:
    hook = trainer.get("submodule_name")
    if not isinstance(hook, str) or transformer_lens_name(hook) == hook:
        hook = f"resid_post_layer_{trainer['layer']}" if isinstance(trainer.get("layer"), int) else None
    model = trainer.get("lm_name")
    return Facts(
        hook_name=transformer_lens_name(hook) if hook else None,
        model=model if isinstance(model, str) else None,
        processing="raw",
    )
