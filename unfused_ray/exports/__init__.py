"""Exports of an encoder: an ONNX file, a folder for the Hugging Face hub, or a folder for torch alone; all are
checked."""
