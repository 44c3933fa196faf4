"""Entry for `nerfstudio/configs/external_methods.py`, beside those of the other external methods.

For the pull request, which needs the package on the package index under this name. A test adds the entry to
Nerfstudio's own list and compares it with the presets.
"""

from nerfstudio.configs.external_methods import ExternalMethod, external_methods

# Consistent4D
external_methods.append(
    ExternalMethod(
        """[bold yellow]Consistent4D[/bold yellow]
For more information visit: https://docs.nerf.studio/nerfology/methods/consistent4d.html

To enable Consistent4D, you must install it first by running:
  [grey]pip install consistent4d_ns[/grey]""",
        configurations=[
            ("consistent4d", "Consistent4D. Two levels, used in paper"),
            ("consistent4d-big", "Consistent4D. Four levels, for large motion and detail"),
            ("consistent4d-mini", "Consistent4D. Small, with a bundled prior, for a CPU"),
            ("consistent4d-image", "Consistent4D. A static object from one image"),
            ("consistent4d-image-mini", "Consistent4D. The same with a bundled prior, for a CPU"),
            ("consistent4d-text", "Consistent4D. A static object from a prompt"),
        ],
        pip_package="consistent4d_ns",
    )
)
