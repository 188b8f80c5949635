"""Options: one frozen schema per component, read strictly from YAML.

``reader.py`` reads and explains; each other module holds the schemas of one component.
"""

from synthpipe.config.reader import Options, parse_options, read_options, read_yaml

__all__ = ["Options", "parse_options", "read_options", "read_yaml"]
