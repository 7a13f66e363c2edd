"""Act on a deployment's hosts: bring it up, watch it, look at it and take it down."""
