"""Exports: an encoder as an ONNX file, as a folder for the Hugging Face hub, or for torch alone; each is checked."""
