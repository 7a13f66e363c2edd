"""The front door of a deployment: a reverse proxy on its head, before routers and engines, sent there as files.

It needs Python 3.10 or later and aiohttp, which the environment of vLLM has, and nothing else of this package.
"""
