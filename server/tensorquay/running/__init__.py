"""Programs that the server runs beside itself: without its secrets, bounded, and gone when nobody waits any more."""
