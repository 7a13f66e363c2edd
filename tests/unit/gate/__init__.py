"""Functions of the gate."""
