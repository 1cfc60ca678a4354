"""An exported ONNX file as an encoder, which embeds clips and may be a row of a table."""

from __future__ import annotations

import numpy as np

from unfused_ray import extras, storage


class OnnxEmbedder:
    """Runs a file written by ``unfused-ray export --to onnx``, on the CPU.

    Args:
        uri: path or URI of the file.
        model: content of the file, if it is not written yet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an ONNX file, or was not written by this project.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, uri: str, model: bytes | None = None) -> None:
        extras.require("export", "onnxruntime", uri)
        import onnxruntime

        model = storage.read_bytes(uri) if model is None else model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several processes fill the cells of a table, so each uses one thread
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{uri} is no ONNX file that can be run: {error}") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if "sample_rate" not in self.metadata:
            raise ValueError(f"{uri} was not written by unfused-ray export --to onnx: its metadata name no sample_rate")
        self.sample_rate = int(self.metadata["sample_rate"])
        self.num_parameters = int(self.metadata["num_parameters"])
        self.version = storage.sha256(model)

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        """Return vectors of clips: (B, samples) float32 → (B, dim) float32."""
        return self.run(wave_BT)[0]

    def run(self, wave_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors of clips, (B, dim) float32, and of frames over time, (B, T', dim) float32."""
        vectors_BD, frames_BTD = self._session.run(["vectors", "frames"], {"wave": wave_BT})
        return vectors_BD, frames_BTD
