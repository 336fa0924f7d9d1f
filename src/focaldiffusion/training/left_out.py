"""Bad samples of a run: found before its first step, recorded, and left out by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.config.data import Split
from focaldiffusion.config.run import Config
from focaldiffusion.config.sources import has_split
from focaldiffusion.data.check import BadSample, bad_samples, read_bad
from focaldiffusion.data.loading import open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.training.stopping import from_the_first

if TYPE_CHECKING:
    from accelerate import Accelerator

RECORD = "bad_samples.csv"
"""File of a run with the samples that it leaves out."""


def left_out(config: Config, accelerator: Accelerator, *, resumes: bool) -> list[BadSample]:
    """The samples that a run leaves out by `data.skip_bad_samples`; equal in all processes.

    Args:
        config: of the run.
        accelerator: whose main process reads.
        resumes: take the record of the run, if there is one, instead of reading again.

    Raises:
        InputError: more are bad than allowed; or a damaged record.
    """
    most = config.data.skip_bad_samples
    if most == 0:
        return []

    def read() -> list[BadSample]:
        record = Path(config.output.save_dir) / RECORD
        if resumes and record.exists():
            bad = read_bad(record)
        else:
            accelerator.print("reading every sample once (data.skip_bad_samples)")
            bad = _found(config)
        counted = [one for one in bad if one.sample or not config.data.allow_missing]
        if len(counted) > most:
            raise InputError(
                f"{len(counted)} samples of train and val are bad, and data.skip_bad_samples "
                f"allows {most}; the first: {counted[0].reason} `focaldiffusion data check` lists "
                "them."
            )
        return bad

    return from_the_first(accelerator, read)


def check_missing(bad: Sequence[BadSample], mixture: Mixture) -> None:
    """Refuse a record if other files of train are missing than at its time.

    The order of stacks would change silently.

    Raises:
        InputError: a file has gone, or come back.
    """
    recorded = {one.reason for one in bad if not one.sample and one.split == "train"}
    changed = recorded ^ {sentence for dataset in mixture.datasets for sentence in dataset.skipped}
    if changed:
        raise InputError(
            f"{RECORD} of this run was written when other files were missing: {min(changed)} Undo "
            "that, or remove the record, so that all samples are read again."
        )


def _found(config: Config) -> list[BadSample]:
    data = config.data
    splits: tuple[Split, ...] = ("train", "val")
    return [
        one
        for split in splits
        if split == "train" or has_split(data, split)
        for one in bad_samples(
            open_split(data, split, config.training.seed), num_workers=data.num_workers
        )
    ]
