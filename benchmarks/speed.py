"""CPU seconds and memory of `infer`, before and after a change, stage by stage.

    python benchmarks/speed.py STACKS... [--before SRC] [--after SRC] [--runs 5] [--flags=...]

STACKS are folders of frames, or one of the stacks that this script makes of the frames of a given
one, in a temporary folder:

    long:FOLDER      the frames again and again, to 187
    large:FOLDER     three frames enlarged to 60 megapixels
    heavy:FOLDER     the frames enlarged to 24 megapixels, again and again, to 100

SRC is a source tree (`src` of a checkout). Both trees run in turn, so that other work on the
machine slows both alike, and medians are printed. Time is user + system over all cores; memory is
the largest resident set. `--focusweave PROGRAM` adds FocusWeave to each turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from peers import IMAGE_SUFFIXES, Usage, markdown, run_measured

# Only the standard library is imported here; peers.py says why.


@dataclass(frozen=True)
class Recipe:
    """A stack made of the frames of another one.

    Attributes:
        frames: their number.
        megapixels: size of each; None keeps the size.
    """

    frames: int
    megapixels: float | None = None


REST = "imports, opening and writing"
"""Row of the table of stages for all that `metadata.json` does not time."""

RECIPES = {"long": Recipe(187), "large": Recipe(3, 60), "heavy": Recipe(100, 24)}

# Runs in a process of its own, so that the pixels do not count as memory of this one.
_ENLARGE = """
import sys, cv2
source, target, megapixels = sys.argv[1], sys.argv[2], float(sys.argv[3])
frame = cv2.imread(source)
scale = (megapixels * 1e6 / (frame.shape[0] * frame.shape[1])) ** 0.5
size = [round(side * scale) for side in frame.shape[1::-1]]
enlarged = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
cv2.imwrite(target, enlarged, [cv2.IMWRITE_JPEG_QUALITY, 95])
"""


@dataclass(frozen=True)
class Program:
    """A command to measure, without stack and output."""

    name: str
    source: Path | None
    command: tuple[str, ...]

    def run(self, stack: Path, scratch: Path) -> tuple[Usage, dict[str, float]]:
        """One run on a stack: its resources, and the seconds of its stages.

        Raises:
            SystemExit: it failed; the log is printed.
        """
        output = scratch / "result"
        if self.source is None:
            command = [*self.command, str(stack), "--output", f"{output}.png"]
        else:
            path = f"PYTHONPATH={self.source}"
            command = ["env", path, *self.command, str(stack), "--output", str(output)]
            command.append("--overwrite")
        log = scratch / "log"
        with log.open("w") as stream:
            usage, exit_code = run_measured(command, scratch, stream)
        if exit_code != 0:
            sys.exit(f"{self.name} failed on {stack}:\n{log.read_text()}")
        if self.source is None:
            return usage, {}
        seconds = json.loads((output / "metadata.json").read_text())["seconds"]
        return usage, {**seconds, REST: usage.wall_s - sum(seconds.values())}


def made_stack(text: str, folder: Path) -> Path:
    """The stack of an argument: a folder, or one made below `folder` by a recipe."""
    kind, _, source = text.partition(":")
    if kind not in RECIPES or not source:
        return Path(text).resolve()
    recipe = RECIPES[kind]
    given = sorted(one for one in Path(source).iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
    frames = [path.resolve() for path in given[: recipe.frames]]
    stack = folder / kind
    stack.mkdir()
    if recipe.megapixels is not None:
        pool = folder / f"{kind} frames"
        pool.mkdir()
        for index, frame in enumerate(frames):
            enlarged = pool / f"{index}.jpg"
            step = [sys.executable, "-c", _ENLARGE, str(frame), str(enlarged)]
            _, exit_code = run_measured([*step, str(recipe.megapixels)], folder, sys.stderr)
            if exit_code != 0:
                sys.exit(f"{frame}: cannot be enlarged.")
            frames[index] = enlarged
    for index in range(recipe.frames):
        # There and back again, so that neighbours stay neighbours in focus.
        period = max(1, 2 * len(frames) - 2)
        place = index % period
        frame = frames[min(place, period - place)]
        (stack / f"frame_{index:03d}{frame.suffix}").symlink_to(frame)
    return stack


def measured(
    programs: Sequence[Program], stack: Path, runs: int, scratch: Path
) -> dict[str, tuple[list[Usage], list[dict[str, float]]]]:
    """Resources and stages of each program on a stack, run in turn."""
    found: dict[str, tuple[list[Usage], list[dict[str, float]]]] = {
        program.name: ([], []) for program in programs
    }
    for run in range(runs):
        # Every other turn backwards: the first of a turn is not always the same.
        for program in programs if run % 2 == 0 else reversed(programs):
            usage, seconds = program.run(stack, scratch)
            found[program.name][0].append(usage)
            found[program.name][1].append(seconds)
            cpu_s = usage.user_s + usage.system_s
            print(f"  {stack.name}, run {run + 1}: {program.name} {cpu_s:.1f} s", file=sys.stderr)
    return found


def usage_table(results: dict[str, dict[str, list[Usage]]]) -> str:
    """A row per stack and program: medians of time [s] and memory [MiB], as Markdown."""
    rows = [["stack", "program", "user + system [s]", "wall [s]", "peak memory [MiB]"], ["---"] * 5]
    for stack, programs in results.items():
        for name, used in programs.items():
            cpu_s = median(one.user_s + one.system_s for one in used)
            wall_s = median(one.wall_s for one in used)
            memory_mib = median(one.peak_rss_mib for one in used)
            rows.append([stack, name, f"{cpu_s:.1f}", f"{wall_s:.1f}", f"{memory_mib:.0f}"])
    return markdown(rows)


def stage_table(stages: dict[str, list[dict[str, float]]]) -> str:
    """A row per stage and a column per program: median wall seconds, as Markdown."""
    names = list(dict.fromkeys(name for runs in stages.values() for run in runs for name in run))
    rows = [["stage, wall [s]", *stages], ["---"] * (len(stages) + 1)]
    for name in names:
        cells = [median(run.get(name, 0.0) for run in runs) for runs in stages.values()]
        rows.append([name, *(f"{cell:.2f}" for cell in cells)])
    return markdown(rows)


def main() -> None:
    """Measure the programs on the stacks and print the tables."""
    here = Path(__file__).resolve().parents[1] / "src"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "stacks", nargs="+", help="folders of frames, or long:, large:, heavy:FOLDER"
    )
    parser.add_argument("--before", type=Path, metavar="SRC", help="source tree before the change")
    parser.add_argument(
        "--after", type=Path, metavar="SRC", default=here, help="source tree (default: this one)"
    )
    parser.add_argument("--before-python", default=sys.executable, help="its interpreter")
    parser.add_argument("--runs", type=int, default=5, help="runs of each program (default: 5)")
    parser.add_argument("--flags", default="", help="flags of infer, such as --flags='--threads 1'")
    parser.add_argument("--focusweave", metavar="PROGRAM", help="FocusWeave's program, to compare")
    arguments = parser.parse_args()

    for source in filter(None, (arguments.before, arguments.after)):
        if not (source / "focaldiffusion").is_dir():
            parser.error(f"{source}: holds no focaldiffusion; expected the src of a checkout")
    infer = ("-m", "focaldiffusion", "infer", *arguments.flags.split())
    programs = []
    if arguments.before is not None:
        before = arguments.before.resolve()
        programs.append(Program("before", before, (arguments.before_python, *infer)))
    after = arguments.after.resolve()
    programs.append(Program("after", after, (sys.executable, *infer)))
    if arguments.focusweave is not None:
        weave = (str(Path(arguments.focusweave).resolve()), "--keep-size")
        programs.append(Program("FocusWeave", None, weave))

    results: dict[str, dict[str, list[Usage]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for text in arguments.stacks:
            stack = made_stack(text, Path(folder))
            found = measured(programs, stack, arguments.runs, Path(folder))
            results[stack.name] = {name: used for name, (used, _) in found.items()}
            stages = {name: runs for name, (_, runs) in found.items() if any(runs)}
            print(f"{stack.name}\n\n{stage_table(stages)}\n", flush=True)
    print(usage_table(results))


if __name__ == "__main__":
    main()
