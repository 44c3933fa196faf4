"""Consistent4D as a Nerfstudio plugin: one video of an object in, a 4D object out.

Importing the package imports nothing else, so that every `ns-*` command stays quick to start.
"""

__version__ = "0.3.0.dev0"
