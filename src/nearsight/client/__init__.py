"""HTTP: the client of the service, and the only module that knows the HTTP library."""
