"""GUI elements that Nerfstudio does not have."""

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


class UserInput(ViewerParameter[Any]):
    """A parameter that calls back when a user changes it, and not when the program does."""

    def install(self, viser_server: viser.ViserServer) -> None:
        """Add it to the open folder."""
        self._create_gui_handle(viser_server)
        self.gui_handle.on_update(self._changed)

    def _changed(self, event: viser.GuiEvent[Any]) -> None:
        # The browser accepts input in the number field even of a disabled slider.
        if event.client is not None and not self.disabled:
            self.cb_hook(self)


class Slider(UserInput, ViewerSlider[Any]):
    """Nerfstudio's slider as `UserInput`; its value is within its limits, whatever a page has sent."""

    @property
    def value(self) -> Any:
        """The current value; the initial one if a page has sent something other than a finite number."""
        value = super().value
        if isinstance(value, (int, float)) and math.isfinite(value):
            return min(max(value, self.min), self.max)
        return self.default_value

    @value.setter
    def value(self, value: Any) -> None:
        ViewerSlider.value.__set__(self, value)


class Checkbox(UserInput, ViewerCheckbox):
    """Nerfstudio's checkbox as `UserInput`."""


class Button(ViewerButton):
    """A button with a hint and an icon that calls back with the client that pressed it."""

    def __init__(
        self, name: str, callback: Callable[[viser.ClientHandle], Any], hint: str, icon: str, disabled: bool = False
    ) -> None:
        super().__init__(name, lambda _: None, disabled=disabled)
        self.callback = callback
        self.hint, self.icon = hint, icon

    def _create_gui_handle(self, viser_server: viser.ViserServer) -> None:
        icon: Any = self.icon
        self.gui_handle = viser_server.gui.add_button(
            self.name, disabled=self.disabled, visible=self.visible, hint=self.hint, icon=icon, color="gray"
        )

    def install(self, viser_server: viser.ViserServer) -> None:
        """Add it to the open folder."""
        self._create_gui_handle(viser_server)
        self.gui_handle.on_click(lambda event: self.callback(event.client) if event.client is not None else None)


class Readout(UserInput, ViewerText):
    """One read-only line of text; input by a user is overwritten.

    It is not disabled, because disabled text is hard to read.
    """

    def __init__(self, name: str, hint: str) -> None:
        super().__init__(name, "", hint=hint)

    def show(self, text: str) -> None:
        """Show `text`, unless it is shown already."""
        if self.value != text:
            self.value = text


class Note(ViewerElement[str]):
    """Text, tables and images in Markdown, written by the program."""

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
        """Replace the text, unless it is shown already."""
        handle: Any = self.gui_handle
        self.text = text
        if handle is not None and handle.content != text:
            handle.content = text


def install(elements: list[ViewerElement[Any]], viser_server: viser.ViserServer) -> None:
    """Add elements to the open folder, in this order."""
    for element in elements:
        element.install(viser_server)
