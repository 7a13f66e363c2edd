"""What values of our own settings may be, and how they may be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from flagscale_deploy.support.units import parse_duration

_WORDS = {"yes": True, "on": True, "no": False, "off": False}


class UnfitError(ValueError):
    """Why a value does not fit, and what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise UnfitError("expected a number", "write it in digits")
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _host_pattern(value: Any) -> Any:
    if not isinstance(_text(value), str):
        raise UnfitError("expected a pattern of hosts", "in one text, as for --limit: gpu01,gpu02")
    return _text(value)


def _flag(value: Any) -> Any:
    return _WORDS.get(str(value).lower(), value)


def _seconds(value: Any) -> Any:
    """Seconds from a number or from `90s`, `30m`, `1h30m`."""
    seconds = parse_duration(value) if isinstance(value, str) else None
    return _no_boolean(value) if seconds is None else seconds


def whole_number(value: Any, low: int, high: int) -> int | None:
    """The whole number that a value of the user's is, also one written as text; None where it is none in the range."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or len(text) > len(str(high)):
        return None
    return int(text) if low <= int(text) <= high else None


def port_or_auto(value: Any) -> int | Literal["auto"] | None:
    """A port, "auto", or None for what is neither."""
    return "auto" if str(value).lower() == "auto" else whole_number(value, 1, 65535)


def _port_or_auto(value: Any) -> int | Literal["auto"]:
    found = port_or_auto(value)
    if found is None:
        raise UnfitError("expected a port from 1 to 65535, or auto", "as in port: 8000")
    return found


def _count_or_auto(value: Any) -> int | Literal["auto"]:
    if str(value).lower() == "auto":
        return "auto"
    found = whole_number(value, 1, 9999)
    if found is None:
        raise UnfitError("expected a whole number from 1, or auto", "as in num_replicas: 2")
    return found


def _least_nodes(value: Any) -> int:
    """`2`, or the lower end of torchrun's range `2:4`: nothing here grows while it runs."""
    found = whole_number(str(value).partition(":")[0], 1, 9999)
    if found is None:
        raise UnfitError("expected a whole number from 1", "as in nnodes: 2")
    return found


Port = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=65535)]
PortOrAuto = Annotated[
    int | Literal["auto"], PlainValidator(_port_or_auto, json_schema_input_type=int | Literal["auto"])
]
Seconds = Annotated[
    float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(gt=0, allow_inf_nan=False)
]
Amount = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, BeforeValidator(_no_boolean), Field(ge=1, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
CountOrAuto = Annotated[
    int | Literal["auto"], PlainValidator(_count_or_auto, json_schema_input_type=int | Literal["auto"])
]
Slots = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
Nodes = Annotated[int, PlainValidator(_least_nodes, json_schema_input_type=int | str)]
Flag = Annotated[bool, BeforeValidator(_flag, json_schema_input_type=bool | Literal["yes", "no", "on", "off"])]
Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | float)]
HostPattern = Annotated[str, BeforeValidator(_host_pattern, json_schema_input_type=str | float)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Ignored = Any
