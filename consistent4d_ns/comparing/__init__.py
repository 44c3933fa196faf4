"""Runs side by side on one page: pictures in step, figures, options that differ, loss curves."""
