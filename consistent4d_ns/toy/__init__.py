"""A procedural animated object with exact images from every side at every time, for the demo, tests and benchmarks."""

from consistent4d_ns.toy.render import render
from consistent4d_ns.toy.sequence import write_sequence
from consistent4d_ns.toy.truth import ToyTruth

__all__ = ["ToyTruth", "render", "write_sequence"]
