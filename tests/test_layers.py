"""Imports go downwards only, heavy libraries load when used, and each has its home."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "focaldiffusion"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("allocation", "errors", "progress"),
    ("devices", "focus", "files", "optics", "packages", "psf", "shards", "signals", "threads"),
    ("engines", "filters", "frames", "lens", "prior", "strips", "window"),
    ("config", "depth", "scene", "stack"),
    ("evidence", "fusion", "simulation"),
    ("align", "io", "models", "solve"),
    ("result",),
    ("enlarge", "saved"),
    ("recovery",),
    ("checkpoints", "virtual_camera"),
    ("priors",),
    ("data", "living_picture", "reconstruction"),
    ("evaluation",),
    ("app", "archive", "training"),
    ("cli",),
    ("__main__",),
)
"""The parts of the package, lowest first. A part imports from lower layers and from itself."""

MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 80

LAYER_OF = {part: level for level, layer in enumerate(LAYERS) for part in layer}

HOMES = {
    "accelerate": {"training"},
    "diffusers": {"checkpoints", "models", "priors"},
    "h5py": {"data", "io"},
    "jinja2": {"evaluation", "living_picture"},
    "OpenEXR": {"io"},
    "PIL": {"io"},
    "ruamel": {"config"},
    "starlette": {"app"},
    "tifffile": {"io"},
    "imagecodecs": {"io"},
    "matplotlib": {"evaluation"},
    "pathlib": {
        "app",
        "archive",
        "checkpoints",
        "cli",
        "config",
        "data",
        "devices",
        "engines",
        "evaluation",
        "files",
        "io",
        "models",
        "packages",
        "priors",
        "reconstruction",
        "result",
        "saved",
        "training",
    },
}
"""The parts that alone may import a library. A part without paths opens no files."""

DEFERRED = {
    "accelerate",
    "diffusers",
    "OpenEXR",
    "exiftool",
    "h5py",
    "imagecodecs",
    "matplotlib",
    "peft",
    "pillow_heif",
    "rawpy",
    "rich",
    "safetensors",
    "scipy",
    "tensorboard",
    "torchmetrics",
    "transformers",
    "trimesh",
}
"""Slow to import, or an extra that may be absent: imported by the function that needs it."""

OF_DIFFUSERS = {
    "checkpoints/pipeline.py",
    "models/convolutional.py",
    "models/prompt.py",
    "training/trainer.py",
    "training/validation.py",
}
"""Modules whose classes derive from those of diffusers, or that only run beside them: as slow to
import as diffusers itself."""


@dataclass(frozen=True)
class Import:
    """One import: the importing module, the full name imported, whether it runs when the module is
    imported, and whether it is for type checkers alone."""

    module: str
    line: int
    name: str
    at_once: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.name}"

    @property
    def importer(self) -> str:
        """The part of the package that imports."""
        return self.module.partition("/")[0].removesuffix(".py")

    @property
    def library(self) -> str:
        """The top-level package that is imported."""
        return self.name.partition(".")[0]

    @property
    def part(self) -> str | None:
        """The part of ours that is imported; None for libraries and for our version."""
        ours = self.name.split(".")[1:2] if self.library == "focaldiffusion" else []
        return next((part for part in ours if part != "__version__"), None)


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a module, also those in functions and for type checkers."""
    module = path.relative_to(PACKAGE).as_posix()
    for node, at_once, for_types in walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative; write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield Import(module, node.lineno, name, at_once, for_types)


def walk(
    node: ast.AST, at_once: bool = True, for_types: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node, whether it runs when its module is imported, and whether it is for types."""
    yield node, at_once, for_types
    for_types |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    at_once &= not (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or for_types)
    for child in ast.iter_child_nodes(node):
        yield from walk(child, at_once, for_types)


PATHS = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
IMPORTS = [one for path in PATHS for one in imports_of(path)]


def test_every_part_has_a_layer() -> None:
    parts = {one.importer for one in IMPORTS}
    assert parts - set(LAYER_OF) == set(), "give it its place in LAYERS"


def test_imports_go_downwards() -> None:
    upward = [
        str(one)
        for one in IMPORTS
        if one.part not in (None, one.importer) and LAYER_OF[one.part] >= LAYER_OF[one.importer]
    ]
    assert upward == [], "a part may import lower layers only, see LAYERS"


def test_each_library_is_imported_in_its_home() -> None:
    strays = [
        str(one)
        for one in IMPORTS
        if one.library in HOMES and one.importer not in HOMES[one.library]
    ]
    assert strays == [], "see HOMES"


def test_heavy_and_optional_libraries_are_imported_in_functions() -> None:
    slow_modules = {f"focaldiffusion.{path[:-3].replace('/', '.')}" for path in OF_DIFFUSERS}
    eager = [
        str(one)
        for one in IMPORTS
        if one.at_once
        and one.module not in OF_DIFFUSERS
        and (one.library in DEFERRED or one.name.rpartition(".")[0] in slow_modules)
    ]
    assert eager == [], "import it in the function that needs it"


def test_modules_form_no_circle() -> None:
    modules = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PATHS}
    needs: dict[str, set[str]] = {module: set() for module in modules}
    for one in IMPORTS:
        # The name may be a module, or something inside one.
        parts = one.name.split(".")[1:]
        for end in (len(parts), len(parts) - 1):
            if (target := "/".join(parts[:end])) in modules and not one.for_types:
                needs[one.module.removesuffix(".py")].add(target)
                break
    # TopologicalSorter raises CycleError, which names the circle.
    assert set(TopologicalSorter(needs).static_order()) == modules


def test_commands_start_without_torch() -> None:
    script = "import sys, focaldiffusion.cli.main; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    slow = [name for name in ("torch", "numpy", "pydantic", "rich") if f"'{name}'" in loaded]
    assert slow == [], "--help would wait for it: import it in the function that needs it"


def test_the_front_door_opens_at_once_and_exports_its_names() -> None:
    script = (
        "import sys, focaldiffusion as fd; assert 'torch' not in sys.modules; "
        "assert all(getattr(fd, name) is not None for name in fd.__all__)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_functions_and_files_are_short() -> None:
    root = PACKAGE.parents[1]
    long = []
    for folder in ("src", "script", "tests", "benchmarks", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if (lines := text.count("\n")) > MOST_LINES_OF_A_FILE:
                long.append(f"{path.name}: {lines} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    if lines > MOST_LINES_OF_A_FUNCTION:
                        long.append(f"{path.name}: {node.name}, {lines} lines")
    assert long == [], "take a part out of it"


def test_metrics_know_nothing_of_how_a_result_was_made() -> None:
    reached = {one.part for one in IMPORTS if one.module == "evaluation/metrics.py"}
    assert reached & {"align", "models", "solve", "recovery", "reconstruction"} == set()
