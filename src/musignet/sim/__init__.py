"""The virtual driver: the very same nodes on a seeded network and a virtual clock. `python -m musignet.sim --help`."""
