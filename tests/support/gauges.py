"""The part of a sink that keeps a gauge for each peer."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from musignet.limits import Limits
from musignet.node.rates import Gauge, Rates, Standing

from .unbound import FREELY

__all__ = ["Gauged"]


class Gauged:
    """Everybody is of this standing, unless `standing` says otherwise of a key."""

    def __init__(self, limits: Limits = FREELY, standing: Standing = Standing.STRANGER) -> None:
        self.standing: dict[bytes, Standing] = defaultdict(lambda: standing)
        self.gauges: dict[bytes, Gauge] = {}
        self.rates = Rates(limits)

    def gauge(self, key: bytes) -> Gauge:
        if key not in self.gauges:
            self.gauges[key] = self.rates.gauge(self.standing[key], asyncio.get_running_loop().time())
        return self.gauges[key]
