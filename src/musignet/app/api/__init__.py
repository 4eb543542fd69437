"""The local API of a running node: HTTP and JSON on a Unix socket. `table.py` lists every route."""
