"""`focaldiffusion app`: a page on this machine to open, watch, look at and correct stacks.

The server (`server.py`) is a small process without torch: it answers the page, keeps files and
states, and starts others. A job (`worker.py`) has a process of its own that outlives the server.
`desk.py` holds the processes for short heavy work, such as opening a stack or drawing a tile.
"""
