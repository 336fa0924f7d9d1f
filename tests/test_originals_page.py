"""docs/configuration.md maps every list field and flag of the published original, truthfully."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from focaldiffusion.data.lists.entry import FIELDS, ORIGINALS, REFUSED
from script.evaluate import main as evaluate
from script.inference import main as inference
from script.train import main as train

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

FLAGS = {
    "train": "--config --resume --override --debug --dry-run --data-root --train-filelist "
    "--val-filelist --test-filelist --output-dir",
    "inference": "--input --output --model-path --config --base-model --device --dtype "
    "--input-list --focus-distances --focal-length --aperture --sensor-size "
    "--num-inference-steps --guidance-scale --ensemble-size --camera-invariant-mode --batch-size "
    "--save-visualization --save-intermediate",
    "evaluate": "--config --checkpoint --dataset --data_root --split --output_dir --batch_size "
    "--num_inference_steps --max_samples --device --fp16 --save_viz --num_viz",
}
"""Flags of the original, which must all be in the tables."""
COMMANDS = {"train": train, "inference": inference, "evaluate": evaluate}
NEEDED = {
    "train": "--config nowhere.yaml --dry-run",
    "inference": "--input nowhere --output out",
    "evaluate": "--dataset nyuv2 --data_root nowhere",
}
"""Arguments that complete each command, with files that do not exist."""
FIELDS_OF_THE_ORIGINAL = (
    "depth depth_path focal_stack focal_stack_dir scene_path all_in_focus aif aif_path "
    "focus_distances focus_range depth_dataset depth_scale depth_shift depth_range "
    "generate_focal_stack num_images transpose_depth image_glob camera.f_number "
    "camera.focal_length camera.pixel_size camera.aperture"
)


def rows(heading: str) -> dict[str, str]:
    """The second column, by name, of the table with this first heading."""
    table = PAGE.read_text(encoding="utf-8").partition(f"| {heading} |")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in table.splitlines():
        if line.startswith("| "):
            _, names, meaning, _ = line.split("|")
            found |= dict.fromkeys(re.findall(r"`([^`]*)`", names), meaning.strip())
    return found


def test_every_field_of_a_list_is_mapped() -> None:
    found = rows("field of a file list")
    assert set(FIELDS_OF_THE_ORIGINAL.split()) <= found.keys()
    assert {*ORIGINALS, *REFUSED} <= found.keys()
    for name, meaning in found.items():
        if name in REFUSED:
            assert meaning.startswith("refused: ")
        elif name in ORIGINALS:
            assert meaning.startswith(f"`{ORIGINALS[name]}`")
        else:
            assert meaning == "the same"
            assert name in FIELDS


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_is_mapped(command: str) -> None:
    assert rows(f"flag of `script.{command}`").keys() == set(FLAGS[command].split())


@pytest.mark.parametrize(
    ("command", "flag"), [(name, flag) for name in FLAGS for flag in FLAGS[name].split()]
)
def test_a_flag_does_what_the_page_says(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = rows(f"flag of `script.{command}`")[flag].startswith("refused")
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command](["--help"])
    assert ended.value.code == 0
    help_text = " ".join(capsys.readouterr().out.split())
    in_group = help_text.partition("flags of the original, refused")[2]
    assert (f"{flag} " in in_group) == refused
    if refused:
        try:
            code = COMMANDS[command]([*NEEDED[command].split(), flag])
        except SystemExit as exit_:
            code = exit_.code
        assert code == 2
        assert f"{flag}: " in capsys.readouterr().err
