"""Keys, BIP-340, AEAD. The floor that touches native code; `backend` alone binds libsecp256k1."""
