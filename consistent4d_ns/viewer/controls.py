"""GUI elements that steer training."""

from __future__ import annotations

from typing import Any

import viser
from nerfstudio.viewer.viewer_elements import ViewerSlider

from consistent4d_ns.steering import FACTOR_LIMITS, NOISE_LIMITS, SCALE_LIMITS, Steering
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.elements import Button, Checkbox, Slider, install

MAX_SCALE = 20.0
"""Maximum of the guidance scale slider, unless twice the configured scale is greater."""


class Controls:
    """Sliders and switches for everything in `Steering`; those without effect are disabled, and their hints say why."""

    def __init__(self, pipeline: TrainingState) -> None:
        self._pipeline = pipeline
        # Reasons why elements are disabled, or empty strings.
        distributed = "" if pipeline.world_size == 1 else "Not available with several training processes."
        no_input = distributed or (
            "" if pipeline.datamanager.has_frames else "There is no input view: the object is made from a prompt."
        )
        no_prior = distributed or ("" if pipeline.guidance else "No prior is loaded: see --pipeline.guidance.kind.")
        no_interpolation = distributed or (
            "" if pipeline.interpolates else "No network is loaded: see --pipeline.interpolation.kind."
        )
        self.scale = self._scale(no_prior)
        self.factors = {
            "sds": self._factor("SDS factor", "sds", no_prior, "score distillation, which shapes the unseen sides"),
            "consistency": self._factor(
                "ICL factor", "consistency", no_interpolation, "consistency of neighbouring views and times"
            ),
            "rgb": self._factor("Colour factor", "rgb", no_input, "reconstructing the input view's colour"),
            "mask": self._factor("Mask factor", "mask", no_input, "reconstructing the input view's silhouette"),
        }
        hint = no_prior or "Draw noise levels from the range below instead of the schedule."
        self.fix_noise = Checkbox("Fix noise", False, bool(no_prior), cb_hook=self._steer_noise, hint=hint)
        self.min_noise, self.max_noise = (self._noise(name, no_prior) for name in ("Min", "Max"))
        nothing_to_pause = no_input or (no_prior and no_interpolation)
        hint = nothing_to_pause or "Fit the input view only, without distillation or any novel view."
        self.pause = Checkbox("Pause distillation", False, bool(nothing_to_pause), cb_hook=self._steer_pause, hint=hint)
        hint = "Undo all changes: train as configured."
        self.reset = Button("Reset", lambda _: self.restore(), hint, "arrow-back-up", bool(distributed))
        self._show(Steering())

    def install(self, server: viser.ViserServer) -> None:
        """Add the elements to the open folder."""
        noise = [self.fix_noise, self.min_noise, self.max_noise]
        install([self.scale, *self.factors.values(), *noise, self.pause, self.reset], server)

    def restore(self) -> None:
        """Undo all changes."""
        self._show(Steering())
        self._pipeline.steer(**vars(Steering()))

    def _show(self, steering: Steering) -> None:
        """Set the elements to the values of `steering`, or to the configured values where it has none."""
        config = self._pipeline.guidance_config
        self.scale.value = config.scale if steering.guidance_scale is None else steering.guidance_scale
        for term, slider in self.factors.items():
            slider.value = steering.factor(term)
        low, high = NOISE_LIMITS
        levels = steering.noise_range or (config.min_noise(0), config.max_noise(0))
        self.min_noise.value, self.max_noise.value = (min(max(level, low), high) for level in levels)
        self.fix_noise.value, self.pause.value = steering.noise_range is not None, steering.pause_distillation

    def _scale(self, unavailable: str) -> Slider:
        configured = self._pipeline.guidance_config.scale
        hint = unavailable or "Classifier-free guidance: how closely the prior follows the input frame, or the prompt."
        high = min(max(MAX_SCALE, 2.0 * configured), SCALE_LIMITS[1])
        return Slider(
            "Guidance scale", configured, 0.0, high, 0.1, bool(unavailable), cb_hook=self._steer_scale, hint=hint
        )

    def _factor(self, name: str, term: str, unavailable: str, about: str) -> Slider:
        def steer(slider: ViewerSlider[Any]) -> None:
            self._pipeline.steer(**{term: float(slider.value)})

        hint = unavailable or f"Factor on the configured weight of {about}; 1 keeps it."
        return Slider(name, 1.0, *FACTOR_LIMITS, 0.1, bool(unavailable), cb_hook=steer, hint=hint)

    def _noise(self, name: str, unavailable: str) -> Slider:
        low, high = NOISE_LIMITS
        hint = unavailable or f"{name}imum noise level while Fix noise is on; 1 is pure noise."
        return Slider(f"{name} noise", low, low, high, 0.01, bool(unavailable), cb_hook=self._steer_noise, hint=hint)

    def _steer_scale(self, slider: ViewerSlider[Any]) -> None:
        self._pipeline.steer(guidance_scale=float(slider.value))

    def _steer_pause(self, _: object) -> None:
        self._pipeline.steer(pause_distillation=self.pause.value)

    def _steer_noise(self, moved: object) -> None:
        """Apply the range; if one end is moved past the other, both get the same value."""
        low, high = float(self.min_noise.value), float(self.max_noise.value)
        if low > high:
            low = high = high if moved is self.max_noise else low
            self.min_noise.value = self.max_noise.value = low
        self._pipeline.steer(noise_range=(low, high) if self.fix_noise.value else None)
