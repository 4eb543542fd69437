"""The MuSig2 ceremony as pure machines: from a proposed PSBT to a finished transaction.

    VerifiedMessage -> Session -> Approve, MakeNonces, MakePartials -> Keyholder -> Approved, NoncesMade, PartialsMade
                          `-> SendToGroup, Store, Publish                   `-> Store

The `Session` talks and holds no secret; the `Keyholder` signs and trusts nothing that the session says. Nothing here
reads a clock, draws randomness by itself, or writes: what must be on disk is a `Store` effect, and what depends on it
leaves only after `Stored`.
"""
