"""A substitute for the package `flagscale` on hosts without it, so that `from flagscale import serve` works there."""

import sys

from flagscale_deploy import serve

sys.modules[__name__ + ".serve"] = serve

__all__ = ["serve"]
