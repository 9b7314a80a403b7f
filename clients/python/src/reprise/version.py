"""The version of this package, told to the service as user agent."""

__version__ = "0.1.0"
