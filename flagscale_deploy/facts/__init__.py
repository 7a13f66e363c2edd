"""Facts about hosts: what the probe reads on each of them."""
