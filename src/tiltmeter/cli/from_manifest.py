"""The options that a run was made with, from its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.user_paths import user_path

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet

IN_PYTHON: Mapping[str, Any] = {
    "synthesis": {
        "baseline": {"sparsity_scale": "linear", "exclude_dead": "false", "top_k": "10"},
        "structured": {
            "sparsity_scale": "linear",
            "exclude_dead": "false",
            "pool": "100",
            "similarity": "0.42",
            "rows": "raw",
        },
    },
    "statistics_positions": "all",
    "pool": "32768",
    "shard": "16",
    "batch_tokens": "8192",
    "warm_up": "0.05",
    "clip": "10.0",
    "dead_after": "200000",
}
"""What only Python sets, and the values that runs of the command line have."""

_log = logging.getLogger(__name__)


def is_manifest(content: Mapping[str, Any]) -> bool:
    """Whether a file is the manifest of a run."""
    return {"format", "identity", "record"} <= content.keys()


def options_of_manifest(manifest: Mapping[str, Any], command: str, path: Path) -> dict[str, Any]:
    """The options of the command that made a run.

    Raises:
        TiltmeterError: another command made it, it was made in Python with what has no option, or it is incomplete.
    """
    try:
        return _options(manifest, command, path)
    except (KeyError, TypeError, AttributeError):  # of another version, or edited
        raise TiltmeterError(f"{path} is not a whole manifest; repeat the command of its run.") from None


def _options(manifest: Mapping[str, Any], command: str, path: Path) -> dict[str, Any]:
    identity, record = manifest["identity"], manifest["record"]
    if "study" in identity or "model" not in record:
        raise TiltmeterError(f"{path} is of a study, whose manifest does not hold all options; repeat its command.")
    if "compare" in identity and command == "compare":
        raise TiltmeterError(f"{path} is of a comparison, whose manifest does not name the files; repeat its command.")
    if record["model"]["revision"] == "in memory":
        raise TiltmeterError(f"{path} is of a run in Python on a model in memory; give a run of a model with a name.")
    made_by = _command(identity)
    if made_by != command:
        raise TiltmeterError(
            f"{path} is of a run of tiltmeter {made_by}, not of tiltmeter {command}; use it with tiltmeter {made_by}."
        )
    tokens = record["tokens"]
    common = {
        "model": record["model"]["name"],
        "revision": "" if record["model"]["revision"] == "local" else record["model"]["revision"],
        "device": identity["model"]["device"],
        "tokens": tokens["name"],
        "tokens-revision": tokens.get("revision", ""),
        "column": tokens.get("column", ""),
        "sequence-length": tokens["shape"][1],
        "bos-before": tokens.get("bos_before", "document"),
    }
    if made_by == "train-sae":
        training = _without_python(identity["training"], path)
        return common | {"n-tokens": training.pop("tokens")} | training
    return common | {"precision": identity["model"]["precision"]} | _of_sweep(identity, record, path)


def warn_of_other_tokens(path: Path | None, tokens: TokenSet) -> None:
    """Warn if options came from a manifest, and the token sequences are not those of its run.

    A manifest does not hold how text was cut (`--bos-before`), and a file may have changed.
    """
    if path is None or not is_manifest(content := load_config(path)):
        return
    if content["identity"]["tokens"]["sha256"] != tokens.sha256():
        _log.warning(
            "warning: the token sequences are not those of the run of %s: another file or text, another number, or "
            "another --bos-before; the numbers will differ.",
            path,
        )


def load_config(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file, all values as texts.

    Raises:
        TiltmeterError: it cannot be read, or holds no mapping.
    """
    import yaml

    try:
        # Texts only: YAML would read 1:40:5 as a number in base 60, and no as false.
        text = user_path(path).read_text(encoding="utf-8")
        _refuse_repeated(yaml.compose(text, yaml.BaseLoader), path)
        content = yaml.load(text, yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text"
        raise TiltmeterError(f"{path} cannot be read ({reason}); give a YAML or JSON file of options.") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise TiltmeterError(f"{path} is not valid YAML ({reason}); write KEY: VALUE lines.") from None
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise TiltmeterError(f"{path} holds no mapping; write KEY: VALUE lines, as tiltmeter init does.")
    return content


def _refuse_repeated(node: Any, path: Path) -> None:
    """Refuse a mapping with one key twice, of which YAML would take the last."""
    keys = [key.value for key, _ in node.value] if getattr(node, "id", "") == "mapping" else []
    if repeated := [key for at, key in enumerate(keys) if key in keys[:at]]:
        raise TiltmeterError(f"{path} has the key {repeated[0]!r} twice; give it once.")


def _without_python(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings that have an option; the others have to be as on the command line."""
    for name, value in settings.items():
        if name in IN_PYTHON and value != IN_PYTHON[name] and _matters(name, settings):
            raise TiltmeterError(
                f"{path} has {name} = {value}, which only Python sets; expected {IN_PYTHON[name]}: repeat that run in "
                "Python."
            )
    return {name: value for name, value in settings.items() if name not in IN_PYTHON}


def _matters(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting decides what is measured.

    The synthesis does so for synthetic activations alone; older manifests have fewer parameters of it.
    """
    return name != "synthesis" or "synthetic" in f"{settings.get('directions')} {settings.get('base')}"


def _command(identity: Mapping[str, Any]) -> str:
    if "training" in identity:
        return "train-sae"
    if "crossings" in identity:
        return "crossings"
    return "compare" if "compare" in identity else "sweep"


def _of_sweep(identity: Mapping[str, Any], record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    sweep = _without_python(identity["sweep"], file)
    if given := [name for name in ("directions", "readouts") if isinstance(sweep[name], Mapping)]:
        raise TiltmeterError(f"{file} has {given[0]} that were objects in Python; repeat that run in Python.")
    path = sweep.pop("path")
    goal = identity.get("crossings", {})
    if goal:  # crossings read one readout, and each position with the others
        sweep["readout"] = sweep.pop("readouts")[0]
        sweep = {key: value for key, value in sweep.items() if key not in ("keep_positions", "until_ci")}
    steps = {
        "straight": {"lengths": path.get("lengths"), "unit": path.get("unit")},
        "sphere": {"angles": path.get("degrees")},
        "substitute": {"substitute": "true"},
    }[path["kind"]]
    return sweep | steps | dict(goal) | {"saes": [one["name"] for one in record["saes"].values()]}
