"""The types of our own settings, and how their values may be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from flagscale_deploy.support.units import parse_duration

MOST = 9999
"""GPUs, CPUs, replicas, nodes, restarts."""
LONGEST_SECONDS = 366 * 86_400
_WORDS = {"yes": True, "on": True, "no": False, "off": False}


class UnfitError(ValueError):
    """A value does not fit; `remedy` says what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise UnfitError("expected a number", "write it in digits")
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _host_pattern(value: object) -> object:
    if not isinstance(_text(value), str):
        raise UnfitError("expected a pattern of hosts", "in one text, as for --limit: gpu01,gpu02")
    return _text(value)


def _flag(value: object) -> object:
    return _WORDS.get(str(value).lower(), value)


def _seconds(value: object) -> object:
    """Return the seconds of a number, or of `90s`, `30m`, `1h30m`."""
    seconds = parse_duration(value) if isinstance(value, str) else None
    return _no_boolean(value) if seconds is None else seconds


def _seconds_or_off(value: object) -> object:
    """Return the seconds, 0 for `off` and for 0; YAML 1.1 reads a bare `off` as false."""
    if value is False or str(value).lower() in ("off", "no", "never"):
        return 0.0
    seconds = _seconds(value)
    if isinstance(seconds, (int, float)) and seconds != 0 and not 1 <= seconds <= LONGEST_SECONDS:
        raise UnfitError("expected at least 1 s, or off", "as in hang: 10m")
    return seconds


def whole_number(value: object, low: int, high: int) -> int | None:
    """Return a value of the user's as a whole number, also one written as text; None if it is none in the range."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or len(text) > len(str(high)):
        return None
    return int(text) if low <= int(text) <= high else None


def port_or_auto(value: object) -> int | Literal["auto"] | None:
    """Return a port, "auto", or None for what is neither."""
    return "auto" if str(value).lower() == "auto" else whole_number(value, 1, 65535)


def _port_or_auto(value: object) -> int | Literal["auto"]:
    port = port_or_auto(value)
    if port is None:
        raise UnfitError("expected a port from 1 to 65535, or auto", "as in port: 8000")
    return port


def _count_or_auto(value: object) -> int | Literal["auto"]:
    if str(value).lower() == "auto":
        return "auto"
    count = whole_number(value, 1, MOST)
    if count is None:
        raise UnfitError("expected a whole number from 1, or auto", "as in num_replicas: 2")
    return count


def _least_nodes(value: object) -> int:
    """Return `2`, or the lower end of torchrun's range `2:4`: deployments do not grow while they run."""
    nodes = whole_number(str(value).partition(":")[0], 1, MOST)
    if nodes is None:
        raise UnfitError("expected a whole number from 1", "as in nnodes: 2")
    return nodes


Port = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=65535)]
PortOrAuto = Annotated[
    int | Literal["auto"], PlainValidator(_port_or_auto, json_schema_input_type=int | Literal["auto"])
]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False),
]
SecondsOrOff = Annotated[
    float, BeforeValidator(_seconds_or_off, json_schema_input_type=float | str | bool), Field(ge=0, allow_inf_nan=False)
]
Amount = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=MOST, allow_inf_nan=False)]
Factor = Annotated[float, BeforeValidator(_no_boolean), Field(ge=1, le=MOST, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=MOST)]
CountOrAuto = Annotated[
    int | Literal["auto"], PlainValidator(_count_or_auto, json_schema_input_type=int | Literal["auto"])
]
Slots = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=MOST)]
Nodes = Annotated[int, PlainValidator(_least_nodes, json_schema_input_type=int | str)]
Flag = Annotated[bool, BeforeValidator(_flag, json_schema_input_type=bool | Literal["yes", "no", "on", "off"])]
Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | float)]
HostPattern = Annotated[str, BeforeValidator(_host_pattern, json_schema_input_type=str | float)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Ignored = Any
