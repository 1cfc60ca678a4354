"""Settings of the export of an encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.base import Config

ExportForm = Literal["onnx", "hub", "torch"]
"""Form of an export: an ONNX file, a folder for the Hugging Face hub, or a folder that torch loads without this
package."""


class ExportConfig(Config):
    """Export of an encoder in a form that other software loads, checked on real clips."""

    inputs = ("encoder", "data", "tasks", "evaluation")
    outputs = ("output",)

    encoder: str = ""
    """Encoder to export: a run, or an exported encoder or student, by path or URI."""
    to: ExportForm = "onnx"
    """Form of the export: "onnx" is a file that turns waveforms into vectors and frames, "hub" a folder for the Hugging
    Face hub with code and a model card, "torch" a folder that needs only torch and safetensors."""
    output: str = ""
    """Folder to write to, by path or URI; empty is <home>/exports/<name of the run>-<form>, where <home> is the
    environment variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    data: tuple[str, ...] = ()
    """Prepared sources whose clips the export is checked on, by path or URI; empty uses those of the training."""
    num_clips: Annotated[int, Field(ge=2)] = 256
    """Largest number of clips to check on, spread evenly over the sources."""
    int8: bool = False
    """Write a second ONNX file with 8-bit weights, and score both files by the probes of an evaluation."""
    tasks: tuple[str, ...] = ()
    """Labelled prepared sources to score the 8-bit file on, by path or URI; empty uses those that the export is checked
    on."""
    program: bool = False
    """Also write a program of torch.export, model.pt2, which needs no code to load."""
    licence: str = ""
    """Licence of the weights that the model card states, by its name on the hub (apache-2.0, cc-by-4.0, other …)."""
    data_licence: str = ""
    """Licence of the training recordings that the model card states."""
    evaluation: str = ""
    """Folder of an evaluation, by path or URI; the model card shows its rows of this encoder."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"encoder": "the folder of a run or of its export"}

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        fields = {"onnx": ("int8", "tasks"), "torch": ("program",), "hub": ("licence", "data_licence", "evaluation")}
        for form, names in fields.items():
            for name in names:
                if getattr(self, name) and self.to != form:
                    raise ValueError(f"{name}={getattr(self, name)} has no effect with to={self.to}: give --to {form}")
        if not re.fullmatch("[a-z0-9.-]*", self.licence):
            raise ValueError(
                f"licence={self.licence} is not a name that the hub accepts: give one such as apache-2.0, "
                "cc-by-4.0 or other"
            )
        if self.tasks and not self.int8:
            raise ValueError(f"tasks={self.tasks} are only used to score the 8-bit file: give --int8 too")
        return self
