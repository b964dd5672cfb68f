"""Base of the configuration's groups, and the field types that they share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainer.config.field_type import LARGEST_INT, field_type

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Group(BaseModel):
    """Base of every group: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            key: field_type(fields[key].annotation).expand_shorthand(value) if key in fields else value
            for key, value in values.items()
        }

    @field_validator("*", mode="before")
    @classmethod
    def _within_the_log(cls, value: Any) -> Any:
        """Refuse numbers that the log's readers take for damage."""
        pending = [value]
        while pending:
            part = pending.pop()
            if isinstance(part, list):
                pending += part
            elif isinstance(part, int | float) and abs(part) > LARGEST_INT:
                raise ValueError(f"expected numbers of at most {LARGEST_INT:,}")
        return value
