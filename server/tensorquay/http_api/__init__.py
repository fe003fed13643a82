"""HTTP: the hot V2 routes as bytes → bytes handlers, and the FastAPI control plane beside them."""
