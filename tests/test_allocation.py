import gc
import resource
import subprocess
import sys

import pytest

from focaldiffusion.allocation import uncollected

# A second array of 64 MiB takes new pages, unless those of the first one were kept.
PROGRAM = """
import resource
from focaldiffusion.allocation import keep_freed_memory
kept = {} and keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def again(kept: bool) -> tuple[str, int]:
    program = PROGRAM.format(kept)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    told, faults = finished.stdout.decode().split()
    return told, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_a_block_that_was_freed_is_not_faulted_in_again():
    told, faults = again(kept=True)
    if told == "False":
        pytest.skip("another C library")
    assert faults < again(kept=False)[1] / 4


# Every other block stays, so that the heap cannot shrink by itself.
GAPS = """
from focaldiffusion.allocation import give_back_freed_memory, keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1])
keep_freed_memory()
blocks = [bytearray(b"x") * 2**16 for _ in range(2048)]
del blocks[::2]
before = resident()
print(give_back_freed_memory(), before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_gaps_between_blocks_are_given_back():
    finished = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, check=True)
    told, pages = finished.stdout.decode().split()
    if told == "False":
        pytest.skip("another C library")
    assert int(pages) * resource.getpagesize() > 2**25


def test_the_collector_rests_within_the_block_alone():
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
