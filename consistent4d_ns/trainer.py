"""Nerfstudio's trainer, sharing the model fairly with the viewer."""

from __future__ import annotations

from typing import Any

from nerfstudio.engine.trainer import Trainer, TrainerConfig

from consistent4d_ns.device.cuda import use_device
from consistent4d_ns.errors import hide_nerfstudio_warnings
from consistent4d_ns.viewer.fair_lock import FairLock


class Consistent4DTrainer(Trainer):
    """Training steps and the viewer's frames take turns.

    A frame waits for no more than one step, and a step for no more than one frame of each open page. How often there is
    a frame, `viewer.frames` decides.
    """

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        hide_nerfstudio_warnings()
        super().__init__(config, local_rank, world_size)
        use_device(self.device)  # Nerfstudio leaves the current one at the first on every rank
        # The viewer, which is set up later, takes the lock from here.
        self.train_lock: Any = FairLock()
