"""Make a `Plan` from inventory, specification and facts. Pure: no clock, socket, environment or file is read."""
