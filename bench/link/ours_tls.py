"""MuSigNet over `tls://` addresses: the same program, another carrier."""

from __future__ import annotations

from typing import Any

from musignet import NetworkService

from . import ours

__all__ = ["Far", "Near"]


class Far(ours.Far):
    def _node(self, name: str) -> NetworkService:
        return super()._node(name, tls_port=0)

    def _address(self, service: NetworkService) -> dict[str, Any]:
        return super()._address(service) | {"host": "", "port": 0}


Near = ours.Near
