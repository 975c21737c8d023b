"""Run the kernels of the library named on the command line; started by test_portable under AddressSanitizer.

Every array is its own allocation of exactly the size that the contract gives, so one element too far is caught.
"""

from __future__ import annotations

import ctypes
import sys

from tests.firmware.engine import reference
from tests.firmware.engine.checks import check_layer
from tests.firmware.engine.fixed_cases import Case, everything
from tests.firmware.engine.fixed_kernels import FixedKernels
from tests.firmware.engine.fixed_numbers import LINEAR
from tests.firmware.engine.layers import Kernels
from tests.firmware.engine.table import LAYERS
from tests.firmware.engine.training import train


def main() -> None:
    kernels = Kernels(ctypes.CDLL(sys.argv[1]))
    fixed = FixedKernels(kernels.library)
    for seed, layer in enumerate(LAYERS):
        check_layer(kernels, layer, reference.oracle, seed)
        for case in (Case(layer, seed), Case(layer, seed, ("extreme",) * 3, slope=LINEAR, frozen=True)):
            everything(fixed, case)  # test_fixed says whether it is right
    train(kernels, 6, seed=5)
    print(f"{len(LAYERS)} layers")


if __name__ == "__main__":
    main()
