"""What the presets need, and whether this machine has it. Nothing slow is imported before it is needed."""
