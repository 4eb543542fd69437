"""Bytes on the wire: messages, their signed envelope, and the encrypted channel. No sockets, no clock."""
