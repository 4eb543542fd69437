"""The keyholder as a process of its own: `python -m musignet.app.keyholder`. No network, one pipe, the wallet key."""
