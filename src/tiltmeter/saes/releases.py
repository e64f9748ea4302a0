"""The releases that SAELens lists: where each SAE lies, how it is used, and what was published of it.

The list is a file of the `sae_lens` package, which is read without importing the package.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.formats.saelens_config import number
from tiltmeter.saes.hub import Place
from tiltmeter.saes.sae import About

SAELENS = "sae_lens"
"""The loader of SAEs in SAELens's own format, which the list does not name."""

CIRCUIT_TRACER = "mwhanna_transcoder"
"""The loader of transcoders of circuit-tracer's, some of which lack its configuration."""

_SUMMED = "mntss_clt_layer_transcoder"

FILE = "pretrained_saes.yaml"

READERS: Mapping[str, str] = {
    SAELENS: "SAELens",
    "connor_rob_hook_z": "Kissane & Krzyzanowski",
    "gemma_2": "Gemma Scope",
    "gemma_2_transcoder": "Gemma Scope's transcoders",
    "gemma_3": "Gemma Scope 2",
    "llama_scope": "Llama Scope",
    "llama_scope_r1_distill": "Llama Scope",
    "dictionary_learning_1": "dictionary_learning",
    "sparsify": "sparsify",
    "deepseek_r1": "DeepSeek-R1",
    "qwen_scope": "Qwen-Scope",
    "goodfire": "Goodfire",
    CIRCUIT_TRACER: "circuit-tracer's transcoders",
    "temporal": "temporal SAEs, of which only decoder rows are used",
}
"""The format here that SAELens's loader reads, by the name that the list gives to the loader."""

REFUSED: Mapping[str, str] = {
    _SUMMED: "SAELens adds up over layers what a cross-layer transcoder writes, so its rows are directions at no site"
}
"""Why SAEs of SAELens's other loaders are refused."""

_BRAUN = re.compile(r"gpt2-small-res_s[cl](?P<kind>\w+)-ajt")
_BRAUN_KINDS = {"l": "local", "e": "e2e", "efr": "e2e+ds"}
_FOLDED = "gpt2-small-hook-z-kk"

