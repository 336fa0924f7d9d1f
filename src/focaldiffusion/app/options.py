"""Options of a job, as the page sends them: some of the flags of `infer`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.errors import unknown_name


@dataclass(frozen=True)
class Options:
    """Options of a job; the defaults are those of `infer`.

    Attributes:
        align: auto, on or off.
        drop_unaligned: leave out frames that match no other.
        working_size: long side [px] at which depth is solved; None for the default.
        find_blur: measure the blur from the frames even if the lens is known.
        image_only: make the all-in-focus image alone.
        model: "physics", or the name of a learned model that is part of the package.
    """

    align: str = "auto"
    drop_unaligned: bool = False
    working_size: int | None = None
    find_blur: bool = False
    image_only: bool = False
    model: str = "physics"

    def __post_init__(self) -> None:
        for name, allowed in (("align", ("auto", "on", "off")), ("model", ("physics", "compact"))):
            if getattr(self, name) not in allowed:
                problem = unknown_name(str(getattr(self, name)), allowed)
                raise AppError(400, f"option {name}: {getattr(self, name)!r} {problem}")
        for name in ("drop_unaligned", "find_blur", "image_only"):
            if not isinstance(getattr(self, name), bool):
                raise AppError(400, f"option {name}: expected true or false.")
        size = self.working_size
        if size is not None and not (type(size) is int and 16 <= size <= 16384):
            raise AppError(400, f"option working_size: {size!r}; expected 16 to 16384 pixels.")
        if self.image_only and self.model != "physics":
            raise AppError(400, "option model: has no effect on the image alone.")

    @classmethod
    def of(cls, given: Any) -> Options:
        """The options of a request.

        Raises:
            AppError: a mistake in them.
        """
        names = [one.name for one in fields(cls)]
        if not isinstance(given, dict):
            raise AppError(400, "options: expected an object.")
        for name in given:
            if name not in names:
                raise AppError(400, f"option {name!r} {unknown_name(name, names)}")
        return cls(**given)

    def settings(self) -> dict[str, Any]:
        """The fields of `Settings` that they set."""
        return {k: v for k, v in asdict(self).items() if k != "model" and v is not None}
