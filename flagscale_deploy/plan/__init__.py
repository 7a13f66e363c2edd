"""Inventory, specification and observations become a `Plan`. Pure: no clock, socket, environment or file is read."""
