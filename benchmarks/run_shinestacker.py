"""Fuse a folder of frames with Shine Stacker; run by peers.py under Shine Stacker's own Python.

The job is the quick start of its documentation with default options:
`python run_shinestacker.py FRAMES SCRATCH on|off` leaves one image in SCRATCH/result.
"""

from __future__ import annotations

import sys

from shinestacker.algorithms import AlignFrames, CombinedActions, FocusStack, PyramidStack, StackJob

frames, scratch, align = sys.argv[1:]
job = StackJob("benchmark", scratch, input_path=frames)
if align == "on":
    job.add_action(CombinedActions("align", [AlignFrames()]))
job.add_action(FocusStack("result", PyramidStack()))
job.run()
