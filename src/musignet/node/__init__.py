"""The whole node with nothing plugged in: `Node.handle(event, now) -> list[Effect]`."""
