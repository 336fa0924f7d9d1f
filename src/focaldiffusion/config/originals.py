"""Keys of the published original that are renamed or refused here.

Other keys keep their names; `docs/configuration.md` lists all of them.
"""

from __future__ import annotations

from typing import Any

from focaldiffusion.config.yaml_files import Block, Key, KeyPath, dotted
from focaldiffusion.errors import InputError

RENAMED = {
    "camera_defaults.focal_length": "camera_defaults.focal_length_m",
    "camera_defaults.pixel_size": "camera_defaults.pixel_pitch_m",
    "simulator_kwargs.default_f_number": "camera_defaults.f_number",
    "simulator_kwargs.default_focal_length": "camera_defaults.focal_length_m",
    "simulator_kwargs.default_pixel_size": "camera_defaults.pixel_pitch_m",
    "data_root.rgb": "data_root.all_in_focus",
    "data_root.images": "data_root.all_in_focus",
    "data_root.aif": "data_root.all_in_focus",
    "data_root.stack": "data_root.focal_stack",
    "data_root.depth_map": "data_root.depth",
    "data_root.disparity": "data_root.depth",
    "training.trainable_modules.transformer": "training.tuning",
}
"""End of a key's path there → here, from the same block."""

_NO_LIMIT = "the renderer blurs by what the lens does, without limits or steps; leave it out"
_NO_SUCH_NETWORK = "the network has no such part: it is conditioned on the evidence; leave it out"

REFUSED = {
    "model.feature_dim": _NO_SUCH_NETWORK,
    "model.num_scales": _NO_SUCH_NETWORK,
    "model.max_focal_stack_size": "stacks of any number of frames are taken; leave it out",
    "model.auth_token": "a secret does not belong in a file that is saved with each run; use "
    "`hf auth login` or the environment variable HF_TOKEN",
    "simulator_kwargs.min_sigma": _NO_LIMIT,
    "simulator_kwargs.max_sigma": _NO_LIMIT,
    "simulator_kwargs.sigma_quantisation": _NO_LIMIT,
    "simulator_kwargs.kernel_limit": _NO_LIMIT,
    "simulator_kwargs.eps": "the renderer computes in dioptres and divides by no distance; "
    "leave it out",
    "losses.perceptual_weight": "not implemented; losses.rgb_ssim weighs structure",
    "validation.guidance_scale": "the prompt is always empty, so that guidance would double the "
    "work and change nothing; leave it out",
}
"""End of a key's path → the reason why it is refused."""

_LENGTHS = {name.count(".") + 1 for name in (*RENAMED, *REFUSED)}


def translate(block: Block) -> list[str]:
    """Rename the original's keys in one layer of a configuration, in place.

    Returns:
        A notice for each renamed key.

    Raises:
        InputError: a refused key, or two names of one key with different values.
    """
    notices: list[str] = []
    _translate(block, (), [], notices)
    return notices


def _translate(node: Any, path: KeyPath, parents: list[Block], notices: list[str]) -> None:
    """Translate below a node at `path`, inside the blocks `parents`, outermost first."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _translate(item, (*path, index), parents, notices)
    if not isinstance(node, dict):
        return
    blocks = [*parents, node]
    for key in list(node):
        here = (*path, key)
        tails = [dotted(here[-length:]) for length in _LENGTHS]
        for tail in tails:
            if tail in REFUSED:
                raise InputError(f"{key.where}{dotted(here)} is not accepted: {REFUSED[tail]}")
        old = next((tail for tail in tails if tail in RENAMED), None)
        if old is not None:
            notices.append(f"{key.where}{dotted(here)} is called {RENAMED[old]} here.")
            _move(node.pop(key), key, blocks[-1 - old.count(".")], old)
        elif node[key]:
            _translate(node[key], here, blocks, notices)
            if node[key] == {}:  # everything in it has moved
                del node[key]


def _move(value: Any, key: Key, block: Block, old: str) -> None:
    """Write the value of an old name below the block that both paths start from."""
    *outer, last = RENAMED[old].split(".")
    for name in outer:
        if not isinstance(block.get(name), dict):
            block[Key(name, key.where)] = {}
        block = block[name]
    if last in block and block[last] != value:
        raise InputError(f"{key.where}{old}: {RENAMED[old]} says otherwise; leave one of them out")
    block.setdefault(Key(last, key.where), value)
