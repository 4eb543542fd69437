"""Where everything is in a data folder."""

from __future__ import annotations

from typing import Final

__all__ = [
    "API_SOCKET",
    "APPROVER_FILE",
    "CONFIG_FILE",
    "GROUPS_FOLDER",
    "IDENTITY_FILE",
    "KEYHOLDER_FOLDER",
    "LOG_FILE",
    "WALLET_FILE",
]

CONFIG_FILE: Final = "config.toml"
IDENTITY_FILE: Final = "identity.key"
LOG_FILE: Final = "node.log"
"""Of a node in the background, unless its configuration names another."""
API_SOCKET: Final = "api.sock"
GROUPS_FOLDER: Final = "groups"
KEYHOLDER_FOLDER: Final = "keyholder"
WALLET_FILE: Final = "keyholder/wallet.key"
APPROVER_FILE: Final = "keyholder/approver.json"
