"""The gate as a program: read gate.json, listen, and end gracefully."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from flagscale_deploy.gate.access import AccessLog
from flagscale_deploy.gate.config import ConfigError
from flagscale_deploy.gate.connections import Connection, Door
from flagscale_deploy.gate.metrics import Metrics
from flagscale_deploy.gate.proxy import Proxy
from flagscale_deploy.gate.state import State
from flagscale_deploy.gate.upstreams import session

LOOK_SECONDS = 1.0
"""How often files are looked at for changes."""
HANDSHAKE_SECONDS = 10.0
METRICS_CONNECTIONS, METRICS_SECONDS = 16, 30.0
"""Of metrics: any user of this host may connect. A connection without a request is closed after that time."""
DESCRIPTORS_ASIDE = 64
BACKLOG = 1024
log = logging.getLogger("gate")


def command(words: list[str]) -> None:
    """Serve until SIGTERM or SIGINT; end with status 1 and a line in the log where that cannot be."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if len(words) != 1:
        raise SystemExit("usage: gate CONFIG.json")
    try:
        state = State(words[0])
        asyncio.run(_serve(state))
    except (ConfigError, OSError) as error:
        log.error("%s", error)
        raise SystemExit(1) from error


async def _serve(state: State) -> None:
    config = state.config
    ending, reload = asyncio.Event(), asyncio.Event()
    metrics, access = Metrics(), AccessLog(config.access_log)
    client = session(config.trust)
    proxy = Proxy(state, client, metrics, access)
    door = Door(proxy.handle, access_log=None, auto_decompress=False, max_line_size=16 << 10, max_field_size=16 << 10,
                keepalive_timeout=3600.0, lingering_time=2.0)  # fmt: skip
    door.refused = proxy.refused
    most = _raise_descriptors(config.connections)

    def use() -> None:
        """Take what was read into use."""
        door.most = min(most, state.config.connections)
        door.header_bytes, door.idle_seconds = state.config.header_bytes, state.config.idle_seconds
        proxy.upstreams.keep(url for urls in state.config.models.values() for url in urls)

    use()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    context = state.certificate.context if state.certificate is not None else None
    counting = Door(_own_pages(state, proxy, metrics, door, access), access_log=None)
    counting.most, counting.idle_seconds = METRICS_CONNECTIONS, METRICS_SECONDS
    servers = [await _listen(door, config.host, config.port, context)]
    if config.metrics_port is not None:
        servers.append(await _listen(counting, "127.0.0.1", config.metrics_port, None))
    ports = ", ".join(str(server.sockets[0].getsockname()[1]) for server in servers)
    log.info("%s: listens on %s, ports %s, for %s", config.deployment, config.host, ports, ", ".join(config.models))
    tasks = [
        *(asyncio.create_task(server.close_late()) for server in (door, counting)),
        asyncio.create_task(_look(state, access, reload, use)),
    ]
    stopped = asyncio.create_task(ending.wait())
    await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    ending.clear()
    for server in servers:
        server.close()
    await _drain(door, proxy, ending, state.config.drain_seconds)
    for task in (stopped, *tasks):
        task.cancel()
    await door.shutdown(0.1)
    await counting.shutdown(0.1)
    await client.close()
    access.close()
    for task in failed:
        task.result()  # raises what ended it: neither ends by itself


async def _listen(server: web.Server, host: str, port: int, context: ssl.SSLContext | None) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    handshake = HANDSHAKE_SECONDS if context is not None else None
    return await loop.create_server(
        server, host, port, ssl=context, ssl_handshake_timeout=handshake, backlog=BACKLOG, reuse_address=True
    )


async def _look(state: State, access: AccessLog, reload: asyncio.Event, use: Callable[[], None]) -> None:
    """Read again what has changed, each second and on SIGHUP."""
    while True:
        try:
            await asyncio.wait_for(reload.wait(), LOOK_SECONDS)
        except asyncio.TimeoutError:
            reload.clear()
        reload.clear()
        state.refresh()
        use()
        access.follow()


async def _drain(door: Door, proxy: Proxy, again: asyncio.Event, seconds: float) -> None:
    """Close idle connections, and wait until no request is open, the time is over, or a second signal comes."""
    door.drain()
    until = asyncio.get_running_loop().time() + seconds
    log.info("ends: %d requests are open, and have %g s", proxy.open, seconds)
    while proxy.open and not again.is_set() and (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait_for(again.wait(), min(0.05, left))
        except asyncio.TimeoutError:
            continue
    log.info("ended; %d requests were cut", proxy.open)


def _own_pages(
    state: State, proxy: Proxy, metrics: Metrics, door: Door, access: AccessLog
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Return what answers on loopback: Prometheus, and `route_gate`."""

    def count() -> web.Response:
        metrics.connections, metrics.lines_lost = len(door.connections), access.lost
        return web.Response(text=metrics.text(), content_type="text/plain")

    def tell_state() -> web.Response:
        return web.json_response(
            {"files": state.versions, "restart_needed": state.restart_needed, "open": proxy.upstreams.open}
        )

    pages = {"/metrics": count, "/state": tell_state}

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.begin()
        connection.end(request.content.is_eof())
        page = pages.get(request.raw_path) if request.method == "GET" else None
        return web.Response(status=404) if page is None else page()

    return reply


def _raise_descriptors(connections: int) -> int:
    """Allow two descriptors for each connection; return the number of connections that these suffice for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + DESCRIPTORS_ASIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = connections if soft == resource.RLIM_INFINITY else max(1, (soft - DESCRIPTORS_ASIDE) // 2)
    if most < connections:
        log.warning("%d connections at most: the limit of open files is %d", most, soft)
    return min(most, connections)
