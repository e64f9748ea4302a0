"""Whether a device can be used here; imports torch alone."""

from __future__ import annotations

import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import first_line

AUTO_DEVICE = "auto"
"""The device with which accelerate spreads a model over those there are."""


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here; `auto` is left to accelerate.

    Raises:
        TiltmeterError: it cannot be used; the message says why.
    """
    if device == AUTO_DEVICE:
        return
    try:
        torch.zeros(1, device=device, dtype=torch.float64).item()  # KL is taken in float64; "meta" holds no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        raise TiltmeterError(f"The device {device!r} cannot be used here: {first_line(error)}") from None
