"""All statements, made once a process: making them takes seconds under the annotation checks."""

from theory import registry

STATEMENTS = registry.statements()
