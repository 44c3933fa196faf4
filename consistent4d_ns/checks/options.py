"""Checks of the training options, before anything is loaded or written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from nerfstudio.configs.base_config import MachineConfig

from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

MAX_SEED = 2**32 - 1
"""Largest seed of NumPy's generator, which Nerfstudio sets too."""
MAX_PORT = 65535
"""Largest TCP port."""


def check_options(config: TrainerConfig) -> None:
    """Check the trainer's own options.

    Raises:
        InputError: one is out of range, or asks for devices that this machine does not have.
    """
    _at_least("max-num-iterations", config.max_num_iterations, 1)
    _at_least("max-skipped-steps", getattr(config, "max_skipped_steps", 1), 1)
    for name in ("steps_per_save", "steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images"):
        _at_least(name, getattr(config, name), 0)
    _at_least("logging.steps-per-log", config.logging.steps_per_log, 1)
    _at_least("logging.max-buffer-size", config.logging.max_buffer_size, 1)
    for group, steps in config.gradient_accumulation_steps.items():
        _at_least(f"gradient-accumulation-steps {group}", steps, 1)
    _check_machine(config.machine)
    _check_port(config.viewer.websocket_port)
    for group, parts in config.optimizers.items():
        rate = parts["optimizer"].lr
        if not 0 < rate < math.inf:
            raise InputError(f"--optimizers.{group}.optimizer.lr is {rate}: give a finite number greater than 0.")


def _at_least(option: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"--{option.replace('_', '-')} is {value}: give at least {least}.")


def _check_machine(machine: MachineConfig) -> None:
    """Raises: InputError: this machine does not have these devices."""
    kind, wanted = machine.device_type, machine.num_devices
    option = f"--machine.device-type {kind}"
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{option}: PyTorch finds no CUDA device on this machine; use --machine.device-type cpu.")
    if kind == "mps":
        raise InputError(
            f"{option}: this method has not been made to run on a Mac's GPU; use --machine.device-type cpu."
        )
    _at_least("machine.num-devices", wanted, 1)
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if wanted > available:
        raise InputError(f"--machine.num-devices is {wanted}: of kind {kind} this machine has {available}.")
    _at_least("machine.num-machines", machine.num_machines, 1)
    if not 0 <= machine.machine_rank < machine.num_machines:
        raise InputError(f"--machine.machine-rank is {machine.machine_rank}: give 0 to {machine.num_machines - 1}.")
    if not 0 <= machine.seed <= MAX_SEED:
        raise InputError(f"--machine.seed is {machine.seed}: give 0 to {MAX_SEED}.")


def _check_port(port: int | None) -> None:
    if port is not None and not 1 <= port <= MAX_PORT:
        raise InputError(f"--viewer.websocket-port is {port}: give 1 to {MAX_PORT}, or leave it out.")
