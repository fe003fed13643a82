"""From waiting requests to batches and back: a pure policy, a pure merge, and the one owner of each queue."""
