"""The commands of `musignet`, one module for those that belong together. `app/cli.py` has the table of them."""
