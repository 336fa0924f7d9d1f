"""Examples that are written before training, by processes and machines without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.data.batch import StackBatch
from focaldiffusion.data.loading import batches, prepared, read_by_workers
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.data.shard import claimed_by, sweep, write_on
from focaldiffusion.engines.engine import MakeEngine
from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.io.staging import file_errors_named
from focaldiffusion.models.presets import PRESETS, cells_of_token
from focaldiffusion.progress import Meter
from focaldiffusion.shards import Shard
from focaldiffusion.training.examples import Examples, Grid, examples_of
from focaldiffusion.training.kept import KeptExamples


def write_examples(
    config: Config,
    mixture: Mixture,
    kept: KeptExamples,
    *,
    count: int | None = None,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    device: torch.device | str = "cpu",
    engine: MakeEngine | None = None,
    meter: Meter | None = None,
) -> None:
    """Fill a folder of examples, or continue to.

    Args:
        config: of the run that will read them.
        mixture: its sources of train.
        kept: the folder.
        count: positions of the run to write, from its start; by default, epochs with all
            `training.draws_per_sample` draws.
        shard: the share of the positions that this process writes.
        device: where to simulate and estimate; on the CPU, `data.num_workers` processes do.
        engine: makes the engine of a cluster, whose workers write on their CPUs.
        meter: counts the examples, those of an interrupted run included.

    Raises:
        InputError: a bad sample; another process writes this shard.
    """
    count = len(mixture) * kept.draws if count is None else count
    wanted = shard.of(range(count))
    with claimed_by(shard, kept.directory):
        with file_errors_named(kept.directory):
            sweep(kept.directory)
        missing = [one for one in wanted if not kept.has(mixture.draw(one))]
        meter = meter or Meter()
        meter.expect(len(wanted), done=len(wanted) - len(missing))
        writer = _Writer(mixture, kept, config.model)
        if engine is not None:
            write_on(engine, writer, missing, meter)
            return
        workers, device = config.data.num_workers, torch.device(device)
        if device.type == "cpu":
            for error in read_by_workers(writer, missing, workers):
                if error is not None:
                    raise error
                meter.advance()
            return
        for _ in prepared(
            mixture,
            missing,
            1,
            writer.keep,
            num_workers=workers,
            device=device,
            with_estimates=True,
        ):
            meter.advance()


def grid_of(model: ModelConfig) -> Grid | None:
    """The grid of a network that is not loaded, see `Grid`.

    Raises:
        InputError: neither a preset, nor base weights of the hub or in a folder.
    """
    base = model.base_model_id
    preset = PRESETS.get(model.preset or "")
    if base is not None:
        preset = next((one for one in PRESETS.values() if one.base_model_id == base), None)
    if preset is not None:
        if preset.autoencoder is None:
            return None
        return Grid(preset.factor, preset.factor * cells_of_token(preset.network))
    if base is None or not Path(base).is_dir():
        raise InputError(
            f"--examples: the network of {base or model.preset} has no known size. Set "
            f"model.preset ({', '.join(PRESETS)}), or a model.base_model_id of the hub."
        )
    fault, remedy = "is missing or damaged", "Get the base model again."
    paths = [Path(base) / part / "config.json" for part in ("vae", "transformer")]
    vae, network = (read_json(path, fault, remedy) for path in paths)
    with reading(paths[0], fault, remedy):
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return Grid(factor, factor * cells_of_token(network))


@dataclass(frozen=True)
class _Writer:
    """Makes and keeps the example at a position, as a worker's map-style data set."""

    mixture: Mixture
    kept: KeptExamples
    model: ModelConfig

    def __getitem__(self, position: int) -> InputError | None:
        try:
            (batch,) = batches(self.mixture, [position], 1, with_estimates=True)
            self.keep(batch, [self.mixture.draw(position)])
        except InputError as error:
            return error
        return None

    def keep(self, batch: StackBatch, draws: Sequence[Draw]) -> Examples:
        """Keep the examples of a batch."""
        model = self.model
        made = examples_of(
            batch,
            model.depth_code,
            with_stacks=False,
            with_image=model.with_image,
            **model.shown,
        )
        return self.kept.add(draws, made)


def bytes_of_example(directory: Path) -> float:
    """Mean size of the files in a folder of examples."""
    sizes = [path.stat().st_size for path in directory.glob("[!.]*.safetensors")]
    return sum(sizes) / len(sizes)
