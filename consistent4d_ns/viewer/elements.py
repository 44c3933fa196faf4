"""GUI elements that Nerfstudio's own set lacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import viser
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerElement,
    ViewerParameter,
    ViewerSlider,
    ViewerText,
)


class ByHand(ViewerParameter[Any]):
    """A parameter that calls back when somebody changes it, and not when the program does."""

    def install(self, viser_server: viser.ViserServer) -> None:
        """Add it to the open folder."""
        self._create_gui_handle(viser_server)
        self.gui_handle.on_update(self._changed)

    def _changed(self, event: viser.GuiEvent[Any]) -> None:
        # The page lets people type into a disabled slider's number.
        if event.client is not None and not self.disabled:
            self.cb_hook(self)


class Slider(ByHand, ViewerSlider[Any]):
    """Nerfstudio's slider, `ByHand`, whose value lies between its ends whatever a page has sent."""

    def _value_within_limits(self) -> Any:
        value = super().value
        if isinstance(value, (int, float)) and math.isfinite(value):
            return min(max(value, self.min), self.max)
        return self.default_value

    value = property(_value_within_limits, ViewerSlider.value.fset)


class Checkbox(ByHand, ViewerCheckbox):
    """Nerfstudio's checkbox, `ByHand`."""


class Button(ViewerButton):
    """A button with a hint and an icon, which calls back with the client that pressed it."""

    def __init__(
        self, name: str, pressed: Callable[[viser.ClientHandle], Any], hint: str, icon: str, disabled: bool = False
    ) -> None:
        super().__init__(name, lambda _: None, disabled=disabled)
        self.pressed = pressed
        self.hint, self.icon = hint, icon

    def _create_gui_handle(self, viser_server: viser.ViserServer) -> None:
        icon: Any = self.icon
        self.gui_handle = viser_server.gui.add_button(
            self.name, disabled=self.disabled, visible=self.visible, hint=self.hint, icon=icon, color="gray"
        )

    def install(self, viser_server: viser.ViserServer) -> None:
        """Add it to the open folder."""
        self._create_gui_handle(viser_server)
        self.gui_handle.on_click(lambda event: self.pressed(event.client) if event.client is not None else None)


class Readout(ByHand, ViewerText):
    """One line that the program writes again and again, so that typing into it has no effect.

    Not disabled, because then it could hardly be read.
    """

    def __init__(self, name: str, hint: str) -> None:
        super().__init__(name, "", hint=hint)

    def show(self, text: str) -> None:
        """Write `text`, if it is not there already."""
        if self.value != text:
            self.value = text


class Note(ViewerElement[str]):
    """Text, tables and pictures in Markdown, which the program writes."""

    def __init__(self, text: str = "") -> None:
        super().__init__("")
        self.text = text

    def _create_gui_handle(self, viser_server: viser.ViserServer) -> None:
        handle: Any = viser_server.gui.add_markdown(self.text)
        self.gui_handle = handle

    def install(self, viser_server: viser.ViserServer) -> None:
        """Add it to the open folder."""
        self._create_gui_handle(viser_server)

    def show(self, text: str) -> None:
        """Replace the text, if it is another."""
        handle: Any = self.gui_handle
        self.text = text
        if handle is not None and handle.content != text:
            handle.content = text


def install(elements: list[ViewerElement[Any]], viser_server: viser.ViserServer) -> None:
    """Add elements to the open folder, in this order."""
    for element in elements:
        element.install(viser_server)
