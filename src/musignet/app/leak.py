"""A setting by which something would leave this machine beside the proxy."""

from __future__ import annotations

from ..errors import LocalError

__all__ = ["Leak"]


class Leak(LocalError):
    """What is configured would go, or tell where we are, without the proxy. It was not tried.

    Args: setting - as it stands in config.toml.
    """

    def __init__(self, setting: str, why: str, *, hint: str) -> None:
        super().__init__(f"{setting}: {why}", hint=hint)
