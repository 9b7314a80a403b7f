"""Libraries that retry, steered by the service. Each adapter needs the library it is named after."""
