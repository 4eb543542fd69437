"""Blame records of every kind that a mesh gives, made by cosigners who really lied."""

from __future__ import annotations

from musignet.signing.effects import End

from .ceremony_world import World

__all__ = ["PROVING", "RECORDS", "record_of"]

PROVING = ("bad partial", "two nonces", "wrong completion", "nonce stripper", "wrong transcript")


def record_of(liar: str) -> tuple[bytes, World]:
    """Return the first blame record that this lie of bob's gives, and its world."""
    for seed in range(8):
        world = World(seed, inputs=2, liar=("bob", liar)).run()
        for party in world.honest:
            if party.outcomes[-1].end is End.BLAMED:
                return party.outcomes[-1].blame, world
    raise AssertionError(f"nobody was blamed for {liar}")


RECORDS = {liar: record_of(liar)[0] for liar in PROVING}
