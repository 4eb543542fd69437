"""The floor that meets the operating system: sockets, files, the clock, and the asyncio driver of the pure node."""
