"""gRPC: method path → handler over bytes, and the grpcio server that runs the table."""
