"""Sites that are named by the path of a module in the Hugging Face model: the module's output."""

from __future__ import annotations

from torch import nn

from tiltmeter.errors import TiltmeterError, did_you_mean
from tiltmeter.models.failures import explained
from tiltmeter.models.hooks import Call, traced
from tiltmeter.models.probe import probe_tokens
from tiltmeter.models.sites import MODULE, Site
from tiltmeter.models.trunk import Trunk


def module_site(trunk: Trunk, path: str) -> Site:
    """The site at a module's output, found by a pass of a few tokens.

    Raises:
        TiltmeterError: there is no such module; it does not run exactly once on the way to the final hidden states, or
            its output is not one activation a token.
    """
    hf, blocks = trunk.hf, {index: trunk.parts.blocks[index] for index in trunk.parts.running}
    tokens, own = probe_tokens(hf), check_module(hf, path)
    with (
        explained(hf, "running it on a few tokens"),
        traced({"": own} | {str(i): one for i, one in blocks.items()}) as calls,
    ):
        trunk(tokens)
    obstacle = _obstacle([call for call in calls if call.name == ""], tuple(tokens.shape))
    within = [index for index, block in blocks.items() if any(one is own for one in block.modules())]
    around = any(one is block for one in own.modules() for block in blocks.values())
    if obstacle is None and within:
        return Site(within[0], "within", path=path)
    if obstacle is None and not around:
        order = [call.name for call in calls]
        if order[0] == "":
            return Site(0, "before", path=path)
        if order[-1] == "":
            return Site(len(trunk.parts.blocks), "after", path=path)
    raise TiltmeterError(
        f"{MODULE}{path} cannot be measured in {type(hf).__name__}: {obstacle or 'it holds or joins blocks'}; "
        "choose a module that gives one activation a token, once in a pass."
    )


def check_module(hf: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises:
        TiltmeterError: there is none; the message names the nearest.
    """
    modules = dict(hf.named_modules())
    if not path or path not in modules:
        raise TiltmeterError(
            f"{type(hf).__name__} has no module {path!r}{did_you_mean(path, [*modules])}; give a path of "
            "model.named_modules()."
        )
    return modules[path]


def _obstacle(calls: list[Call], shape: tuple[int, ...]) -> str | None:
    """Why the output of a module that was called so is no site; None if nothing is in the way."""
    if len(calls) != 1:
        return f"it runs {len(calls)} times on the way to the final hidden states"
    left = calls[0].left
    if left is None or not left.is_floating_point() or tuple(left.shape[:2]) != shape:
        return f"its output has shape {calls[0].shape} for token ids of shape {shape}"
    return None
