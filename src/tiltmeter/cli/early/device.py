"""The device, checked with torch alone, which is much faster to import than what loads a model."""

from __future__ import annotations


def check_device_early(device: str) -> None:
    """Refuse a device that is not there; for `cpu` torch is not imported.

    Raises:
        TiltmeterError: it cannot be used.
    """
    if device != "cpu":
        from tiltmeter.models.devices import check_device

        check_device(device)
