"""ZenML with a place, a database and a local stack of its own, made before it is imported."""

from __future__ import annotations

import os
import tempfile

HOME = tempfile.TemporaryDirectory()
os.environ.update(
    ZENML_CONFIG_PATH=HOME.name,
    ZENML_ANALYTICS_OPT_IN="false",
    ZENML_LOGGING_VERBOSITY="ERROR",
    ZENML_ENABLE_RICH_TRACEBACK="false",
)
