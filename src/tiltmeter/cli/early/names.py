"""Names of directions, bases, readouts and SAEs, checked against the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tiltmeter.cli.catalogue import catalogue, choices
from tiltmeter.cli.early.headers import stored_arrays, stored_names
from tiltmeter.cli.early.model_facts import ModelFacts
from tiltmeter.errors import TiltmeterError, did_you_mean
from tiltmeter.models.site_names import MOST_LAYERS, check_site, kind_of_site
from tiltmeter.models.sites import MODULE, check_visible, long_name, parse_site
from tiltmeter.perturb.names import ALONG, BaseName, DirectionName, Kinds, check_base, check_direction
from tiltmeter.runs import plugins
from tiltmeter.runs.user_paths import user_path

AS_WIDE_AS_THE_STREAM = frozenset({"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"})
"""Kinds of sites with the width of the residual stream; that of others is not known without the model."""


def check_readouts(names: Sequence[str], site: str, model: ModelFacts) -> None:
    """Refuse readouts that there are not, or where a perturbation at the site does not show.

    Raises:
        TiltmeterError: the message names the nearest, or says which comes before.
    """
    forms = [_readout(name) for name in (*catalogue()["readouts"], *plugins.find("tiltmeter.readouts"))]
    for name in names:
        kind, sign, rest = _readout(name)
        if (kind, sign) not in [form[:2] for form in forms]:
            # With the site or the tokens of this one, where it has some.
            hint = did_you_mean(name, [f"{one}{mark}{(sign == mark and rest) or end}" for one, mark, end in forms])
            raise TiltmeterError(f"{name!r} is not a readout{hint}; tiltmeter list readouts shows all.")
        if sign == "@":
            check_site(rest, model.layers)
            _check_order(rest, site, model)


def _check_order(read: str, sites: str, model: ModelFacts) -> None:
    """Refuse to read before a site, of those that are named without patterns."""
    for site in map(str.strip, sites.split(",")):
        if "*" not in site and not read.startswith(MODULE) and not site.startswith(MODULE):
            layers = model.layers or MOST_LAYERS
            check_visible(parse_site(read, layers), parse_site(site, layers))


def _readout(name: str) -> tuple[str, str, str]:
    """The kind of a readout, what follows it (`@` a site, `:` tokens, or nothing), and the site or the tokens."""
    match = re.fullmatch(r"([^:@]*)([:@]?)(.*)", name, re.DOTALL)
    assert match is not None
    return match[1], match[2], match[3]


def check_directions(names: Sequence[str], site: str, saes: Sequence[str], model: ModelFacts) -> None:
    """Refuse directions that there are not, and files of vectors that are not there or of another width.

    Raises:
        TiltmeterError: the message names the nearest.
    """
    plain = (*catalogue()["directions"], *plugins.find("tiltmeter.directions"))
    kinds = Kinds(plain, catalogue()["sae_directions"], choices("not random"))
    for name in map(DirectionName.parse, names):
        if name.kind == ALONG and name.argument is not None:
            _check_vectors(name.argument, site, model)
        elif not (saes and name.kind in kinds.of_saes):  # which SAEs a pattern means depends on the site
            check_direction(name, (), kinds)


def check_base_name(text: str, saes: Sequence[str]) -> None:
    """Refuse a base that there is not.

    Raises:
        TiltmeterError: the message names the nearest.
    """
    kinds = Kinds(catalogue()["bases"], catalogue()["sae_bases"])
    name = BaseName.parse(text)
    if not (saes and name.kind in kinds.of_saes):
        check_base(name, (), kinds)


def check_saes(names: Sequence[str]) -> None:
    """Refuse embedded SAEs that there are not, and files that do not exist.

    Raises:
        TiltmeterError: the message names the nearest.
    """
    embedded = catalogue()["saes"]
    for name in names:
        plain = name.partition("?")[0]
        model, colon, _ = plain.partition(":")
        if colon and model in catalogue()["models"]:
            if not any(fnmatchcase(one, plain) for one in embedded):
                raise TiltmeterError(
                    f"There is no embedded SAE {plain}{did_you_mean(plain, embedded)}; tiltmeter list saes shows all."
                )
        elif not colon and not user_path(plain).exists() and not user_path(plain.partition("#")[0]).exists():
            hint = did_you_mean(f"nano:{plain}", embedded) or did_you_mean(plain, _beside(plain))
            raise TiltmeterError(
                f"There is no SAE {plain!r}{hint}: expected a folder or file that exists, or a name that tiltmeter "
                "list saes shows."
            )
        elif not colon and not plugins.find("tiltmeter.sae_formats"):
            check_sae_files(next(p for p in (user_path(plain), user_path(plain.partition("#")[0])) if p.exists()))


def check_sae_files(path: Path) -> None:
    """Refuse weights of something else, by the names in the headers of files; whether they make an SAE is seen later.

    Raises:
        TiltmeterError: no name is that of an encoder's or a decoder's matrix in any format.
    """
    suffixes = choices("SAE files")
    if path.is_file() and path.suffix.lower() not in suffixes:
        raise TiltmeterError(f"The file {path} is not an SAE: weights are read from {', '.join(suffixes)} files.")
    files = [path] if path.is_file() else [*path.rglob("*")]
    files = [file for file in files if file.suffix.lower() in suffixes]
    if any(file.name in choices("SAE files with a configuration") for file in files):
        return
    found = [stored_names(file) for file in files]
    matrices = choices("SAE matrices")
    if not found or not all(found) or any(matrix in one for names in found for one in names for matrix in matrices):
        return
    has = sorted({one for names in found for one in names})
    listed = ", ".join(has[:6]) + (", ..." if len(has) > 6 else "")
    raise TiltmeterError(
        f"{path} is not an SAE of a known format: it has {listed}; expected the weights of an encoder and "
        "a decoder, by the names of one of the formats of docs/saes.md."
    )


def _check_vectors(argument: str, site: str, model: ModelFacts) -> None:
    path = user_path(argument)
    if not path.is_file() and "#" in argument:
        path = user_path(argument.rpartition("#")[0])
        if not path.is_file():
            path = user_path(argument.partition("#")[0])
    suffixes = choices("vector files")
    if not path.is_file():
        hint = did_you_mean(str(path), _beside(str(path)))
        raise TiltmeterError(f"{path} is not a file{hint}; along:FILE needs a file of vectors: {', '.join(suffixes)}.")
    if path.suffix not in suffixes:
        raise TiltmeterError(
            f"{path} is a {path.suffix or 'nameless'} file; vectors are read from {', '.join(suffixes)} files, and no "
            "code in them is run."
        )
    stored = stored_arrays(path)
    if not stored and path.suffix in (".npy", ".npz", ".safetensors"):
        raise TiltmeterError(
            f"{path} is not a {path.suffix} file that can be read: it is damaged, something else, or holds Python "
            "objects, which are never loaded; save the vectors again."
        )
    kinds = {kind_of_site(one.replace("*", "0")) for one in site.split(",")}
    if model.width is None or not kinds <= AS_WIDE_AS_THE_STREAM:
        return
    widths = {one.shape[-1] for one in stored.values() if len(one.shape) in (1, 2)}
    if widths and model.width not in widths:
        raise TiltmeterError(
            f"{path} has vectors of width {min(widths)}, but those at {long_name(site)} have width {model.width}; give "
            "vectors of that width."
        )


def _beside(path: str) -> list[str]:
    """The files and folders in the folder of a path, as it would name them."""
    folder = Path(path).expanduser().parent
    try:
        return [str(folder / one.name) for one in folder.iterdir()]
    except OSError:
        return []
