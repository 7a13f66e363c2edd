"""Notes on how a connection is made, for `-v`: who reads the configuration, which keys are passed over."""

import logging

NOTES = logging.getLogger("flagscale_deploy.ssh")
NOTES.addHandler(logging.NullHandler())
NOTES.propagate = False
