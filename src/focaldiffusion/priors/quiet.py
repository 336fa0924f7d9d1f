"""Libraries that load networks, without their advice and progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and diffusers; errors are raised all the same."""
    import diffusers.utils.logging
    import transformers.utils.logging

    with ExitStack() as stack:
        for library in (diffusers.utils.logging, transformers.utils.logging):
            stack.enter_context(_silenced(library))
        yield


@contextmanager
def _silenced(library: Any) -> Iterator[None]:
    """One library, by its module of logging."""
    verbosity, shows_bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if shows_bars:
            library.enable_progress_bar()
