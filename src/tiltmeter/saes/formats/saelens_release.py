"""SAEs that the `sae_lens` library loads: its releases, and objects of its classes.

SAELens's `encode` stores the norms and shapes that its `decode` then uses, so that calls must come in pairs. Here the
adapter normalises and reshapes from its arguments alone: the library's mathematics, without state.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary, only_saes
from tiltmeter.saes.formats.linear import Facts, check_same_space, fingerprint
from tiltmeter.saes.formats.saelens_config import check_kind, number, read_facts
from tiltmeter.saes.formats.saelens_folder import rows_alone
from tiltmeter.saes.normalisation import NORMALISATIONS, Normalisation
from tiltmeter.saes.sae import About, check_finite

_BRAUN = re.compile(r"gpt2-small-res_s[cl](?P<kind>\w+)-ajt")
_BRAUN_KINDS = {"l": "local", "e": "e2e", "efr": "e2e+ds"}
_FOLDED = "gpt2-small-hook-z-kk"

Tokens = Float[Tensor, "*token d_site"]


@dataclass(frozen=True)
class SAELensSAE:
    """An SAE of the library, used without its state."""

    about: About
    module: Any
    """A `sae_lens.SAE` that neither normalises nor reshapes."""
    normalisation: Normalisation | None

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows: W_dec."""
        return self.module.W_dec

    def encode(self, x: Tokens) -> Float[Tensor, "*token latent"]:
        """Latent activations."""
        x = x.to(self.module.W_enc)
        return self.module.encode(x if self.normalisation is None else self.normalisation.apply(x))

    def decode(self, latents: Float[Tensor, "*token latent"], like: Tokens | None = None) -> Tokens:
        """The reconstruction; with the mean and scale of `like` if the SAE normalises each token.

        Raises:
            TiltmeterError: the SAE normalises each token, and there is no `like`.
        """
        y = self.module.decode(latents.to(self.module.W_dec))
        if self.normalisation is None:
            return y
        if like is None:
            raise TiltmeterError(
                f"{self.about.name} normalises each activation, so that latents alone do not determine the length of a "
                "reconstruction; decode with like=, the activation whose mean and scale to restore."
            )
        return self.normalisation.undo(y, like.to(y))

    def to(self, device: torch.device, dtype: torch.dtype) -> SAELensSAE:
        """A copy of the SAE with its weights on this device and of this type."""
        return replace(self, module=deepcopy(self.module).to(device=device, dtype=dtype))


def load_release(release: str, sae_id: str, name: str) -> SAELensSAE | Dictionary:
    """Load an SAE of a release that SAELens lists, or from a folder of a Hugging Face repository (`owner/repo`).

    Of transcoders and other dictionaries, it is their decoder rows.

    Raises:
        TiltmeterError: no such release or SAE, no network, no `sae_lens`, or an SAE that tiltmeter does not support.
    """
    library = _library(name)
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    release, sae_id = _listed(directory, release, sae_id)
    _check_listed(directory, release, sae_id, name)
    _refuse_summed(directory, release, sae_id, name)
    with _explained(name):
        check_kind(name, load_sae_config_from_huggingface(release, sae_id))  # before downloading gigabytes
        sae, _, _ = library.SAE.from_pretrained_with_cfg_and_sparsity(release, sae_id, device="cpu", dtype="float32")
    entry = directory.get(release)
    overrides = (entry.config_overrides or {}) if entry else {}
    metadata = {**sae.cfg.metadata.to_dict(), **overrides}
    if (rows := rows_alone(name, {**sae.cfg.to_dict(), "metadata": metadata}, sae.state_dict())) is not None:
        return rows
    facts = read_facts(metadata)
    return adapt(sae, name, facts if entry is None else facts | _published(entry, sae_id, facts))


