"""Loading SAEs: embedded ones, folders, files, and releases of SAELens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.formats import saelens_folder
from tiltmeter.saes.formats.braun2024 import final_file, load_braun
from tiltmeter.saes.formats.four_weights import load_weights_file
from tiltmeter.saes.formats.saelens_config import metadata_of
from tiltmeter.saes.sae import SAE

EMBEDDED_SAES: Mapping[str, Path] = {"nano": Path(__file__).parent.parent / "models" / "nano" / "saes"}
"""Folders of the SAEs that ship with tiltmeter, by model; each subfolder is one SAE."""

KINDS = (
    "a folder of SAELens, a folder or .pt file of Braun et al., a .safetensors file with W_enc, b_enc, W_dec, b_dec, "
    "RELEASE:SAE_ID or OWNER/REPO:FOLDER"
)

_RELEASE = re.compile(r"(?P<release>\w[\w.-]*(/\w[\w.-]*)?):(?P<sae>.+)")


def load_sae(name: str | Path) -> SAE:
    """Load a sparse autoencoder, in float32.

    | name | SAE |
    |---|---|
    | `nano:NAME` | one that ships with tiltmeter: see `list_embedded` |
    | a folder | `cfg.json` and `sae_weights.safetensors`, as SAELens saves them |
    | a run directory | of `tiltmeter train-sae` |
    | a folder or `.pt` file | `final_config.yaml` and `samples_N.pt` (largest N) of Braun et al. |
    | a `.safetensors` file | W_enc, b_enc, W_dec, b_dec: `tiltmeter.saes.formats.four_weights.load_weights_file` |
    | `gpt2-small-res-jb:blocks.6.hook_resid_pre` | a release that SAELens lists, and an SAE in it |
    | `OWNER/REPO:FOLDER` | a folder of a Hugging Face repository |

    If a `.pt` file holds SAEs at several hook points, append one: `FILE#blocks.6.hook_resid_pre`. Releases, and
    folders of gated SAEs or of ones that normalise activations, need the `sae_lens` package.

    Raises:
        TiltmeterError: there is no such SAE, it cannot be read, or tiltmeter does not support its architecture.
    """
    name = str(name)
    model, colon, short = name.partition(":")
    if colon and model in EMBEDDED_SAES:
        return saelens_folder.load_folder(_embedded(model, short), name)
    path, chosen = _split(name)
    if path.is_dir():
        return _load_folder(path, name, chosen)
    if path.is_file():
        return _load_file(path, name, chosen)
    if match := _RELEASE.fullmatch(name):
        from tiltmeter.saes.formats.saelens_release import load_release

        return load_release(match["release"], match["sae"], name)
    raise _unknown(name)


def refuse_unknown(name: str) -> None:
    """Check that a name can be an SAE's, without loading anything. A pattern (`nano:e2e-*`) is not resolved.

    Raises:
        TiltmeterError: it is neither an embedded SAE, nor an existing file or folder, nor a release.
    """
    model, colon, short = name.partition(":")
    if colon and model in EMBEDDED_SAES:
        if "*" not in short:
            _embedded(model, short)
    elif not _split(name)[0].exists() and not _RELEASE.fullmatch(name):
        raise _unknown(name)


def list_embedded() -> dict[str, dict[str, Any]]:
    """The SAEs that ship with tiltmeter: the name that loads each, to the metadata in its `cfg.json`."""
    found = {
        f"{model}:{folder.name}": dict(metadata_of(saelens_folder.read_config(folder)))
        for model, root in EMBEDDED_SAES.items()
        for folder in (sorted(root.iterdir()) if root.is_dir() else [])
        if (folder / saelens_folder.CONFIG).is_file()
    }
    return dict(sorted(found.items(), key=lambda one: (one[0].partition("-l0-")[0], one[1].get("l0") or 0.0)))


def _embedded(model: str, short: str) -> Path:
    if f"{model}:{short}" not in list_embedded():
        raise TiltmeterError(f"There is no embedded SAE {model}:{short}; embedded are {_names()}.")
    return EMBEDDED_SAES[model] / short


def _unknown(name: str) -> TiltmeterError:
    return TiltmeterError(f"There is no SAE {name!r}: expected {KINDS}; embedded are {_names()}.")


def _names() -> str:
    return ", ".join(list_embedded()) or "none"


def _split(name: str) -> tuple[Path, str]:
    """Split PATH#HOOK_POINT. A file whose own name contains a # is that file."""
    if not name.strip():  # as a path it would be the current folder
        raise _unknown(name)
    if (path := user_path(name)).exists():
        return path, ""
    file, _, chosen = name.partition("#")
    return user_path(file), chosen


def _load_folder(path: Path, name: str, chosen: str) -> SAE:
    if (path / saelens_folder.CONFIG).is_file():
        _refuse_choice(name, chosen)
        return saelens_folder.load_folder(path, name)
    if (path / "sae" / saelens_folder.CONFIG).is_file():
        return _load_folder(path / "sae", name, chosen)
    if final_file(path) is not None:
        return load_braun(path, name, chosen)
    model = " and is a language model's" if (path / "config.json").is_file() else ""
    raise TiltmeterError(
        f"The folder {name} is not an SAE: it has neither {saelens_folder.CONFIG} nor samples_N.pt{model}; expected "
        f"{KINDS}."
    )


def _load_file(path: Path, name: str, chosen: str) -> SAE:
    if path.suffix == ".pt":
        return load_braun(path, name, chosen)
    _refuse_choice(name, chosen)
    if path.name in (saelens_folder.FILE, saelens_folder.CONFIG) and (path.parent / saelens_folder.CONFIG).is_file():
        return saelens_folder.load_folder(path.parent, name)  # the config beside it says how the weights are used
    if path.suffix == ".safetensors":
        return load_weights_file(path, name)
    raise TiltmeterError(f"The file {name} is not an SAE: expected {KINDS}.")


def _refuse_choice(name: str, chosen: str) -> None:
    if chosen:
        raise TiltmeterError(f"{name} has one SAE, but {chosen!r} was asked for; leave out the # and what follows.")