_RELEASE = re.compile(r"^(?P<name>[^\s#][^\n]*):[ ]*$", re.MULTILINE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Listed:
    """An entry of the list."""

    release: str
    place: Place
    loader: str
    """SAELens's function that reads it."""
    model: str | None
    l0: float | None = None
    explained_variance: float | None = None
    neuronpedia: str | None = None
    """Its page on Neuronpedia."""
    scale: float | None = None
    """What activations are multiplied with before they are encoded."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that replace those of `cfg.json`."""

    def facts(self, about: About) -> Facts:
        """The fields of `About` with the list's values where the SAE's files have none, and its L0 and variance.

        SAELens takes it that SAEs were trained with a boundary token where nothing else is said.
        """
        known = Facts(
            model=about.model or self.model,
            l0=self.l0,
            explained_variance=self.explained_variance,
            prepend_bos=True if about.prepend_bos is None else about.prepend_bos,
        )
        if match := _BRAUN.fullmatch(self.release):  # TransformerLens's default processing, data without BOS
            return known | Facts(kind=_BRAUN_KINDS.get(match["kind"]), processing="centred", prepend_bos=False)
        return known | Facts(processing="folded") if self.release == _FOLDED else known


def listed(release: str, sae_id: str, name: str) -> Listed:
    """The entry of an SAE of a release.

    Raises:
        TiltmeterError: `sae_lens` is not installed; it lists no such release or SAE; no reader here has its format.
    """
    releases = _releases(_file(name))
    if release not in releases:
        raise TiltmeterError(
            f"{name}: SAELens lists no release {release!r}; it has {_some(release, releases)}; or give "
            "OWNER/REPO:FOLDER."
        )
    entries = _entries(release, releases[release])
    if sae_id not in entries:
        raise TiltmeterError(f"{name}: the release {release} has no SAE {sae_id!r}; it has {_some(sae_id, entries)}.")
    check_loader(entries[sae_id], name)
    return entries[sae_id]


def listed_at(place: Place, name: str) -> Listed | None:
    """The entry of the SAE at a place of a repository; None if the list has none, or is not installed.

    Raises:
        TiltmeterError: no reader here has its format.
    """
    if (file := list_file()) is None:
        return None
    for release, text in _releases(file).items():
        if place.repository in text:
            for entry in _entries(release, text).values():
                if entry.place == place:
                    check_loader(entry, name)
                    return entry
    return None


def check_loader(entry: Listed, name: str) -> None:
    """Check that a reader here has the format of an SAE.

    Raises:
        TiltmeterError: none has.
    """
    if (why := refusal(entry.loader, entry.place.path)) is not None:
        other = f"{entry.place.repository}:.#5, the rows at layer 5" if entry.loader == _SUMMED else "one of another"
        raise TiltmeterError(f"{name} is in a release that tiltmeter does not read: {why}; give {other}.")


def refusal(loader: str, path: str) -> str | None:
    """Why SAEs of a loader, at this path of their repository, are refused; None if they are not."""
    if loader == "gemma_3" and "clt" in path:
        return REFUSED[_SUMMED]
    if loader == "gemma_2" and path.startswith("embedding"):
        return "they read the embedding before the model scales it, which is not a site"
    if loader not in READERS:
        return REFUSED.get(loader, f"SAELens reads it by {loader}, which is not known here")
    return None


def reader(loader: str, path: str) -> str:
    """The format here that reads SAEs of a loader, at this path of their repository; empty if none does."""
    if refusal(loader, path) is not None:
        return ""
    return READERS[loader] + ("'s transcoders" if loader == "gemma_3" and "transcoder" in path else "")


class Group(NamedTuple):
    """The SAEs of a loader that are read, or refused, alike."""

    loader: str
    reader: str
    """The format here that reads them; empty if none does."""
    refused: str | None
    """Why none does."""
    releases: int
    saes: int


def groups() -> list[Group]:
    """The whole list by loader, which takes seconds.

    Raises:
        TiltmeterError: `sae_lens` is not installed.
    """
    releases, saes = Counter[tuple[str, str, str | None]](), Counter[tuple[str, str, str | None]]()
    for release, text in _releases(_file("each release")).items():
        entries = _entries(release, text).values()
        paths = [(entry.loader, entry.place.path) for entry in entries]
        kinds = Counter((loader, reader(loader, path), refusal(loader, path)) for loader, path in paths)
        saes.update(kinds)
        releases.update(kinds.keys())
    return [Group(*kind, releases[kind], saes[kind]) for kind in sorted(saes, key=str)]


def list_file() -> Path | None:
    """The list in the installed `sae_lens` package, which is not imported; None if there is none."""
    spec = importlib.util.find_spec("sae_lens")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((file for folder in folders if (file := Path(folder) / FILE).is_file()), None)


def _file(name: str) -> Path:
    if (file := list_file()) is None:
        raise TiltmeterError(
            f"Where {name} lies is in the list of the 'sae_lens' package: pip install 'tiltmeter[sae-lens]'; or give "
            "OWNER/REPO:FOLDER, which does not need it."
        )
    return file


@cache
def _releases(file: Path) -> dict[str, str]:
    """The text of each release. All of the list is parsed in seconds, one release in milliseconds."""
    text = file.read_text(encoding="utf-8")
    starts = [*_RELEASE.finditer(text)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {match["name"]: text[match.end() : end] for match, end in zip(starts, ends, strict=True)}


def _entries(release: str, text: str) -> dict[str, Listed]:
    try:
        content = yaml.load(text, Loader=_LOADER)
        return {str(one["id"]): _entry(release, content, one) for one in content["saes"]}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise TiltmeterError(
            f"The release {release} in {FILE} of sae_lens could not be read ({type(error).__name__}): {error}; install "
            "another version of sae_lens, or give OWNER/REPO:FOLDER."
        ) from None


def _entry(release: str, content: Mapping[str, Any], one: Mapping[str, Any]) -> Listed:
    """An entry. A negative explained variance was not measured where the SAE belongs, and 1 means that none was."""
    explained = number(one.get("variance_explained"))
    return Listed(
        release,
        Place(str(content["repo_id"]), str(one["path"]).strip("/")),
        str(content.get("conversion_func") or SAELENS),
        content.get("model"),
        l0=number(one.get("l0")) or None,
        explained_variance=explained if explained is not None and 0 <= explained < 1 else None,
        neuronpedia=one.get("neuronpedia"),
        scale=number(one.get("norm_scaling_factor")),
        overrides=content.get("config_overrides") or {},
    )


def _some(wanted: str, names: Iterable[str]) -> str:
    names = [*names]
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.3) or names[:4]
    return ", ".join(near) + (f" and {more} more" if (more := len(names) - len(near)) else "")