def adapt(sae: Any, name: str, facts: Facts | None = None) -> SAELensSAE:
    """Adapt an SAE of `sae_lens` in memory. The object is modified in place; do not use it afterwards.

    Raises:
        TiltmeterError: tiltmeter does not support it.
    """
    config = sae.cfg.to_dict()
    check_kind(name, config)
    if (rows := rows_alone(name, config, sae.state_dict())) is not None:
        only_saes(rows)
    check_same_space(name, sae.W_enc.shape[0], sae.W_dec.shape[1])
    kind = config["normalize_activations"]
    if kind not in NORMALISATIONS:
        raise TiltmeterError(
            f"{name} was trained on activations scaled by {kind}, and its files do not state the factor; fold it into "
            "the weights with SAELens and save them again."
        )
    sae = sae.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    sae.turn_off_forward_pass_hook_z_reshaping()
    sae.run_time_activation_norm_fn_in = sae.run_time_activation_norm_fn_out = _unchanged
    if config.get("rescale_acts_by_decoder_norm"):  # so that a latent of 1 adds exactly its decoder row
        sae.fold_W_dec_norm()
        sae.cfg.rescale_acts_by_decoder_norm = False
    weights = sae.state_dict()
    check_finite(name, weights)
    settings = {key: config.get(key) for key in ("architecture", "k", "apply_b_dec_to_input", "normalize_activations")}
    facts = read_facts(config["metadata"]) if facts is None else facts
    about = About(name, config["architecture"], fingerprint(weights, settings), **facts)
    return SAELensSAE(about, sae, NORMALISATIONS[kind])


def _unchanged(x: Tensor) -> Tensor:
    return x


def _library(name: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn about each other
            import sae_lens
    except ImportError:
        raise TiltmeterError(
            f"Loading {name} needs the 'sae_lens' package: pip install 'tiltmeter[sae-lens]'."
        ) from None
    return sae_lens


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of the library, the hub and the files into one sentence; silence warnings: `adapt` checks itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TiltmeterError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise TiltmeterError(
            f"SAELens could not load {name}: {type(error).__name__}: {reason[:300]}; check that its files are "
            "an SAE's and, if they are on the hub, the network."
        ) from None


def _listed(directory: Mapping[str, Any], release: str, sae_id: str) -> tuple[str, str]:
    """The listed release of a repository and folder, whose entry says how to read them; else the arguments."""
    for entry in directory.values():
        if entry.repo_id == release:
            for listed, folder in entry.saes_map.items():
                if sae_id in (listed, folder):
                    return entry.release, listed
    return release, sae_id


def _check_listed(directory: Mapping[str, Any], release: str, sae_id: str, name: str) -> None:
    if release in directory:
        if sae_id not in directory[release].saes_map:
            some = _some(sae_id, directory[release].saes_map)
            raise TiltmeterError(f"{name}: the release {release} has no SAE {sae_id!r}; it has {some}.")
    elif "/" not in release:
        raise TiltmeterError(
            f"{name}: SAELens lists no release {release!r}; it has {_some(release, directory)}; or give "
            "OWNER/REPO:FOLDER."
        )


def _refuse_summed(directory: Mapping[str, Any], release: str, sae_id: str, name: str) -> None:
    """Refuse cross-layer transcoders, whose decoders the library adds up over the layers that they write to."""
    entry = directory.get(release)
    if entry is not None and "clt" in f"{entry.conversion_func}/{entry.saes_map[sae_id]}".lower():
        raise TiltmeterError(
            f"{name} is of a cross-layer transcoder, whose decoders SAELens adds up over layers, so that its rows are "
            "directions at no site; download the repository and give its folder."
        )


def _some(wanted: str, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.3) or [*names][:4]
    return ", ".join(near) + (f" and {more} more" if (more := len(names) - len(near)) else "")


def _published(entry: Any, sae_id: str, facts: Facts) -> Facts:
    """The metadata of a listed SAE beyond its configuration.

    Where the list has no value, SAELens returns an L0 of 0 and an explained variance of 1. A negative explained
    variance was not measured where the SAE belongs, and is ignored too.
    """
    l0, explained = number(entry.expected_l0.get(sae_id)), number(entry.expected_var_explained.get(sae_id))
    known = Facts(
        l0=l0 if l0 else None,
        explained_variance=explained if explained is not None and 0 <= explained < 1 else None,
        model=facts.get("model") or entry.model,
    )
    if match := _BRAUN.fullmatch(entry.release):  # TransformerLens's default processing, data without BOS
        return known | Facts(kind=_BRAUN_KINDS.get(match["kind"]), processing="centred", prepend_bos=False)
    return known | Facts(processing="folded") if entry.release == _FOLDED else known
