"""Bitcoin without a network: PSBTs, descriptors, what is being signed, and the finished transaction.

    Psbt.parse_untrusted -> review(psbt, group) -> Review.slots -> (signing) -> finalise -> FinalTransaction

Nothing here holds a secret, reads a clock or trusts a peer. `wally` alone binds libwally.
"""
