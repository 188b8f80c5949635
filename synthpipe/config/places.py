"""Texts that name a place: what they stand for is part of their type, so that the option reference can print it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["File", "FileOrURL", "Folder", "FolderOrURL", "Shards", "ShardsOrFolder", "Weights"]

File = Annotated[str, Field(json_schema_extra={"format": "file"})]
FileOrURL = Annotated[str, Field(json_schema_extra={"format": "file or URL"})]
Folder = Annotated[str, Field(json_schema_extra={"format": "folder"})]
FolderOrURL = Annotated[str, Field(json_schema_extra={"format": "folder or URL"})]
#: A path or URL with ``{000..511}`` ranges, or a folder with an index.
Shards = Annotated[str, Field(json_schema_extra={"format": "shards"})]
ShardsOrFolder = Annotated[str, Field(json_schema_extra={"format": "shards or folder"})]
#: A ``.safetensors`` file, or the name of weights that ship with the package.
Weights = Annotated[str, Field(json_schema_extra={"format": "weights"})]
