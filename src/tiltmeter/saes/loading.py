"""Loading SAEs and other dictionaries: embedded ones, folders, files, and releases of SAELens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.dictionary import Dictionary, Loaded, only_saes
from tiltmeter.saes.formats import act_name, circuit_tracer, gemma_scope, lm_saes, saelens_folder
from tiltmeter.saes.formats.bare import load_bare, load_bare_crosscoder
from tiltmeter.saes.formats.braun2024 import final_file, is_braun, load_braun
from tiltmeter.saes.formats.decoders import Choice, is_crosscoder, refuse_choice
from tiltmeter.saes.formats.dictionary_learning import is_dictionary_learning, load_dictionary_learning
from tiltmeter.saes.formats.options import Options, refuse_options, split_options
from tiltmeter.saes.formats.saelens_config import metadata_of
from tiltmeter.saes.formats.sparsify import is_sparsify, load_sparsify
from tiltmeter.saes.formats.tensors import SUFFIXES, TORCH, read_tensors
from tiltmeter.saes.sae import SAE

EMBEDDED_SAES: Mapping[str, Path] = {"nano": Path(__file__).parent.parent / "models" / "nano" / "saes"}
"""Folders of the SAEs that ship with tiltmeter, by model; each subfolder is one SAE."""

KINDS = (
    "a folder or file of SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope, OpenAI or Braun et al., a "
    "file of weights, RELEASE:SAE_ID or OWNER/REPO:FOLDER (docs/saes.md)"
)

OF_FOLDERS = frozenset(
    {saelens_folder.FILE, saelens_folder.CONFIG, "sae.safetensors", "ae.pt", "sae.pt", *gemma_scope.FILES}
)
"""Files whose folder may say how they are used."""

READ_EARLY = 2**29
"""Bytes: SAEs below this size are read in about a second."""

_RELEASE = re.compile(r"(?P<release>\w[\w.-]*(/\w[\w.-]*)?):(?P<sae>.+)")


def load_sae(name: str | Path) -> SAE:
    """Load a sparse autoencoder, in float32.

    | name | SAE |
    |---|---|
    | `nano:NAME` | one that ships with tiltmeter: see `list_embedded` |
    | a folder | of SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope, Braun et al. and others |
    | a run directory | of `tiltmeter train-sae` |
    | a `.safetensors`, `.pt` or `.npz` file | of the same, or with weights alone: `tiltmeter.saes.formats.bare` |
    | `gpt2-small-res-jb:blocks.6.hook_resid_pre` | a release that SAELens lists, and an SAE in it |
    | `OWNER/REPO:FOLDER` | a folder of a Hugging Face repository |

    What a file of weights alone does not say follows a question mark: `FILE?activation=relu&apply_b_dec_to_input=true`.
    If a `.pt` file holds SAEs at several hook points, or a folder one a layer, append one:
    `FILE#blocks.6.hook_resid_pre`, `FOLDER#layers.6`. Releases need the `sae_lens` package.

    Raises:
        TiltmeterError: there is no such SAE, it cannot be read, or tiltmeter does not support its architecture; it is
            a dictionary of which only the decoder rows are used.
    """
    return only_saes(load_any(str(name)))


def load_dictionary(name: str | Path, site: str = "") -> Dictionary:
    """Load the decoder rows of a transcoder, a crosscoder or another dictionary that is no SAE, in float32.

    Args:
        name: as in `load_sae`. `NAME#5` or `NAME#blocks.5.hook_mlp_out` is the layer that is written to, where there
            are several; the number of a layer or model where a crosscoder's files do not name them.
        site: which of several it is, if the name does not say.

    Raises:
        TiltmeterError: there is none, it cannot be read, or is an SAE; it writes to several sites, and which is wanted
            is not known.
    """
    loaded = load_any(str(name), site)
    if not isinstance(loaded, Dictionary):
        raise TiltmeterError(f"{name} is an SAE; use tiltmeter.load_sae, whose result has a decoder, too.")
    return loaded


def load_any(name: str, site: str = "") -> Loaded:
    """Load an SAE or another dictionary: `load_sae` and `load_dictionary` in one.

    Raises:
        TiltmeterError: as they.
    """
    plain, options = split_options(name)
    model, colon, short = plain.partition(":")
    if colon and model in EMBEDDED_SAES:
        refuse_options(name, options)
        return saelens_folder.load_folder(_embedded(model, short), name)
    path, said = _split(plain)
    choice = Choice(said, site)
    if path.is_dir():
        return _load_folder(path, name, choice, options)
    if path.is_file():
        return _load_file(path, name, choice, options)
    if match := _RELEASE.fullmatch(plain):
        from tiltmeter.saes.formats.saelens_release import load_release

        refuse_options(name, options)
        return load_release(match["release"], match["sae"], name)
    raise _unknown(name)


def refuse_unknown(name: str) -> None:
    """Check that a name can be an SAE's, without loading anything. A pattern (`nano:e2e-*`) is not resolved.

    Raises:
        TiltmeterError: it is neither an embedded SAE, nor an existing file or folder, nor a release.
    """
    name = split_options(name).name
    model, colon, short = name.partition(":")
    if colon and model in EMBEDDED_SAES:
        if "*" not in short:
            _embedded(model, short)
    elif not _split(name)[0].exists() and not _RELEASE.fullmatch(name):
        raise _unknown(name)


def read_early(name: str, site: str) -> None:
    """Read an SAE that lies on this machine and is not huge, so that a wrong one is refused before a model is loaded.

    Raises:
        TiltmeterError: as `load_any`.
    """
    path = _split(split_options(name).name)[0]
    files = path.rglob("*") if path.is_dir() else [path]
    if path.exists() and sum(file.stat().st_size for file in files if file.is_file()) < READ_EARLY:
        load_any(name, site)


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


def _load_folder(path: Path, name: str, choice: Choice, options: Options) -> Loaded:
    if choice.said and (path / choice.said).is_dir():  # a run with one SAE a layer
        return _load_folder(path / choice.said, name, choice._replace(said=""), options)
    if final_file(path) is not None:
        refuse_options(name, options)
        return load_braun(path, name, choice.said)
    if (loaded := _by_configuration(path, name, choice)) is not None:
        refuse_options(name, options)
        return loaded
    if (path / "sae").is_dir():  # what `tiltmeter train-sae` leaves
        return _load_folder(path / "sae", name, choice, options)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if len(files) == 1:
        return _load_file(files[0], name, choice, options)
    raise TiltmeterError(f"The folder {name} is not an SAE: {_what_it_has(path, files)}; expected {KINDS}.")


def _by_configuration(path: Path, name: str, choice: Choice) -> Loaded | None:
    """The SAE of a folder whose configuration one of the libraries wrote; None if there is none."""
    if circuit_tracer.is_circuit_tracer(path):
        return circuit_tracer.load_circuit_tracer(path, name, choice)
    if lm_saes.writes_to_several(path):
        return lm_saes.load_layers(path, name, choice)
    if is_dictionary_learning(path):
        return load_dictionary_learning(path, name, choice)
    loaded = _of_one_site(path, name)
    if loaded is not None:
        refuse_choice(name, choice)
    return loaded


def _of_one_site(path: Path, name: str) -> Loaded | None:
    if is_sparsify(path):
        return load_sparsify(path, name)
    if (path / saelens_folder.CONFIG).is_file():
        return saelens_folder.load_folder(path, name)
    if found := lm_saes.files_of(path):
        return lm_saes.load_lm_saes(*found, name)
    if file := gemma_scope.weights_of(path):
        return gemma_scope.load_gemma_scope(file, name)
    if (file := path / "sae.pt").is_file() and (beside := act_name.configuration_of(file)):
        return act_name.load_act_name(file, beside, name)
    return None


def _what_it_has(path: Path, files: Sequence[Path]) -> str:
    if files:
        return f"it has {len(files)} files of weights ({', '.join(file.name for file in files[:4])}); give one of them"
    inner = sorted(one.name for one in path.iterdir() if one.is_dir() and any(one.iterdir()))
    if inner:
        return f"it has folders ({', '.join(inner[:4])}); give one of them, as {path.name}#{inner[0]}"
    if (path / "config.json").is_file():
        return "it has a config.json and no weights"
    return "it has no weights"


def _load_file(path: Path, name: str, choice: Choice, options: Options) -> Loaded:
    if path.name in OF_FOLDERS and (loaded := _by_configuration(path.parent, name, choice)) is not None:
        refuse_options(name, options)
        return loaded  # the configuration beside it says how the weights are used
    if circuit_tracer.is_one_of_a_set(path):
        refuse_choice(name, choice)
        refuse_options(name, options)
        return circuit_tracer.load_layer(path, name)
    if path.suffix.lower() not in SUFFIXES:
        raise TiltmeterError(f"The file {name} is not an SAE: expected {KINDS}.")
    stored = read_tensors(path, name)
    if path.suffix in TORCH and is_braun(stored.tensors):
        refuse_options(name, options)
        return load_braun(path, name, choice.said)
    if is_crosscoder(stored.tensors):
        return load_bare_crosscoder(stored, name, choice, options)
    refuse_choice(name, choice)
    if path.name == gemma_scope.FILES[0]:
        refuse_options(name, options)
        return gemma_scope.load_gemma_scope(path, name)
    if path.suffix in TORCH and (beside := act_name.configuration_of(path)):
        refuse_options(name, options)
        return act_name.load_act_name(path, beside, name)
    return load_bare(path, stored, name, options)
