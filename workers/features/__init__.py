"""Images to features."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), or a batch of these: (B, height, width, 3)."""
Floats = npt.NDArray[np.float32]
"""(B, D) features."""
