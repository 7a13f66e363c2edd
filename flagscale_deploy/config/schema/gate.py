"""The keys of `deploy.gate`."""

from __future__ import annotations

from flagscale_deploy.config.schema.base import Settings, setting
from flagscale_deploy.config.schema.values import Flag, Port, PortOrAuto, SecondsOrOff, Text


class GateSettings(Settings):
    """`deploy.gate`: `true` by itself, or this mapping."""

    enabled: Flag | None = setting("`false`: no gate, whatever the other keys say. Default: true beside other keys")
    port: PortOrAuto | None = setting("the gate's port, on the head. Default: 8080, or the next free one")
    host: Text | None = setting("the address that the gate listens on. Default: all addresses of the head")
    prometheus_port: Port | None = setting(
        "the port of the gate's metrics, on 127.0.0.1 of the head. Default: 8081, or the next free one"
    )
    keys: dict[str, Text] | None = setting(
        "`{NAME: KEY}`: clients send one of these keys. Out of the YAML: `{alice: ${oc.env:ALICE_KEY}}`. Default: "
        "`VLLM_API_KEY`, if it is set; else the gate asks for no key"
    )
    key_files: dict[str, Text] | None = setting(
        "`{NAME: FILE}`: the same, from files on your machine that hold a key alone. Default: none"
    )
    paths: list[Text] | None = setting(
        "paths that pass beside `/v1/*`, `/health` and `/version`; a `*` at the end stands for anything. Default: none"
    )
    hold: SecondsOrOff | None = setting(
        "how long a request waits while no server of its model is ready; then it gets status 503. Default: 0"
    )
