"""What every mapping of the user's settings has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


def setting(description: str) -> Any:
    """Return a key that may be absent; `description` is printed in the documentation and in the JSON Schema."""
    return Field(None, description=description)


class Settings(BaseModel):
    """A mapping of the user's; its keys are those of the class, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, keys: Any) -> Any:
        return {key.replace("-", "_"): value for key, value in keys.items()} if isinstance(keys, dict) else keys
