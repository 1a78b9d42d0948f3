"""Endpoint picker: chooses the model server for each request (Envoy ext_proc)."""
