"""`python -m bench link`: one link and many, beside an unencrypted echo, ZeroMQ CURVE and TLS 1.3."""
