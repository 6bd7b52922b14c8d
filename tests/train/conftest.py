"""One thread, as training itself has by default: two threads on busy cores wait for each other."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
