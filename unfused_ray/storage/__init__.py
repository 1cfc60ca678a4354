"""Reads and writes files by URI: local paths, and all schemes of pyarrow.fs (``s3://``, ``gs://``).

A local file is looked up, read and written without pyarrow, which the core of the package does not include.

A remote URI is taken literally: ``s3://bucket/a key#1.wav`` names exactly that key, nothing is percent-decoded. Options
of the file system follow the last ``?``: ``s3://bucket/p?endpoint_override=host:9000&scheme=http`` is a MinIO.
Credentials come from the environment, as does ``AWS_ENDPOINT_URL``.

Writing is atomic: a reader sees the old bytes or the new ones, never a part.
"""

from unfused_ray.storage.hashes import sha256, sha256_file, sha256_stream
from unfused_ray.storage.json_files import read_json, write_json
from unfused_ray.storage.listing import list_files, list_folders, list_tree
from unfused_ray.storage.reading import exists, is_folder, modified, open_input, read_bytes
from unfused_ray.storage.uris import absolute, is_local, join, masked, name, parent, relative
from unfused_ray.storage.writing import delete, delete_unfinished, open_output, write_bytes

__all__ = [
    "absolute",
    "delete",
    "delete_unfinished",
    "exists",
    "is_folder",
    "is_local",
    "join",
    "list_files",
    "list_folders",
    "list_tree",
    "masked",
    "modified",
    "name",
    "open_input",
    "open_output",
    "parent",
    "read_bytes",
    "read_json",
    "relative",
    "sha256",
    "sha256_file",
    "sha256_stream",
    "write_bytes",
    "write_json",
]
