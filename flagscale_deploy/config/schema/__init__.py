"""The keys of a serve YAML: their types, defaults and places, and the errors about them."""
